"""`g2sd data sets`, `pull` and `check`: exit codes, what is printed where, and their refusals, with a real server."""

import functools
import hashlib
import http.server
import io
import json
import os
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from g2sd_deploy.data.testsets import catalogue


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def shelf(tmp_path: Path, serving: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A server's folder, and a catalogue with one set that it has and one behind a login."""
    folder = tmp_path / "served"
    folder.mkdir()
    buffer, pixels = io.BytesIO(), np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, mode in (("cat/1.jpg", "RGB"), ("cat/2.jpg", "L"), ("dog/1.jpg", "CMYK"), ("dog/2.jpg", "RGB"), ("README", "RGB")):
            image = io.BytesIO()
            Image.fromarray(pixels).convert(mode).save(image, "JPEG")
            info = tarfile.TarInfo(f"pets/{name}")
            info.size = image.tell()
            tar.addfile(info, io.BytesIO(image.getvalue()))
    (folder / "pets.tar").write_bytes(buffer.getvalue())
    with serving(functools.partial(Quiet, directory=str(folder))) as address:
        archive = {
            "file": "pets.tar",
            "url": f"{address}/pets.tar",
            "bytes": buffer.tell(),
            "md5": hashlib.md5(buffer.getvalue()).hexdigest(),
        }
        pets = {"title": "Pets", "licence": "MIT", "page": "https://example.org", "classes": ["cat", "dog"], "archives": [archive]}
        pets["folders"] = {".": {"images": 4, "per_class": 2}}
        locked = pets | {"terms": "example.org wants an account", "archives": [archive | {"file": "locked.tar"}]}
        text = json.dumps({"format": 1, "aliases": {"animals": "pets"}, "sets": {"pets": pets, "locked": locked}})
        (tmp_path / "sets.yaml").write_text(text)
        monkeypatch.setattr(catalogue, "CATALOGUE", tmp_path / "sets.yaml")
        monkeypatch.setenv("G2SD_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(os, "sync", lambda: None)  # it waits for whatever else this machine writes
        for name in ("G2SD_MIRROR", "G2SD_OFFLINE"):
            monkeypatch.delenv(name, raising=False)
        yield folder


def test_pull_prints_the_folder_on_stdout_and_the_rest_on_stderr(g2sd: Callable[..., Any], shelf: Path, tmp_path: Path) -> None:
    answer = g2sd("data", "pull", "animals")
    place = tmp_path / "cache" / "data" / "pets"
    assert (answer.code, answer.out) == (0, f"{place}\n") and (place / "dog" / "2.jpg").is_file()
    assert "fetch pets.tar: starts" in answer.err and "unpack pets.tar: done" in answer.err
    assert "pets: left out of the archives, as they have no place in the set: pets/README\n" in answer.err
    assert answer.err.endswith("pets pulled: 4 images; licence: MIT\n")
    again = g2sd("data", "pull", "pets")
    assert (again.code, again.out) == (0, answer.out)
    assert again.err == "pets is here already (`g2sd data check` looks at it); licence: MIT\n"


def test_pull_takes_given_files_and_another_folder(g2sd: Callable[..., Any], shelf: Path, tmp_path: Path) -> None:
    given = (shelf / "pets.tar").rename(tmp_path / "pets.tar")
    answer = g2sd("data", "pull", "pets", "--from", given, "--to", tmp_path / "disk", "--keep")
    assert (answer.code, answer.out) == (0, f"{tmp_path / 'disk' / 'pets'}\n") and given.is_file()
    assert not (tmp_path / "cache" / "data").exists()


def test_a_set_behind_a_login_says_what_to_do_and_then_does_it(g2sd: Callable[..., Any], shelf: Path) -> None:
    answer = g2sd("data", "pull", "locked")
    assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1)
    assert answer.err.startswith("error: locked: example.org wants an account. Log in there, fetch locked.tar (0.0 GiB, MD5 ")
    assert answer.err.endswith("then run: g2sd data pull locked --from locked.tar\n")
    (shelf / "pets.tar").rename(shelf / "locked.tar")
    assert g2sd("data", "pull", "locked", "--from", shelf / "locked.tar").code == 0


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("pull", "pts"), "there is no test set pts; did you mean pets?; `g2sd data sets` shows them all"),
        (("check", "pts"), "there is no test set pts; did you mean pets?; `g2sd data sets` shows them all"),
        (("check", "pets"), "{home}: there is no such folder; give the folder of the set, or pull it (g2sd data pull)"),
        (("check", "pets", "--workers", "2"), "--workers is given without --decode; add --decode, or leave it out"),
        (("pull", "pets", "--from", "gone.tar"), "--from gone.tar: there is no such file"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(
    g2sd: Callable[..., Any], shelf: Path, tmp_path: Path, arguments: tuple[str, ...], told: str
) -> None:
    answer = g2sd("data", *arguments)
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"error: {told.format(home=tmp_path / 'cache' / 'data' / 'pets')}\n"


def test_offline_is_one_line(g2sd: Callable[..., Any], shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("G2SD_OFFLINE", "1")
    answer = g2sd("data", "pull", "pets")
    assert answer.code == 2 and answer.err.count("\n") == 1 and "G2SD_OFFLINE forbids the network" in answer.err


def test_ctrl_c_ends_with_one_line(g2sd: Callable[..., Any], shelf: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("g2sd_deploy.data.testsets.pulling.unpack", stop)
    answer = g2sd("data", "pull", "pets")
    assert (
        answer.code == 130 and answer.err.splitlines()[-1] == "error: stopped; what came is kept, and the same command goes on from there"
    )


def test_check_prints_a_table_and_fails_where_the_set_is_another(g2sd: Callable[..., Any], shelf: Path) -> None:
    place = Path(g2sd("data", "pull", "pets").out.strip())
    answer = g2sd("data", "check", "pets")
    verdict = (
        f"looked at 4 images of {place}, not decoded (--decode): 0 errors, 0 warnings, 0 notes; this is pets as the catalogue has it\n"
    )
    assert (answer.code, answer.out) == (0, verdict)
    answer = g2sd("data", "check", "pets", place, "--decode", "--workers", 1)
    assert answer.code == 0 and "grey" in answer.out and "CMYK" in answer.out and "0 errors, 0 warnings, 2 notes" in answer.out
    (place / "dog").rename(place / "[b]cow")
    answer = g2sd("data", "check", "pets", place)
    rows = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in answer.out.splitlines()]
    assert answer.code == 1
    assert rows[:3] == [
        ["where", "problem", "what to do"],
        ["error", "dog", "missing class: no such folder", "fetch the set again (g2sd data pull), or correct the folder"],
        ["error", "[b]cow", "unknown class", "move it out of the folder: the set has no such class"],
    ]
    assert answer.out.endswith("3 errors, 0 warnings, 0 notes; this is not pets as it is published\n")


def test_check_prints_one_json_object(g2sd: Callable[..., Any], shelf: Path) -> None:
    place = Path(g2sd("data", "pull", "pets").out.strip())
    (place / "dog" / "1.jpg").write_bytes(b"")
    answer = g2sd("data", "check", "pets", "--json")
    assert answer.code == 1 and answer.out.count("\n") == 1
    held = json.loads(answer.out)
    assert {key: held[key] for key in ("name", "root", "num", "decoded", "errors")} == {
        "name": "pets",
        "root": str(place),
        "num": {".": 4},
        "decoded": False,
        "errors": 1,
    }
    assert [(finding["problem"], finding["name"]) for finding in held["findings"]] == [("empty file", "dog/1.jpg")]


def test_sets_lists_what_there_is_and_what_is_here(g2sd: Callable[..., Any], shelf: Path) -> None:
    g2sd("data", "pull", "pets")
    answer = g2sd("data", "sets")
    rows = [line.split() for line in answer.out.splitlines()]
    assert answer.code == 0 and rows[0] == ["name", "images", "classes", "GB", "licence", "state"]
    assert rows[1][:3] == ["pets", "4", "2"] and rows[1][-1] == "here" and rows[2][-2:] == ["by", "hand"]
    held = json.loads(g2sd("data", "sets", "--json").out)["sets"]
    assert [(one["name"], one["state"], one["num_images"]) for one in held] == [("pets", "here", [4, 4]), ("locked", "by hand", [4, 4])]


def test_the_real_list_names_every_set(g2sd: Callable[..., Any]) -> None:
    answer = g2sd("data", "sets")
    assert answer.code == 0 and [line.split()[0] for line in answer.out.splitlines()[1:-1]] == list(catalogue.known_sets())
    told = g2sd("data", "pull", "imagenet-val").err
    assert "https://image-net.org/download-images" in told
    assert told.endswith("g2sd data pull imagenet-val --from ILSVRC2012_img_val.tar --from ILSVRC2012_devkit_t12.tar.gz\n")
