"""What the README tells a reader to type works, and what it links to is there."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = [line.partition(" #")[0].strip() for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL) for line in block.splitlines()]
COMMANDS = [line for line in SHELL if line.startswith("g2sd ")]


@pytest.fixture
def beside_a_run(own_run: Path, make_image_folder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder that holds runs/quickstart, a recipe and images, as the README's reader has them."""
    folder = tmp_path / "work"
    (folder / "runs").mkdir(parents=True)
    own_run.rename(folder / "runs" / "quickstart")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HOME", str(folder))
    make_image_folder(folder / "images")
    make_image_folder(folder / "imagenet", ("train", "val"))
    return folder


def quick(words: list[str]) -> list[str]:
    """The same command on the smoke run's scale."""
    match words[0]:
        case "plan" if "--probe" in words:
            small = ["--set", "pretrain.batch_size=32", "--workers", "0"]  # there are 96 images
            return [*words, *small, "--probe-minutes", "0.1", "--until", "pretrain", "--device", "cpu"]
        case "run" if "quickstart_" in words[1]:  # another recipe, in a folder of its own
            return [*words, "--smoke", "--until", "evaluate"]
        case "run" | "plan":
            extra = ["--out", "runs/quickstart", "--set", "profile.threads=1"]
            return [*words, *extra] + ([] if "--smoke" in words else ["--smoke"])
        case "profile":
            models = words[: words.index("--batch")]
            return [*models, "--runtime", "onnxruntime", "--batch", "1", "--threads", "1", "--seconds", "0.1"]
        case "export":
            return [*words, "--timing-seconds", "0.1"]
        case "evaluate":
            return [*words, "--max-images", "32"]
        case _:
            return words


def test_the_readme_shows_every_kind_of_command() -> None:
    assert {line.split()[1] for line in COMMANDS} >= {
        "run",
        "plan",
        "recipes",
        "validate",
        "evaluate",
        "profile",
        "export",
        "report",
        "doctor",
        "data",
        "watch",
        "baseline",
        "check",
    }


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_of_the_readme_works(line: str, g2sd: Callable[..., Any], beside_a_run: Path) -> None:
    if "mine.yaml" in line and "copy" not in line:
        assert g2sd("recipes", "copy", "imagenette", "mine.yaml").code == 0
    if " check " in line:
        assert g2sd("baseline", "update", "runs/quickstart", "--out", "baseline.json").code == 0
    answer = g2sd(*quick(shlex.split(line)[1:]))
    unbelieved = " profile " in line and answer.code == 1 and "no latency is valid" in answer.err  # after a tenth of a second
    assert answer.code == 0 or unbelieved, answer.err


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert {line.split()[1] for line in SHELL if line.startswith("make ")} <= targets


def test_what_the_readme_links_to_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)]+)\)", README) if not link.startswith("https://")]
    assert links and [link for link in links if not (ROOT / link).exists()] == []
