"""Every mistake that a person can make gets one clear line and exit code 2, and nothing is lost."""

import json
import re
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from g2sd_deploy.recipe import find_recipe
from g2sd_deploy.zoo.bundled import FASHION_MNIST
from g2sd_deploy.zoo.opening import path_of

MASKED, CLASSIFIER = path_of(FASHION_MNIST, "masked"), path_of(FASHION_MNIST, "classifier")

G2sd = Callable[..., Any]


def error_of(answer: Any, code: int = 2) -> str:
    """The one line that tells what is wrong; before it there is progress at most."""
    *before, last = answer.err.splitlines()
    assert answer.code == code, answer.err
    assert last.startswith("error: ")
    assert all(re.fullmatch(r"[a-z]+: (starts|stopped|done in .*)", line) for line in before), answer.err
    return str(last.removeprefix("error: "))


@pytest.fixture
def smoke(g2sd: G2sd, tmp_path: Path) -> G2sd:
    """Start a smoke run of the quickstart in `out`, with overrides."""

    def start(*overrides: str, until: str = "generic", out: Path = tmp_path / "out") -> Any:
        sets = [part for override in overrides for part in ("--set", override)]
        return g2sd("run", "quickstart", "--smoke", "--device", "cpu", "--until", until, "--out", out, *sets)

    return start


@pytest.fixture
def change_recipe(tmp_path: Path) -> Callable[[str, str], Path]:
    """A copy of the quickstart's recipe with one replacement."""

    def change(old: str, new: str) -> Path:
        text = find_recipe("quickstart").read_text(encoding="utf-8")
        assert text.count(old) == 1
        path = tmp_path / "mine.yaml"
        path.write_text(text.replace(old, new), encoding="utf-8")
        return path

    return change


@pytest.mark.parametrize("command", ["run", "plan", "validate"])
@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\nbaseline:\n", "\nbasline:\n", "unknown key basline; did you mean baseline?"),
        ("teacher_decoder_block: 2", "zzz: 2", "unknown key generic.zzz; valid keys here: augment, base_lr, "),
        ("image_px: 28", "image_px: wide", "data.image_px is 'wide'; input should be a valid integer"),
        ("image_px: 28", "image_px: 28\n  image_px: 32", "the key image_px is given twice; keep one of them"),
        ("image_px: 28", "image_px: *side", "not valid YAML: found undefined alias 'side'"),
        ("method: g2sd", "method: g2ds", "generic.method is 'g2ds'; did you mean g2sd? The methods are g2sd, dmae, tinymim, mae, custom"),
        (
            "name: quickstart\n",
            "name: quickstart\nbase: quickstrat\n",
            "there is no base quickstrat, neither beside this file nor among the ",
        ),
    ],
)
def test_a_mistake_in_a_recipe_names_key_and_line(
    command: str, old: str, new: str, message: str, change_recipe: Any, g2sd: G2sd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = change_recipe(old, new)
    text = path.read_text(encoding="utf-8")
    line = text[: text.index(new.rstrip()) + len(new.rstrip())].count("\n") + 1
    assert error_of(g2sd(command, path)).startswith(f"{path}:{line}: {message}")
    assert [file.name for file in tmp_path.iterdir()] == ["mine.yaml"]


@pytest.mark.parametrize("command", ["run", "plan", "validate", "recipes show"])
def test_a_missing_recipe_is_named_with_the_nearest(command: str, g2sd: G2sd) -> None:
    assert error_of(g2sd(*command.split(), "quickstrat")) == "there is no recipe quickstrat; did you mean quickstart?"


def test_a_missing_data_folder_is_named(smoke: G2sd, tmp_path: Path) -> None:
    error = error_of(smoke(f"data.root={tmp_path / 'gone'}"))
    assert error == f"data.root {tmp_path / 'gone'}: there is no such folder; set data.root to the folder of the images"


def test_a_folder_without_idx_files_is_named(smoke: G2sd, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    error = error_of(smoke(f"data.root={tmp_path / 'empty'}"))
    assert error.startswith(
        f"{tmp_path / 'empty'}: there is no train-images-idx3-ubyte or train-images-idx3-ubyte.gz; an idx folder holds "
    )


def test_a_truncated_idx_file_is_named(smoke: G2sd, make_idx_folder: Any, tmp_path: Path) -> None:
    path = make_idx_folder(tmp_path / "digits") / "train-images-idx3-ubyte.gz"
    path.write_bytes(path.read_bytes()[:-100])
    assert error_of(smoke(f"data.root={tmp_path / 'digits'}")).startswith(f"{path}: cannot be unpacked (")


@pytest.mark.parametrize("role", ["masked", "classifier"])
def test_a_missing_teacher_file_is_named(role: str, smoke: G2sd, tmp_path: Path) -> None:
    error = error_of(smoke(f"teacher.{role}={tmp_path / 'gone.safetensors'}"))
    assert error.startswith(f"teacher.{role} is {tmp_path / 'gone.safetensors'}: there is no such file or stage folder, and no teacher of ")


def test_a_misspelt_teacher_of_the_list_is_named_with_the_nearest(smoke: G2sd) -> None:
    assert error_of(smoke("teacher.masked=mae_pretrain_ful_vit_base")).endswith("; did you mean mae_pretrain_full_vit_base?")


def rewrite(path: Path, change: Callable[[dict[str, torch.Tensor], dict[str, str]], None]) -> None:
    """Copy the bundled masked teacher with other tensors or another description."""
    with safe_open(MASKED, framework="pt") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118 (it is no dict)
    change(tensors, metadata)
    save_file(tensors, path, metadata)


def test_a_teacher_without_decoder_weights_is_refused(smoke: G2sd, tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"

    def drop_decoder(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        for name in [name for name in tensors if name.startswith("decoder")]:
            del tensors[name]

    rewrite(path, drop_decoder)
    error = error_of(smoke(f"teacher.masked={path}"))
    assert error.startswith(
        f"{path}: holds no decoder weights (decoder.*), and generic distillation learns from the teacher's decoder; set "
    )
    error = error_of(smoke(f"teacher.masked={CLASSIFIER}"))
    assert error.startswith(
        f"{CLASSIFIER}: holds a classifier without decoder, and G2SD's generic distillation learns from the hidden states "
    )


def test_weights_of_another_shape_are_refused(smoke: G2sd, tmp_path: Path) -> None:
    path = tmp_path / "masked.safetensors"

    def widen(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        tensors["decoder_norm.weight"] = torch.ones(7)

    rewrite(path, widen)
    error = error_of(smoke(f"teacher.masked={path}"))
    assert re.fullmatch(rf"{re.escape(str(path))}: .*: decoder_norm.weight has shape \[7\] in place of \[\d+\]", error)


def test_weights_that_lack_a_tensor_are_refused(smoke: G2sd, tmp_path: Path) -> None:
    path = tmp_path / "masked.safetensors"

    def rename(tensors: dict[str, torch.Tensor], _: dict[str, str]) -> None:
        tensors["bogus"] = tensors.pop("decoder_norm.weight")

    rewrite(path, rename)
    error = error_of(smoke(f"teacher.masked={path}"))
    assert error == f"{path}: its weights are not those of the model it describes: missing decoder_norm.weight; unknown bogus"


def test_a_classifier_file_that_holds_another_model_is_refused(smoke: G2sd) -> None:
    error = error_of(smoke(f"teacher.classifier={MASKED}"))
    assert error.startswith(f"{MASKED}: holds an encoder and its decoder and no classifier's head; name a fine-tuned model, or make one ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; fetch it again"),
        (b"not weights", "is no weight file (it starts with b'not weights'); wanted a file of torch.save or .safetensors"),
        (b"\x10\0\0\0\0\0\0\0{}", "holds 10 bytes where its header promises 24; fetch it again"),
    ],
)
def test_a_damaged_weight_file_is_named(content: bytes, message: str, smoke: G2sd, tmp_path: Path) -> None:
    path = tmp_path / "masked.safetensors"
    path.write_bytes(content)
    assert error_of(smoke(f"teacher.masked={path}")) == f"{path}: {message}"


def test_a_decoder_block_that_the_teacher_has_not_is_refused(smoke: G2sd) -> None:
    error = error_of(smoke("generic.teacher_decoder_block=99"))
    assert re.fullmatch(r"generic.teacher_decoder_block is 99, but the teacher's decoder has \d+ blocks", error)


def test_a_teacher_of_other_classes_is_refused(smoke: G2sd, make_idx_folder: Any, tmp_path: Path) -> None:
    error = error_of(smoke(f"data.root={make_idx_folder(tmp_path / 'digits')}", until="teacher"))
    assert error.startswith(
        "teacher.classifier tells 10 classes apart (T-shirt/top, Trouser, Pullover, ...), the data has 10 (0, 1, 2, ...), "
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("data.image_px=35", "teacher.masked was trained on images of 28 px, data.image_px is 35; make them agree, or set "),
        ("data.mean=[0.5]", "teacher.classifier was trained with {'image_px': 28, "),
    ],
)
def test_a_teacher_that_was_made_for_other_images_is_refused_before_anything_trains(change: str, message: str, smoke: G2sd) -> None:
    assert error_of(smoke(change, until="teacher")).startswith(message)


FOLDER = ("data.source=folder", "data.num_channels=3", "data.mean=[0.5, 0.5, 0.5]", "data.std=[0.5, 0.5, 0.5]")


@pytest.mark.parametrize("content", [b"", b"not an image", b"\xff\xd8\xff\xe0\x00\x10JFIF"])
def test_an_image_that_cannot_be_decoded_is_named(content: bytes, smoke: G2sd, make_image_folder: Any, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images", classes=2, per_class=2)
    bad = root / "train" / "class1" / "001.jpg"
    bad.write_bytes(content)
    assert error_of(smoke(*FOLDER, f"data.root={root}", until="data"), 1).startswith(f"{bad}: cannot be decoded as an image (")


def test_an_image_cut_off_in_the_middle_is_named(smoke: G2sd, make_image_folder: Any, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images", classes=2, per_class=2)
    bad = root / "test" / "class0" / "000.jpg"
    bad.write_bytes(bad.read_bytes()[: bad.stat().st_size // 2])
    assert error_of(smoke(*FOLDER, f"data.root={root}", until="data"), 1).startswith(f"{bad}: cannot be decoded as an image (")


def test_an_empty_class_folder_is_named(smoke: G2sd, make_image_folder: Any, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images", classes=2, per_class=2)
    (root / "train" / "class9").mkdir()
    error = error_of(smoke(*FOLDER, f"data.root={root}", until="data"))
    assert error == f"{root / 'train' / 'class9'}: the class folder holds no image; add images or remove the class"


def test_a_class_that_only_one_split_has_is_named(smoke: G2sd, make_image_folder: Any, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images", classes=2, per_class=2)
    shutil.rmtree(root / "test" / "class1")
    assert error_of(smoke(*FOLDER, f"data.root={root}", until="data")).startswith(
        f"{root / 'test' / 'class1'}: the class folder holds no image"
    )


def test_a_split_that_is_not_there_is_named(smoke: G2sd, make_image_folder: Any, tmp_path: Path) -> None:
    root = make_image_folder(tmp_path / "images", ("train", "val"), classes=2, per_class=2)
    error = error_of(smoke(*FOLDER, f"data.root={root}", until="data"))
    assert error == f"{root}: there is no split test (found train, val); set data.train_split and data.test_split"


def test_a_folder_without_classes_is_named(smoke: G2sd, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert "holds no class folders; wanted SPLIT/CLASS/IMAGE" in error_of(
        smoke(*FOLDER, f"data.root={tmp_path / 'images'}", until="data")
    ) or ("there is no split train" in error_of(smoke(*FOLDER, f"data.root={tmp_path / 'images'}", until="data")))


def test_a_batch_larger_than_the_data_is_refused(g2sd: G2sd, tmp_path: Path) -> None:
    small = ["--set", "data.max_train_images=20", "--set", "data.max_test_images=20"]
    error = error_of(g2sd("run", "quickstart", *small, "--device", "cpu", "--until", "generic", "--out", tmp_path / "out"))
    assert error == "batch_size is 64, but there are only 20 training images; lower batch_size"


@pytest.mark.parametrize("below", ["sub", "sub/deeper"])
def test_an_output_that_cannot_be_written_is_named(below: str, smoke: G2sd, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / below
    assert error_of(smoke(out=out)) == f"--out {out}: cannot be written (Not a directory); give a folder you may write to"
    assert error_of(smoke(out=tmp_path / "file")) == f"--out {tmp_path / 'file'}: is a file; give a folder"
    assert (tmp_path / "file").read_text() == "in the way"


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="no /proc on this platform")
def test_an_output_that_the_system_refuses_is_named(smoke: G2sd) -> None:
    assert error_of(smoke(out=Path("/proc/g2sd"))).startswith("--out /proc/g2sd: cannot be written (")


def test_the_output_folder_of_another_recipe_is_refused(g2sd: G2sd, own_run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in own_run.rglob("*")}
    for command in ("run", "plan"):
        error = error_of(g2sd(command, "quickstart_teacher", "--out", own_run))
        assert error == f"--out {own_run}: holds the run of the recipe quickstart, not quickstart_teacher; give another --out"
    assert {path: path.stat().st_mtime_ns for path in own_run.rglob("*")} == before


@pytest.mark.parametrize(("option", "value"), [("--until", "finetune"), ("--force", "finetune")])
def test_a_stage_that_the_recipe_has_not_is_refused(option: str, value: str, g2sd: G2sd, tmp_path: Path) -> None:
    error = error_of(g2sd("run", "quickstart", option, value, "--out", tmp_path / "out"))
    assert error.startswith(f"{option} {value}: the recipe quickstart has no such stage; its stages are data, teacher, ")
    assert not (tmp_path / "out").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_refused(g2sd: G2sd, tmp_path: Path) -> None:
    error = error_of(g2sd("run", "quickstart", "--device", "cuda", "--out", tmp_path / "out"))
    assert error.startswith("--device cuda: torch ") and error.endswith("finds no usable GPU; run `g2sd doctor`, or use --device cpu")


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("damage", "words"),
    [(flip, "its hash is not the one that generic recorded"), (cut, "so it was changed or cut off"), (Path.unlink, "is gone")],
)
def test_a_damaged_artifact_is_found_before_it_is_used(damage: Any, words: str, g2sd: G2sd, own_run: Path, smoke_run: Any) -> None:
    damage(own_run / "generic" / "generic.safetensors")
    changed = ("--until", "specific", "--set", "specific.layer_decay=0.5", "--out", own_run)
    before = (own_run / "specific" / "artifact.json").read_bytes()
    error = error_of(g2sd(*smoke_run.arguments, *changed))
    assert error.startswith(f"{own_run / 'generic' / 'generic.safetensors'}: ") and words in error
    assert error.endswith("make it again with --force generic")
    assert (own_run / "specific" / "artifact.json").read_bytes() == before
    assert g2sd(*smoke_run.arguments, *changed, "--force", "generic").code == 0


@pytest.mark.parametrize("command", ["run", "plan", "report"])
def test_a_damaged_marker_is_found_by_every_command(command: str, g2sd: G2sd, own_run: Path, smoke_run: Any) -> None:
    marker = own_run / "evaluate" / "artifact.json"
    marker.write_text(re.sub(r'"top1": [0-9.]+', '"top1": 0.999', marker.read_text(), count=1))
    arguments = ("report", own_run) if command == "report" else (command, *smoke_run.arguments[1:-2], "--out", own_run)
    assert error_of(g2sd(*arguments)) == f"{marker}: was changed after evaluate wrote it; make it again with --force evaluate"


def test_a_report_of_a_damaged_run_is_refused(g2sd: G2sd, own_run: Path) -> None:
    flip(own_run / "data" / "preview.png")
    assert "preview.png: its hash is not the one that data recorded" in error_of(g2sd("report", own_run))


# Ctrl-C reaches the process as SIGINT; a shell that starts tests in the background makes its children ignore it.
START = """
import runpy, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.argv = ["g2sd", *sys.argv[1:]]
runpy.run_module("g2sd_deploy", run_name="__main__", alter_sys=True)
"""


def test_ctrl_c_stops_cleanly_and_the_next_run_goes_on(
    g2sd: G2sd, tmp_path: Path, python: str, process_environment: dict[str, str], change_recipe: Any
) -> None:
    recipe = change_recipe("  image_px: 28\n", "  image_px: 28\n  max_train_images: 64\n  max_test_images: 10\n")
    out = tmp_path / "out"
    small = ["--set", "generic.batch_size=16", "--set", "generic.loss_band=null"]  # a few steps teach nothing
    arguments = ["run", str(recipe), "--out", str(out), "--device", "cpu", *small]
    endless = [*arguments, "--set", "generic.epochs=1000000"]
    with subprocess.Popen(
        [python, "-c", START, *endless], cwd=tmp_path, env=process_environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None and process.stdout is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if line == "generic: starts\n":
                break
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(4)
        process.send_signal(signal.SIGINT)
        rest = process.stderr.read().splitlines()
        code, output = process.wait(60), process.stdout.read()
    *_, stopped, error = rest
    assert stopped == "generic: stopped", lines + rest
    assert re.fullmatch(r"error: stopped at step \d+ of 4000000; a checkpoint is kept, and the same command goes on from there", error)
    assert (code, output) == (130, "")
    assert sorted(path.name for path in out.iterdir()) == [".generic.checkpoints", ".lock", "data", "metrics.jsonl", "run.json", "teacher"]
    planned = json.loads(g2sd("plan", *arguments[1:4], *small, "--set", "generic.epochs=1000000", "--json").out)
    assert [step["stage"] for step in planned if not step["runs"]] == ["data", "teacher"]
    answer = g2sd(*arguments, "--set", "generic.epochs=1", "--until", "generic")
    assert answer.code == 0
    assert [line for line in answer.err.splitlines() if line.endswith("starts")] == ["generic: starts"]


def test_a_mistake_gives_a_process_exit_code_2(tmp_path: Path, python: str, process_environment: dict[str, str]) -> None:
    done = subprocess.run(
        [python, "-m", "g2sd_deploy", "validate", "quickstrat"],
        cwd=tmp_path, env=process_environment, capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: there is no recipe quickstrat; did you mean quickstart?\n")
