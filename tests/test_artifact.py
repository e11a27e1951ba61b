"""Artifacts: whole or not at all, and never used once changed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy import artifact
from g2sd_deploy.artifact import MARKER, Artifact, Identity, Made, commit, read_artifact, unfinished_folder, write_text_whole
from g2sd_deploy.errors import UserError

IDENTITY = Identity("generic", {"generic": {"epochs": 4}}, {"data": "d" * 64}, "0.1.0")


def write_artifact(final: Path, *, text: str = "weights", made: Made | None = None, identity: Identity = IDENTITY) -> Artifact:
    with unfinished_folder(final) as folder:
        (folder / "model.bin").write_text(text)
        (folder / "deep").mkdir()
        (folder / "deep" / "notes.txt").write_text("notes")
        return commit(
            folder, final, identity, made or Made({"loss": 0.5}), tools={"torch": "2"}, environment={"num_cpus": 2}, seconds=1.23456
        )


def test_an_artifact_says_what_made_it(tmp_path: Path) -> None:
    write_artifact(tmp_path / "generic", made=Made({"loss": 0.5}, timing={"images_per_s": 100.0}))
    found = json.loads((tmp_path / "generic" / MARKER).read_text())
    assert (found["format"], found["stage"], found["version"]) == (1, "generic", "0.1.0")
    assert found["config"] == {"generic": {"epochs": 4}} and found["parents"] == {"data": "d" * 64}
    assert (found["tools"], found["environment"], found["seconds"]) == ({"torch": "2"}, {"num_cpus": 2}, 1.235)
    assert set(found["files"]) == {"model.bin", "deep/notes.txt"} and found["files"]["model.bin"]["bytes"] == 7
    assert found["metrics"] == {"loss": 0.5, "images_per_s": 100.0}
    assert found["finished_at"].endswith("Z")


def test_an_artifact_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    written = write_artifact(tmp_path / "generic")
    found = read_artifact(tmp_path / "generic")
    assert found == written and found.key == IDENTITY.key and found.failure == ""
    found.verify()
    assert found.file("model.bin").read_text() == "weights"
    assert read_artifact(tmp_path / "other") is None
    assert [path.name for path in tmp_path.iterdir()] == ["generic"]


def test_the_digest_is_of_the_result_and_not_of_the_moment(tmp_path: Path) -> None:
    def digest(**changes: Any) -> str:
        return write_artifact(tmp_path / "generic", **changes).digest

    plain = digest()
    assert (
        digest(made=Made({"loss": 0.5}, timing={"images_per_s": 99.0}))
        == digest(made=Made({"loss": 0.5}, timing={"images_per_s": 1.0}))
        == plain
    )
    assert digest(identity=Identity("generic", {"generic": {"epochs": 5}}, {}, "0.2.0")) == plain
    assert digest(text="other weights") != plain
    assert digest(made=Made({"loss": 0.6})) != plain


@pytest.mark.parametrize(
    "other",
    [
        Identity("specific", IDENTITY.config, IDENTITY.parents, "0.1.0"),
        Identity("generic", {"generic": {"epochs": 5}}, IDENTITY.parents, "0.1.0"),
        Identity("generic", IDENTITY.config, {"data": "e" * 64}, "0.1.0"),
        Identity("generic", IDENTITY.config, {**IDENTITY.parents, "teacher": "f"}, "0.1.0"),
        Identity("generic", IDENTITY.config, IDENTITY.parents, "0.1.1"),
    ],
)
def test_the_key_changes_with_stage_settings_parents_and_version(other: Identity) -> None:
    assert other.key != IDENTITY.key
    assert Identity("generic", dict(IDENTITY.config), dict(IDENTITY.parents), "0.1.0").key == IDENTITY.key


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (Path.unlink, "the file is gone, but generic needs it; make it again with --force generic"),
        (cut, "holds 6 bytes instead of 7, so it was changed or cut off after generic wrote it; make it again with --force generic"),
        (flip, "its hash is not the one that generic recorded, so it was changed; make it again with --force generic"),
    ],
)
def test_a_missing_truncated_or_changed_file_is_found(damage: Callable[[Path], None], message: str, tmp_path: Path) -> None:
    written = write_artifact(tmp_path / "generic")
    damage(written.file("model.bin"))
    with pytest.raises(UserError) as caught:
        written.verify()
    assert str(caught.value) == f"{written.file('model.bin')}: {message}"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"loss": 0.5', '"loss": 0.4', "was changed after generic wrote it"),
        ('"bytes": 7', '"bytes": 8', "was changed after generic wrote it"),
        ('"failure": ""', '"failure": "no"', "was changed after generic wrote it"),
        ('"epochs": 4', '"epochs": 5', "was changed after generic wrote it"),
        ('"version": "0.1.0"', '"version": "0.2.0"', "was changed after generic wrote it"),
        ('"files"', '"flies"', "is damaged"),
        ('"format": 1,', '"format": 1', "is damaged"),
    ],
)
def test_a_changed_marker_is_found(old: str, new: str, message: str, tmp_path: Path) -> None:
    marker = write_artifact(tmp_path / "generic").folder / MARKER
    text = marker.read_text()
    assert text.count(old) == 1
    marker.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message):
        read_artifact(tmp_path / "generic")


def test_a_truncated_marker_is_found_and_names_the_way_out(tmp_path: Path) -> None:
    marker = write_artifact(tmp_path / "generic").folder / MARKER
    cut(marker)
    cut(marker)
    with pytest.raises(UserError, match=r"artifact\.json: is damaged; make it again with --force generic$"):
        read_artifact(tmp_path / "generic")


def test_another_format_counts_as_not_run(tmp_path: Path) -> None:
    marker = write_artifact(tmp_path / "generic").folder / MARKER
    marker.write_text(marker.read_text().replace('"format": 1', '"format": 2'))
    assert read_artifact(tmp_path / "generic") is None


class Killed(BaseException):
    """Stands for a kill: nothing may catch it to carry on."""


# Every step that touches the disk or reads it while an artifact is written.
STEPS = [
    (artifact, "sha256_of"),
    (artifact, "sync"),
    (artifact, "_replace_folder"),
    (Path, "write_text"),
    (Path, "rename"),
    (artifact, "read_artifact"),
]


@pytest.mark.parametrize(("place", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.parametrize("nth", [1, 2, 3, 4, 5])
def test_a_stop_at_any_step_leaves_the_old_or_the_new_artifact_whole(
    place: Any, name: str, nth: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    final = tmp_path / "generic"
    old = write_artifact(final, text="old")
    real, calls = getattr(place, name), [0]

    def stops(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == nth:
            raise Killed
        return real(*args, **kwargs)

    monkeypatch.setattr(place, name, stops)
    stopped = False
    try:
        write_artifact(final, text="new")
    except Killed:
        stopped = True
    monkeypatch.undo()
    found = read_artifact(final)
    assert found is not None
    found.verify()
    assert found.file("model.bin").read_text() in ({"old", "new"} if stopped else {"new"})
    assert stopped or calls[0] < nth
    assert found == old or found.file("model.bin").read_text() == "new"
    assert not [path for path in tmp_path.iterdir() if path.name.endswith(".unfinished")]


def test_a_stop_before_the_first_artifact_leaves_none(tmp_path: Path) -> None:
    with pytest.raises(Killed), unfinished_folder(tmp_path / "generic") as folder:
        (folder / "model.bin").write_text("half")
        raise Killed
    assert read_artifact(tmp_path / "generic") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_kill_left_behind_is_cleared_away(tmp_path: Path) -> None:
    for name in (".generic.unfinished", ".generic.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stale.bin").write_text("stale")
    assert set(write_artifact(tmp_path / "generic").files) == {"model.bin", "deep/notes.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["generic"]


def test_a_small_file_is_old_or_new_and_never_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "run.json"
    write_text_whole(path, "old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artifact, "sync", full)
    with pytest.raises(OSError, match="No space left"):
        write_text_whole(path, "new")
    assert path.read_text() == "old"


def test_a_failed_verdict_is_kept_with_its_figures(tmp_path: Path) -> None:
    write_artifact(tmp_path / "generic", made=Made({"flipped": 3}, failure="3 decisions flipped"))
    found = read_artifact(tmp_path / "generic")
    assert found is not None and (found.failure, found.metrics) == ("3 decisions flipped", {"flipped": 3})
