"""Methods that cannot be taken: one clear line before anything trains."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Refusal = Callable[[str], str]


@pytest.fixture
def refusal(g2sd: Callable[..., Any], tmp_path: Path) -> Refusal:
    """The one line that a smoke run of the quickstart with another generic stage ends with."""

    def refuse(generic: str) -> str:
        arguments = ("--smoke", "--device", "cpu", "--until", "generic", "--out", tmp_path / "out", "--set", f"generic={generic}")
        answer = g2sd("run", "quickstart", *arguments)
        assert answer.code == 2, answer.err
        return str(answer.err.splitlines()[-1].removeprefix("error: "))

    return refuse


TRAINING = "epochs: 1, batch_size: 8, base_lr: 1e-3"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("no_such_package.mine:build", "cannot import no_such_package.mine (No module named 'no_such_package')"),
        ("no_such_module:build", "cannot import no_such_module (there is no file of that name)"),
        ("broken_method:build", "cannot import broken_method (No module named 'nowhere')"),
        ("json:build", "build is not in that module; name a function"),
        ("json:decoder", "decoder is nothing that can be called; name a function"),
    ],
)
def test_a_method_of_ones_own_that_is_not_there_is_named(
    name: str, words: str, refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_method.py").write_text("import nowhere\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    error = refusal(f"{{method: custom, builder: '{name}', {TRAINING}}}")
    assert error.startswith(f"generic.builder is {name}: {words}")


def test_a_method_of_ones_own_that_makes_nothing_to_train_is_named(
    refusal: Refusal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "idle_method.py").write_text("def build(student, teacher):\n    pass\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    error = refusal(f"{{method: custom, builder: 'idle_method:build', {TRAINING}}}")
    assert error == "generic.builder idle_method:build returned NoneType; wanted a torch.nn.Module that gives loss terms"


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("method: tinymim, teacher_block: 5", "generic.teacher_block is 5, but the teacher has 4 blocks"),
        (
            "method: dmae, decoder: {width: 8, depth: 1, heads: 1}, student_block: 1, teacher_block: 5",
            "generic.teacher_block is 5, but the ",
        ),
        ("method: g2sd, teacher_encoder_block: 5", "generic.teacher_encoder_block is 5, but the teacher has 4 blocks"),
        (
            "method: tinymim, teacher_block: 1, relation_heads: 5",
            "5 heads of relations do not divide the teacher's width 192; set generic.relation_heads",
        ),
    ],
)
def test_blocks_and_heads_that_the_teacher_has_not_are_named(method: str, message: str, refusal: Refusal) -> None:
    assert refusal(f"{{{method}, {TRAINING}}}").startswith(message)
