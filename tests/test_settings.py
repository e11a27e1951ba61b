"""The settings themselves: each is read, described and frozen."""

import ast
from contextlib import nullcontext
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import g2sd_deploy
from g2sd_deploy import settings
from g2sd_deploy.settings import AugmentSettings, DataSettings, MixSettings, Recipe, Settings

PACKAGE = Path(str(g2sd_deploy.__file__)).parent
GROUPS = [value for value in vars(settings).values() if isinstance(value, type) and issubclass(value, Settings) and value is not Settings]


def names_read_outside_settings() -> set[str]:
    """Attributes read, and strings used as keys, anywhere but in settings.py."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.name == "settings.py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Load()) | ast.Constant(value=str(name)):
                    found.add(name)
    return found


READ = names_read_outside_settings()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_setting_is_read_somewhere(group: type[BaseModel]) -> None:
    own = {name for name in group.model_fields if name in group.__annotations__}
    assert own - READ == set()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_setting_says_what_it_is(group: type[BaseModel]) -> None:
    assert [name for name, field in group.model_fields.items() if not field.description] == []
    assert group.__doc__


def data(**changes: object) -> dict[str, object]:
    return {"source": "folder", "root": "x", "image_px": 32, "num_channels": 3, "mean": [0.5] * 3, "std": [0.5] * 3} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_channels": 1}, "mean and std need 1 numbers each, one per channel; got 3 and 3"),
        ({"stored_px": 16}, "stored_px is 16, smaller than image_px 32; make it at least image_px"),
        ({"resize_px": 31}, "resize_px is 31, smaller than image_px 32; make it at least image_px"),
        ({"num_channels": 2}, "1 or 3"),
        ({"std": [0.5, 0.5, 0.0]}, "greater than 0"),
        ({"mean": [0.5, 0.5, float("nan")]}, "finite"),
        ({"image_px": 0}, "greater than 0"),
        ({"image_px": True}, "valid integer"),
        ({"max_train_images": 0}, "greater than 0"),
    ],
)
def test_data_settings_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        DataSettings.model_validate(data(**changes))


@pytest.mark.parametrize("changes", [{"crop_scale": [0.5, 0.2]}, {"crop_scale": [0.0, 1.0]}, {"crop_ratio": [2.0, 1.0]}])
def test_ranges_run_from_low_to_high(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="the first must be above 0 and at most the second"):
        AugmentSettings.model_validate(changes)


def test_settings_cannot_be_changed_once_made() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        MixSettings().mixup = 0.5  # type: ignore[misc]


@pytest.mark.parametrize("section", ["pretrain", "generic"])
@pytest.mark.parametrize(("mask_ratio", "refused"), [(0.93, False), (0.95, True), (1.0, True)])
def test_a_mask_that_hides_every_patch_is_refused(section: str, mask_ratio: float, refused: bool) -> None:
    encoder = {"patch_px": 8, "width": 8, "depth": 1, "heads": 1}  # 16 patches
    stage = {"epochs": 1.0, "batch_size": 8, "base_lr": 0.1, "decoder": {"width": 8, "depth": 1, "heads": 1}, "mask_ratio": mask_ratio}
    chosen: dict[str, object] = {"pretrain": {**stage, "encoder": encoder}}
    if section == "generic":
        chosen = {"teacher": {"masked": "m", "classifier": "c"}, "student": encoder, "generic": {**stage, "teacher_decoder_block": 1}}
    message = rf"{section}\.mask_ratio is {mask_ratio}, which hides all 16 patches of an image; lower it"
    with pytest.raises(ValidationError, match=message) if refused else nullcontext():
        Recipe.model_validate({"name": "masks", "data": data(), **chosen})
