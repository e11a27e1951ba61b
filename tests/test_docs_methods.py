"""The page on methods knows every method and every setting, and its example runs."""

import json
import re
import sys
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined
from typer.testing import CliRunner

from g2sd_deploy import settings
from g2sd_deploy.artifact import read_artifact
from g2sd_deploy.recipe import bundled_recipes
from g2sd_deploy.settings import ClassifyTrainSettings, PretextTrainSettings

PAGE = (Path(__file__).parent.parent / "docs" / "methods.md").read_text(encoding="utf-8")
GROUPS = [value for value in vars(settings).values() if isinstance(value, type) and issubclass(value, BaseModel)]


def methods_of(stage: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Method to its settings."""
    groups = [group for group in GROUPS if issubclass(group, stage) and "method" in group.model_fields]
    return {get_args(group.model_fields["method"].annotation)[0]: group for group in groups}


STAGES = {"Generic": (PretextTrainSettings, "mae"), "Specific": (ClassifyTrainSettings, "finetune")}
METHODS = [(title, method, group) for title, (stage, _) in STAGES.items() for method, group in methods_of(stage).items()]


def chapter(title: str) -> str:
    """Text of `## TITLE methods`, without the heading."""
    return PAGE.split(f"\n## {title} methods\n")[1].split("\n## ")[0]


def documented(text: str) -> dict[str, str]:
    """Setting to default, of the tables of a text."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("| `")]
    return {row[0].strip("`"): row[1] for row in rows}


def shown(default: Any) -> str:
    """A default as the page writes it."""
    if default is PydanticUndefined:
        return ""
    return "none" if default is None else default if isinstance(default, str) else json.dumps(default)


def own_settings(group: type[BaseModel], shared: set[str]) -> dict[str, str]:
    own = {name: field for name, field in group.model_fields.items() if name not in shared and name != "method"}
    return {name: shown(field.get_default(call_default_factory=True)) for name, field in own.items()}


@pytest.mark.parametrize(("title", "method", "group"), METHODS, ids=[f"{title}-{method}" for title, method, _ in METHODS])
def test_a_method_is_described_with_its_settings_and_their_defaults(title: str, method: str, group: type[BaseModel]) -> None:
    shared = set(STAGES[title][0].model_fields)
    section = chapter(title).split(f"\n### {method}\n")[1].split("\n### ")[0]
    assert documented(section) == own_settings(group, shared)


def test_the_page_describes_no_method_that_is_not_there() -> None:
    for title, (stage, _) in STAGES.items():
        assert set(re.findall(r"\n### (\w+)\n", chapter(title))) == set(methods_of(stage))
        listed = re.search(rf"^{title.lower()}: \{{method: \w+, \.\.\.\}} +# (.*)$", PAGE, re.MULTILINE)
        assert listed and set(listed[1].split(", ")) == set(methods_of(stage))


def test_what_the_specific_methods_share_is_described() -> None:
    shared = documented(chapter("Specific").split("\n### ")[0])
    fields = settings.FinetuneOnlySettings.model_fields
    assert shared == {name: shown(fields[name].default) for name in ("pooling", "layer_decay", "drop_path", "ema_decay")}
    of_training = set(settings.TrainSettings.model_fields)
    assert set(fields) - of_training - set(shared) == {"method", "mix"} and "`mix`" in chapter("Specific")
    assert of_training <= set(re.findall(r"`(\w+)`", chapter("Generic").split("\n### ")[0]))


def test_the_figures_of_the_page_are_those_of_the_recipes() -> None:
    table = PAGE.split("\n## Which one\n")[1].split("\n## ")[0]
    comments = {path.stem: path.read_text(encoding="utf-8") for path in bundled_recipes()}
    for recipe, top1 in CLAIMED.items():
        assert f"{top1} %" in table and f"# Result:   {top1} % top-1" in comments[recipe]
    hours = [re.search(r"generic (\d+),", comments[name]) for name in ("tinymim_vit_small", "g2sd_vit_small")]
    assert hours[0] and hours[1] and f"{hours[0][1]} hours of arithmetic against {hours[1][1]} for `g2sd`" in table


CLAIMED = {
    "g2sd_vit_small": 82.5,
    "g2sd_without_specific_vit_small": 82.0,
    "mae_vit_small": 81.5,
    "tinymim_vit_small": 83.0,
    "dmae_vit_base": 84.0,
    "dmae_vit_small": 79.3,
}


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_example_of_a_method_of_ones_own_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from g2sd_deploy.cli import app

    code, recipe, command = blocks("python")[0], blocks("yaml")[1], blocks("sh")[0]
    assert len(code.splitlines()) <= 35
    assert "Save this as `directions.py`" in PAGE and "beside it as `directions.yaml`" in PAGE
    (tmp_path / "directions.py").write_text(code, encoding="utf-8")
    (tmp_path / "directions.yaml").write_text(recipe, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert command == "g2sd run directions.yaml\n"
    arguments = [*command.split()[1:], "--smoke", "--device", "cpu", "--until", "specific"]
    try:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    finally:
        sys.modules.pop("directions", None)
    assert result.exit_code == 0, result.output
    made = {stage: read_artifact(tmp_path / "runs" / "directions-smoke" / stage) for stage in ("generic", "specific")}
    assert made["generic"] is not None and made["specific"] is not None
    assert made["generic"].metrics["method"] == "custom method directions:build"
    assert 0 < made["generic"].metrics["final_loss"] < made["generic"].metrics["first_loss"] < 2
    assert made["specific"].metrics["first_loss"] > 2.3
