"""Loading weights runs nothing: a poisoned file is refused, and what it would have done is not done."""

import argparse
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.weights import load_weights

STATE = {"patch_embed.proj.weight": torch.arange(4000.0), "norm.bias": torch.zeros(3)}


class Poison:
    """Creates a file when it is unpickled by somebody who trusts it."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.canary),)


@pytest.mark.parametrize("form", ["zip", "old", "bare pickle", "beside good weights"])
def test_a_poisoned_pickle_is_refused_and_not_run(tmp_path: Path, form: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / "weights.pth"
    poison = {"model": {**STATE, "x": Poison(canary)}}
    match form:
        case "zip":
            torch.save(poison, path)
        case "old":
            torch.save(poison, path, _use_new_zipfile_serialization=False)
        case "bare pickle":
            path.write_bytes(pickle.dumps(Poison(canary)))
        case _:
            torch.save({"model": STATE, "args": Poison(canary)}, path)
    with pytest.raises(UserError, match=rf"^{path}: refused, and nothing of it was run") as caught:
        load_weights(path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_canary_would_have_sung(tmp_path: Path) -> None:
    """The poison works: without protection the same file does what it wants."""
    path = tmp_path / "weights.pth"
    torch.save({"model": Poison(tmp_path / "canary")}, path)
    torch.load(path, weights_only=False)
    assert (tmp_path / "canary").is_dir()


def test_the_refusal_names_what_the_file_asked_for(tmp_path: Path) -> None:
    torch.save({"model": Poison(tmp_path / "canary")}, tmp_path / "weights.pth")
    with pytest.raises(UserError, match=r"it is a pickle that asks for \w+\.mkdir, which is not weights; if you trust its author"):
        load_weights(tmp_path / "weights.pth")


def test_a_pickle_hidden_in_the_archive_of_another_name_is_not_run_either(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weights/data.pkl", pickle.dumps(Poison(tmp_path / "canary")))
        archive.writestr("weights/version", "3\n")
    with pytest.raises(UserError, match=r"weights\.pth: "):
        load_weights(path)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("new", [True, False])
def test_what_maes_scripts_save_is_read_with_its_namespace(tmp_path: Path, new: bool) -> None:
    saved = {"model": STATE, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}, "epoch": 3, "scaler": {"scale": 1.0}}
    saved["args"] = argparse.Namespace(lr=1e-3, model="mae_vit_base_patch16", betas=(0.9, 0.95), resume=None)
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=new)
    weights, dropped = load_weights(tmp_path / "x.pth")
    assert weights.keys() == STATE.keys() and all(torch.equal(weights[name], STATE[name]) for name in STATE)
    assert dropped.keys() == {"optimizer", "epoch", "scaler", "args"}


def test_safetensors_and_pickles_hold_the_same_weights(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "x.safetensors")
    torch.save(STATE, tmp_path / "x.bin")
    for name in ("x.safetensors", "x.bin"):
        weights, dropped = load_weights(tmp_path / name)
        assert dropped == {} and all(torch.equal(weights[key], STATE[key]) for key in STATE)


def test_a_file_that_holds_no_weights_is_one_clear_error(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"x\.pth: holds a list instead of a dict of weights"):
        load_weights(tmp_path / "x.pth")


def test_a_web_page_saved_as_weights_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "x.pth").write_text("<!doctype html><title>Sign in</title>")
    with pytest.raises(UserError, match=r"x\.pth: is a web page, not weights"):
        load_weights(tmp_path / "x.pth")


@pytest.mark.parametrize("new", [True, False])
def test_a_file_that_is_damaged_anywhere_is_one_clear_error_or_reads_as_it_was(tmp_path: Path, new: bool) -> None:
    path = tmp_path / "x.pth"
    torch.save({"model": STATE}, path, _use_new_zipfile_serialization=new)
    whole, rng = path.read_bytes(), random.Random(0)
    for _ in range(60):
        damaged = bytearray(whole[: rng.randrange(1, len(whole))] if rng.random() < 0.4 else whole)
        for _ in range(rng.randrange(1, 4)):
            damaged[rng.randrange(len(damaged))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        try:
            load_weights(path)
        except UserError as error:
            assert str(path) in str(error) and "\n" not in str(error)
