"""The settings themselves: each is read, described and frozen."""

import ast
import re
from pathlib import Path

import pytest
from pydantic import BaseModel, ValidationError

import g2sd_deploy
from g2sd_deploy import settings
from g2sd_deploy.models.token_merging import most_merged
from g2sd_deploy.settings import AugmentSettings, DataSettings, MixSettings, Recipe
from g2sd_deploy.settings.base import Settings

PACKAGE = Path(str(g2sd_deploy.__file__)).parent


def groups_below(group: type[Settings]) -> set[type[Settings]]:
    return {found for child in group.__subclasses__() for found in (child, *groups_below(child))}


GROUPS = sorted(groups_below(Settings), key=lambda group: group.__name__)


def names_read_outside_settings() -> set[str]:
    """Attributes read, names bound by patterns, and strings used as keys, anywhere but among the settings."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        if path.is_relative_to(PACKAGE / "settings"):
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Attribute(attr=name, ctx=ast.Load()) | ast.Constant(value=str(name)):
                    found.add(name)
                case ast.MatchClass(kwd_attrs=names):
                    found |= set(names)
    return found


READ = names_read_outside_settings()


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_every_setting_is_read_somewhere(group: type[BaseModel]) -> None:
    own = {name for name in group.model_fields if name in group.__annotations__}
    assert own - READ == set()


def test_every_group_that_others_may_need_is_listed() -> None:
    in_use = {group for group in GROUPS if group.__module__.startswith(settings.__name__) and not group.__subclasses__()}
    assert {group.__name__ for group in in_use} <= set(settings.__all__)
    assert list(settings.__all__) == sorted(settings.__all__)


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
        ({"max_bad_images": -1}, "greater than or equal to 0"),
        ({"store": "encoded", "source": "idx"}, "store is encoded, but idx files hold decoded images; set store to arrays"),
        ({"store": "encoded", "stored_px": 40}, "stored_px is for store arrays; .* so remove stored_px"),
        ({"shuffle_shards": 4, "store": "encoded"}, "shuffle_shards needs source shards and store encoded; got folder and encoded"),
        ({"shuffle_shards": 4, "source": "shards"}, "shuffle_shards needs source shards and store encoded; got shards and arrays"),
        ({"cache_gib": 1.0, "source": "shards"}, "cache_gib is for shards at an address .* remove cache_gib"),
        ({"root": "https://a.b/c"}, "root is the address https://a.b/c; only source shards reads from an address, not folder"),
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


ENCODER: dict[str, object] = {"patch_px": 8, "width": 24, "depth": 2, "heads": 2}  # 16 patches of 32 px images
STAGE: dict[str, object] = {"epochs": 1.0, "batch_size": 8, "base_lr": 0.1}
DECODER: dict[str, object] = {"width": 8, "depth": 1, "heads": 1}
GENERIC: dict[str, dict[str, object]] = {
    "g2sd": {**STAGE, "method": "g2sd", "decoder": DECODER, "teacher_decoder_block": 1},
    "dmae": {**STAGE, "method": "dmae", "decoder": DECODER, "student_block": 2, "teacher_block": 9},
    "tinymim": {**STAGE, "method": "tinymim", "teacher_block": 9},
    "mae": {**STAGE, "method": "mae", "decoder": DECODER},
    "custom": {**STAGE, "method": "custom", "builder": "package.module:build"},
}
SPECIFIC: dict[str, dict[str, object]] = {
    method: {**STAGE, "method": method, **({"loss": "package.module:loss"} if method == "custom" else {})}
    for method in ("finetune", "hard", "soft", "nkd", "custom")
}


def recipe(**sections: object) -> Recipe:
    teacher = {"masked": "m", "classifier": "c"}
    given = {"name": "tiny", "data": data(), "teacher": teacher, "student": ENCODER} | sections
    return Recipe.model_validate({name: section for name, section in given.items() if section is not None})


def refused(message: str, **sections: object) -> None:
    with pytest.raises(ValidationError, match=re.escape(message)):
        recipe(**sections)


@pytest.mark.parametrize("specific", SPECIFIC)
@pytest.mark.parametrize("generic", GENERIC)
def test_every_generic_method_goes_with_every_specific_one(generic: str, specific: str) -> None:
    found = recipe(generic=GENERIC[generic], specific=SPECIFIC[specific])
    assert found.generic is not None and found.specific is not None
    assert (found.generic.method, found.specific.method) == (generic, specific)
    assert Recipe.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("section", ["generic", "specific"])
def test_a_method_is_always_named(section: str) -> None:
    stage = GENERIC["g2sd"] if section == "generic" else SPECIFIC["hard"]
    unnamed = {key: value for key, value in stage.items() if key != "method"}
    refused("Unable to extract tag using discriminator 'method'", **{"generic": GENERIC["g2sd"]} | {section: unnamed})


@pytest.mark.parametrize(
    ("generic", "teacher", "message"),
    [
        ("g2sd", None, "generic needs a teacher with a decoder: add teacher.masked or pretrain"),
        ("g2sd", {"encoder": "e"}, "generic needs a teacher with a decoder: add teacher.masked or pretrain"),
        ("dmae", {"classifier": "c"}, "generic needs a teacher: add teacher.encoder, teacher.masked or pretrain"),
        ("tinymim", None, "generic needs a teacher: add teacher.encoder, teacher.masked or pretrain"),
        ("dmae", {"encoder": "e"}, ""),
        ("tinymim", {"masked": "m"}, ""),
        ("mae", None, ""),
        ("custom", None, ""),
    ],
)
def test_a_method_asks_for_the_teacher_that_it_learns_from(generic: str, teacher: object, message: str) -> None:
    if message:
        refused(message, generic=GENERIC[generic], teacher=teacher)
    else:
        recipe(generic=GENERIC[generic], teacher=teacher)


@pytest.mark.parametrize("method", ["hard", "soft", "nkd"])
def test_distillation_of_the_task_needs_a_teacher_of_the_task(method: str) -> None:
    message = "specific needs a fine-tuned teacher: add teacher.classifier, or pretrain and finetune; or use method finetune"
    refused(message, generic=GENERIC["mae"], specific=SPECIFIC[method], teacher={"masked": "m"})
    recipe(generic=GENERIC["mae"], specific=SPECIFIC["finetune"], teacher=None)
    recipe(generic=GENERIC["mae"], specific=SPECIFIC["custom"], teacher=None)


@pytest.mark.parametrize(
    ("method", "changes", "message"),
    [
        ("g2sd", {"teacher_encoder_block": 1}, "give one of teacher_decoder_block (G2SD's target) and teacher_encoder_block"),
        ("g2sd", {"teacher_decoder_block": None}, "give one of teacher_decoder_block (G2SD's target) and teacher_encoder_block"),
        ("g2sd", {"decoder": None}, "teacher_decoder_block needs decoder (the student's); add decoder"),
        ("g2sd", {"teacher_decoder_block": None, "teacher_encoder_block": 1}, "teacher_encoder_block uses no decoder; remove decoder"),
        (
            "g2sd",
            {"teacher_decoder_block": None, "teacher_encoder_block": 1, "decoder": None, "supervise": "masked"},
            "supervise is masked, but an encoder sees no masked patch; use supervise all with teacher_encoder_block",
        ),
        ("g2sd", {"supervise": "masked", "mask_ratio": 0.0}, "supervise is masked, but mask_ratio 0 hides no patch"),
        ("g2sd", {"loss_band": {"after": 1.0}}, "less than 1"),
        ("dmae", {"student_block": 3}, "generic.student_block is 3, but student.depth is 2"),
        ("dmae", {"distance": "l3"}, "'l1' or 'l2'"),
        ("dmae", {"norm_pix": 1}, "valid boolean"),
        ("tinymim", {"heads": 5}, "generic.heads is 5, which does not divide student.width 24"),
        ("tinymim", {"relation_heads": 16}, "generic.relation_heads is 16, which does not divide student.width 24"),
        ("tinymim", {"drop_path": 1.0}, "less than 1"),
        ("tinymim", {"mask_ratio": 0.5}, "Extra inputs are not permitted"),
        ("mae", {"mask_ratio": 0.0}, "greater than 0"),
        ("custom", {"builder": "build"}, "String should match pattern"),
    ],
)
def test_settings_of_a_method_that_do_not_fit_are_refused(method: str, changes: dict[str, object], message: str) -> None:
    refused(message, generic=GENERIC[method] | changes)


@pytest.mark.parametrize(("pooling", "blocks", "most"), [("cls", 1, 8), ("mean", 2, 5)])
def test_more_tokens_than_the_student_can_merge_are_refused_before_anything_is_trained(pooling: str, blocks: int, most: int) -> None:
    stages = {"generic": GENERIC["mae"], "specific": {**SPECIFIC["finetune"], "pooling": pooling}}
    assert most == most_merged(16, blocks)
    recipe(**stages, export={"token_merging": most})
    found = f"export.token_merging is {most + 1}, but each of the student's {blocks} blocks that merge"
    refused(f"{found} can merge at most {most} of 16 patches", **stages, export={"token_merging": most + 1})


def test_a_teacher_is_something() -> None:
    refused(
        "give at least one of masked, encoder, classifier, segmenter and detector",
        generic=GENERIC["mae"],
        teacher={"resize_positions": True},
    )


@pytest.mark.parametrize("section", ["pretrain", "g2sd", "dmae", "mae"])
@pytest.mark.parametrize(("mask_ratio", "too_high"), [(0.93, False), (0.95, True), (1.0, True)])
def test_a_mask_that_hides_every_patch_is_refused(section: str, mask_ratio: float, too_high: bool) -> None:
    chosen: dict[str, object] = {"generic": GENERIC.get(section, {}) | {"mask_ratio": mask_ratio}}
    if section == "pretrain":
        chosen = {"teacher": None, "pretrain": {**STAGE, "encoder": ENCODER, "decoder": DECODER, "mask_ratio": mask_ratio}}
    if not too_high:
        recipe(**chosen)
        return
    refused(f"{next(reversed(chosen))}.mask_ratio is {mask_ratio}, which hides all 16 patches of an image; lower it", **chosen)
