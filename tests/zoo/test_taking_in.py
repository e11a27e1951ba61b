"""`g2sd teacher`, as a person uses it."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from g2sd_deploy.models.checkpoint import load_classifier, load_encoder, load_masked
from g2sd_deploy.models.position import resize_positions
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.zoo import catalog


@pytest.fixture
def g2sd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run `g2sd teacher ARGUMENTS` with a cache of the test's own; returns exit code, stdout and stderr."""
    monkeypatch.setenv("G2SD_CACHE", str(tmp_path / "cache"))
    for name in ("G2SD_MIRROR", "G2SD_OFFLINE", "G2SD_LOCK"):
        monkeypatch.delenv(name, raising=False)

    def run(*arguments: object) -> tuple[int, str, str]:
        from g2sd_deploy.cli import app

        result = CliRunner().invoke(app, ["teacher", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def file(tmp_path: Path, weights: bytes) -> Path:
    """A masked model as MAE's scripts save it."""
    path = tmp_path / "mae.pth"
    path.write_bytes(weights)
    return path


HEADS = ("--heads", 4, "--decoder-heads", 2)


def a_classifier_file(path: Path, classes: int) -> Path:
    """A fine-tuned classifier as MAE's scripts save it."""
    state = Classifier(EncoderSpec(8, 4, 3, 16, 2, 4), classes, pooling="mean").state_dict()
    torch.save({"model": {re.sub(r"^encoder\.norm", "fc_norm", name).removeprefix("encoder."): state[name] for name in state}}, path)
    return path


def test_the_list_shows_every_teacher_with_its_state(g2sd: Any, tmp_path: Path) -> None:
    code, out, _ = g2sd("list")
    assert code == 0 and all(name in out for name in catalog.teachers())
    (tmp_path / "cache" / "mae_pretrain_vit_base").mkdir(parents=True)
    (tmp_path / "cache" / "mae_pretrain_vit_base" / "mae_pretrain_vit_base.pth").write_bytes(b"x")
    listed = {row["name"]: row for row in json.loads(g2sd("list", "--json")[1])["teachers"]}
    assert {listed[name]["state"] for name in ("mae_pretrain_vit_base",)} == {"pulled"}
    assert listed["mae_pretrain_full_vit_base"]["state"] == "not pulled" and listed["g2sd_generic_vit_small"]["state"] == "by hand"
    assert listed["mae_finetuned_vit_base"]["top1"] == 83.664 and listed["mae_finetuned_vit_base"]["md5_prefix"] == "1b25e9"


def test_pull_prints_the_path_on_stdout_and_the_rest_on_stderr(
    g2sd: Any, make_teacher: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher()
    monkeypatch.setattr(catalog, "find_teacher", lambda name: teacher)
    path = tmp_path / "cache" / "tiny" / "weights.pth"
    code, out, err = g2sd("pull", "tiny")
    assert (code, out) == (0, f"{path}\n") and "tiny pulled; compared with nothing: recorded at the first pull; licence MIT" in err
    assert "tiny is here already; compared with lock file" in g2sd("pull", "tiny")[2]


def test_pull_of_an_unknown_name_ends_with_2_before_anything_is_fetched(g2sd: Any, tmp_path: Path) -> None:
    code, out, err = g2sd("pull", "mae_pretrain_vit_base", "mae_finetund_vit_base")
    assert (code, out) == (2, "") and "did you mean mae_finetuned_vit_base?" in err
    assert not (tmp_path / "cache").exists()


def test_pull_of_what_is_offered_on_a_page_says_how_to_get_it(g2sd: Any) -> None:
    code, _, err = g2sd("pull", "g2sd_generic_vit_small")
    assert code == 2 and "fetch ViT_Sm_GD.pth by hand from https://drive.google.com" in err and "g2sd teacher import" in err


def test_verify_accounts_for_a_file(g2sd: Any, file: Path) -> None:
    code, out, _ = g2sd("verify", file, *HEADS)
    assert code == 0 and "recognised as:    MAE encoder and decoder" in out and "teacher.masked of g2sd" in out
    found = json.loads(g2sd("verify", file, *HEADS, "--json")[1])
    assert found["kind"] == "masked" and found["decoder"] == "width 8, depth 1, 2 heads" and "dropped" not in found
    assert found["encoder"] == "width 16, depth 2, 4 heads, 4 px patches of 8 px images"


def test_verify_of_a_damaged_file_ends_with_2_and_one_line(g2sd: Any, file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])
    code, out, err = g2sd("verify", file)
    assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_verify_of_a_name_holds_the_file_against_the_catalogue(g2sd: Any, make_teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from g2sd_deploy.zoo import taking_in

    teacher = make_teacher()
    monkeypatch.setattr(taking_in, "teachers", lambda: {"tiny": teacher})
    monkeypatch.setattr(taking_in, "find_teacher", lambda name: teacher)
    assert json.loads(g2sd("verify", "tiny", "--json")[1])["compared_with"] == ["nothing: recorded at the first pull"]
    wrong = teacher.model_copy(update={"listed": teacher.listed.model_copy(update={"content": "classifier"})})
    monkeypatch.setattr(taking_in, "find_teacher", lambda name: wrong)
    code, _, err = g2sd("verify", "tiny")
    assert code == 2 and "the catalogue says that it holds a classifier model, but it holds a masked model" in err


def test_an_imported_file_is_one_of_ours_and_says_what_was_done(g2sd: Any, file: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "mae.safetensors"
    code, told, err = g2sd("import", file, "--out", out, *HEADS)
    assert (code, told) == (0, f"{out}\n") and "kind: masked" in err
    assert load_masked(out).encoder.spec == EncoderSpec(8, 4, 3, 16, 2, 4)
    assert [path.name for path in out.parent.iterdir()] == ["mae.safetensors"]
    encoder = tmp_path / "encoder.safetensors"
    assert g2sd("import", file, "--out", encoder, "--as", "encoder", *HEADS)[0] == 0
    assert torch.equal(load_encoder(encoder).norm.weight, load_masked(out).encoder.norm.weight)


def test_an_import_can_fit_the_positions_to_another_size(g2sd: Any, file: Path, tmp_path: Path) -> None:
    plain, large = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    assert g2sd("import", file, "--out", plain, *HEADS)[0] == g2sd("import", file, "--out", large, "--image-px", 16, *HEADS)[0] == 0
    assert load_masked(large).encoder.spec.image_px == 16
    assert torch.equal(load_masked(large).decoder.pos_embed, resize_positions(load_masked(plain).decoder.pos_embed, 4))
    code, _, err = g2sd("import", file, "--out", tmp_path / "c.safetensors", "--image-px", 18, *HEADS)
    assert code == 2 and "patches of 4 px do not divide images of 18 px" in err


def test_an_imported_classifier_gets_its_classes_and_its_preprocessing(g2sd: Any, tmp_path: Path) -> None:
    source, out, names = a_classifier_file(tmp_path / "c.pth", 3), tmp_path / "c.safetensors", tmp_path / "names.txt"
    names.write_text("one\ntwo\nthree\n")
    options = ("--classes", names, "--mean", "0.5,0.5,0.5", "--std", "0.5,0.5,0.5", "--resize-px", 8, *HEADS)
    assert g2sd("import", source, "--out", out, *options)[0] == 0
    file = load_classifier(out)
    assert file.class_names == ("one", "two", "three") and file.model.pooling == "mean"
    assert (file.preprocessing.mean, file.preprocessing.resize_px, file.preprocessing.image_px) == ((0.5,) * 3, 8, 8)
    thousand = tmp_path / "thousand.safetensors"
    big = a_classifier_file(tmp_path / "big.pth", 1000)
    assert g2sd("import", big, "--out", thousand, "--classes", "imagenet-1k", *HEADS)[0] == 0
    assert load_classifier(thousand).class_names[:2] == ("n01440764", "n01443537")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--out", "x.pth"), "--out x.pth: wanted a name that ends in .safetensors"),
        (("--out", "{taken}"), "exists; give another name"),
        (("--out", "x.safetensors"), "16 is no published width; give --heads"),
        (("--out", "x.safetensors", "--as", "classifier", *HEADS), "holds an encoder and its decoder and no classifier's head"),
        (("--out", "x.safetensors", "--classes", "imagenet-1k", *HEADS), "--classes: is for classifiers, but"),
        (("--out", "{file}/x.safetensors", *HEADS), "cannot be written"),
    ],
)
def test_an_import_that_cannot_be_ends_with_2_and_writes_nothing(
    g2sd: Any, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken.safetensors").write_text("mine")
    before = sorted(tmp_path.iterdir())
    code, out, err = g2sd("import", file, *(str(option).format(taken=tmp_path / "taken.safetensors", file=file) for option in options))
    assert (code, out) == (2, "") and message in err
    assert sorted(tmp_path.iterdir()) == before and (tmp_path / "taken.safetensors").read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "options", "message"),
    [
        ("a\na\nb\n", (), "holds a name twice"),
        ("a\nb\n", (), "tells 3 classes apart, but 2 names were given"),
        (None, (), "cannot be read"),
        ("a\nb\nc\n", ("--mean", "half"), "--mean half: wanted numbers with commas"),
        ("a\nb\nc\n", ("--std", "0.5"), "it must hold 3 finite numbers"),
    ],
)
def test_names_and_numbers_of_a_classifier_are_checked(
    g2sd: Any, tmp_path: Path, text: str | None, options: tuple[str, ...], message: str
) -> None:
    source, names = a_classifier_file(tmp_path / "c.pth", 3), tmp_path / "names.txt"
    if text is not None:
        names.write_text(text)
    code, _, err = g2sd("import", source, "--out", tmp_path / "c.safetensors", "--classes", names, *options, *HEADS)
    assert code == 2 and message in err and not (tmp_path / "c.safetensors").exists()


def test_the_trap_is_sprung_at_import_too(g2sd: Any, encoder_of_base: Path, tmp_path: Path) -> None:
    code, _, err = g2sd("import", encoder_of_base, "--as", "masked", "--out", tmp_path / "x.safetensors")
    assert code == 2 and "pull mae_pretrain_full_vit_base and name it instead" in err
    assert "instead: mae_pretrain_full_vit_base" in g2sd("import", encoder_of_base, "--out", tmp_path / "x.safetensors")[2]
