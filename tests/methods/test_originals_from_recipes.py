"""The generic stage against the originals: from a recipe's settings and a teacher's file to the loss."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from g2sd_deploy.artifact import Artifact
from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.checkpoint import save_encoder, save_masked
from g2sd_deploy.models.masked import MaskedAutoencoder
from g2sd_deploy.models.vit import Encoder
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import DecoderSettings, DmaeSettings, G2sdSettings, GenericSettings, MaeSettings, Recipe, TinymimSettings
from g2sd_deploy.stages.context import ENCODER_FILE, MASKED_FILE, Context
from g2sd_deploy.stages.lessons import make_lesson

TRAIN: dict[str, Any] = {"epochs": 1, "batch_size": 2, "base_lr": 1e-3}
CASES = {
    "g2sd": ("all_tokens_block_2", "hidden_patches_block_2", "all_tokens_block_4"),
    "dmae": ("l1_raw_pixels", "l1_normed_pixels_ratio_0.9", "l2_raw_pixels"),
    "tinymim": ("teacher_block_3", "teacher_block_4", "teacher_block_3_drop_path"),
    "mae": ("raw_pixels", "normed_pixels", "normed_pixels_ratio_0.6"),
}


def settings_of(theirs: Any, method: str, case: str) -> GenericSettings:
    """The settings of ours that mean what the original was told."""
    given, shape = theirs.cases[case], theirs.data["models"]["mae" if method == "mae" else "student"]
    if method == "tinymim":
        return TinymimSettings(method="tinymim", teacher_block=given["teacher_block"], drop_path=given["drop_path"], **TRAIN)
    decoder = DecoderSettings(width=shape["decoder_width"], depth=shape["decoder_depth"], heads=shape["decoder_heads"])
    if method == "g2sd":
        supervise: Any = "all" if given["supervise_all"] else "masked"
        return G2sdSettings(
            method="g2sd",
            teacher_decoder_block=given["teacher_decoder_block"],
            decoder=decoder,
            supervise=supervise,
            mask_ratio=0.75,
            **TRAIN,
        )
    pixels = {"decoder": decoder, "mask_ratio": given["mask_ratio"], "norm_pix": given["norm_pix"], **TRAIN}
    if method == "mae":
        return MaeSettings(method="mae", **pixels)
    aligned = {name: given[name] for name in ("student_block", "teacher_block", "distance")}
    return DmaeSettings(method="dmae", **aligned, **pixels)


def teacher_file(theirs: Any, method: str, folder: Path) -> Artifact:
    """The teacher as an earlier stage leaves it."""
    encoder, decoder = theirs.specs("teacher")
    model = Encoder(encoder) if decoder is None else MaskedAutoencoder(encoder, decoder)
    theirs.fill("teacher", model)
    name = ENCODER_FILE if isinstance(model, Encoder) else MASKED_FILE
    if isinstance(model, Encoder):
        save_encoder(folder / name, model)
    else:
        save_masked(folder / name, model)
    return Artifact(folder, "teacher", "", "", {str(name): {}}, {}, {}, {}, "")


def views_of(theirs: Any, method: str) -> Views:
    if method != "tinymim":
        return cast("Views", theirs.views())
    drops = torch.cat([theirs.draw("drop path", (theirs.batch, 11, 2), 0, 1), torch.zeros(theirs.batch, 1, 2)], dim=1)
    return cast("Views", theirs.views(teacher="images/teacher", student="images/student", drops=drops))


def loss_from(theirs: Any, method: str, case: str, folder: Path, **changed: Any) -> Tensor:
    """Sum of the terms that the generic stage trains on, with the original's weights in the student."""
    student = "mae" if method == "mae" else "student"
    inputs = {} if method == "mae" else {"masked": teacher_file(theirs, method, folder)}
    recipe = cast("Recipe", SimpleNamespace(seed=0))
    context = Context(recipe, "generic", inputs, folder, folder, Runtime(torch.device("cpu")), SilentProgress(), "key")
    settings = settings_of(theirs, method, case).model_copy(update=changed)
    lesson = make_lesson(context, settings, theirs.specs(student)[0])
    theirs.fill(student, lesson.learner)
    terms: dict[str, Tensor] = lesson.learner(views_of(theirs, method))
    return torch.stack(list(terms.values())).sum()


@pytest.mark.parametrize(("method", "case"), [(method, case) for method, cases in CASES.items() for case in cases])
def test_a_recipe_trains_on_the_loss_of_the_original(original: Callable[[str], Any], tmp_path: Path, method: str, case: str) -> None:
    theirs = original(method)
    theirs.check(case, loss=loss_from(theirs, method, case, tmp_path))


@pytest.mark.parametrize(
    ("method", "setting", "wrong"),
    [
        ("g2sd", "teacher_decoder_block", 1),
        ("g2sd", "teacher_decoder_block", 3),
        ("g2sd", "supervise", "masked"),
        ("g2sd", "mask_ratio", 0.7),
        ("dmae", "teacher_block", 2),
        ("dmae", "student_block", 1),
        ("dmae", "align_weight", 0.5),
        ("dmae", "norm_pix", True),
        ("tinymim", "teacher_block", 4),
        ("tinymim", "relation_heads", 3),
        ("tinymim", "heads", 6),
        ("mae", "norm_pix", True),
    ],
)
def test_a_setting_beside_the_originals_is_noticed(
    original: Callable[[str], Any], disagreement: type[AssertionError], tmp_path: Path, method: str, setting: str, wrong: Any
) -> None:
    theirs, case = original(method), CASES[method][0]
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_from(theirs, method, case, tmp_path, **{setting: wrong}))
