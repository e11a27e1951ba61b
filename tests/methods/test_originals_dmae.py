"""DMAE against the numbers of UCSC-VLAA/DMAE, and what it would take to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from g2sd_deploy.methods import dmae
from g2sd_deploy.methods.dmae import DmaeLearner, normalized_feature_loss
from g2sd_deploy.methods.mae import masked_pixel_loss
from g2sd_deploy.models.masked import Mask, MaskedAutoencoder, mask_from_noise

CASES = ("l1_raw_pixels", "l1_normed_pixels_ratio_0.9", "l2_raw_pixels")
Target = Callable[[Tensor, Mask], Tensor]


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Any:
    return original("dmae")


def teacher_of(theirs: Any) -> MaskedAutoencoder:
    teacher = MaskedAutoencoder(*theirs.specs("teacher"))
    theirs.fill("teacher", teacher)
    return teacher.requires_grad_(False)


def target_of(theirs: Any, case: str, *, further: int = 0) -> Target:
    """The teacher's encoder after the block that the original took, or `further` blocks behind it."""
    encoder, block = teacher_of(theirs).encoder, theirs.cases[case]["teacher_block"] + further
    return lambda images, mask: encoder.features(images, mask.keep_ids, taps=(block,))[0]


def learner(theirs: Any, case: str, **changed: Any) -> DmaeLearner:
    settings = {name: theirs.cases[case][name] for name in ("student_block", "mask_ratio", "norm_pix", "distance")}
    settings |= {"target": target_of(theirs, case), "teacher_width": theirs.data["models"]["teacher"]["width"], "align_weight": 1.0}
    ours = DmaeLearner(MaskedAutoencoder(*theirs.specs("student")), **{**settings, **changed})
    theirs.fill("student", ours)
    return ours


def losses_of(theirs: Any, case: str, **changed: Any) -> dict[str, Tensor]:
    """Both losses, by their names."""
    found = learner(theirs, case, **changed)(theirs.views())
    return {"pixel_loss": found["pixels"], "aligned_loss": found["alignment"]}


@pytest.mark.parametrize("case", CASES)
def test_mask_features_and_pixels_are_theirs(theirs: Any, case: str) -> None:
    views, ours = theirs.views(), learner(theirs, case)
    mask = mask_from_noise(views.mask_noise, theirs.cases[case]["mask_ratio"])
    theirs.check(case, mask=mask.hidden, keep_ids=mask.keep_ids, teacher_feature=target_of(theirs, case)(views.images, mask))
    feature = ours.student.encoder.features(views.images, mask.keep_ids, taps=(theirs.cases[case]["student_block"],))[0]
    theirs.check(case, student_feature=feature, projected_feature=ours.projection(feature))
    theirs.check(case, pred=ours.student(views.images, mask).unflatten(2, (3, 8, 8)).movedim(2, 4).flatten(2))


@pytest.mark.parametrize("case", CASES)
def test_both_losses_and_every_gradient_are_theirs(theirs: Any, case: str) -> None:
    ours = learner(theirs, case)
    found = ours(theirs.views())
    theirs.check(case, pixel_loss=found["pixels"], aligned_loss=found["alignment"], loss=found["pixels"] + found["alignment"])
    theirs.check_gradients(case, ours, found["pixels"] + found["alignment"])


BROKEN_ALIGNMENT: dict[str, Callable[[Tensor, Tensor, dmae.Distance], Tensor]] = {
    "lengths left as they are": lambda s, t, d: F.l1_loss(s, t) if d == "l1" else F.mse_loss(s, t),
    "the student's length left as it is": lambda s, t, d: (
        F.l1_loss(s, F.normalize(t, dim=-1)) if d == "l1" else F.mse_loss(s, F.normalize(t, dim=-1))
    ),
    "the other distance": lambda s, t, d: normalized_feature_loss(s, t, distance="l2" if d == "l1" else "l1"),
    "scaled over tokens": lambda s, t, d: normalized_feature_loss(s.transpose(1, 2), t.transpose(1, 2), distance=d),
    "layer norm for length": lambda s, t, d: normalized_feature_loss(
        F.layer_norm(s, s.shape[-1:]), F.layer_norm(t, t.shape[-1:]), distance=d
    ),
    "the class token left out": lambda s, t, d: normalized_feature_loss(s[:, 1:], t[:, 1:], distance=d),
    "a sum over the features": lambda s, t, d: normalized_feature_loss(s, t, distance=d) * s.shape[-1],
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("broken", BROKEN_ALIGNMENT)
def test_a_broken_alignment_is_noticed(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str, case: str
) -> None:
    monkeypatch.setattr(dmae, "normalized_feature_loss", lambda s, t, *, distance: BROKEN_ALIGNMENT[broken](s, t, distance))
    found = losses_of(theirs, case)
    theirs.check(case, pixel_loss=found["pixel_loss"])
    with pytest.raises(disagreement, match="aligned_loss"):
        theirs.check(case, aligned_loss=found["aligned_loss"])


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("further", [-1, 1])
def test_a_block_beside_the_right_one_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str, further: int) -> None:
    for changed in ({"target": target_of(theirs, case, further=further)}, {"student_block": theirs.cases[case]["student_block"] + further}):
        found = losses_of(theirs, case, **changed)
        theirs.check(case, pixel_loss=found["pixel_loss"])
        with pytest.raises(disagreement, match="aligned_loss"):
            theirs.check(case, aligned_loss=found["aligned_loss"])


@pytest.mark.parametrize("case", CASES)
def test_a_mask_that_teacher_and_student_do_not_share_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str) -> None:
    other = mask_from_noise(theirs.views().mask_noise.flip(0), theirs.cases[case]["mask_ratio"])
    right = target_of(theirs, case)
    with pytest.raises(disagreement, match="aligned_loss"):
        theirs.check(case, aligned_loss=losses_of(theirs, case, target=lambda images, mask: right(images, other))["aligned_loss"])


@pytest.mark.parametrize("case", CASES)
def test_flipping_norm_pix_and_averaging_all_patches_are_noticed(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    with pytest.raises(disagreement, match="pixel_loss"):
        theirs.check(case, pixel_loss=losses_of(theirs, case, norm_pix=not theirs.cases[case]["norm_pix"])["pixel_loss"])
    everywhere: Callable[..., Tensor] = lambda p, x, h, *, norm_pix: masked_pixel_loss(p, x, torch.ones_like(h), norm_pix=norm_pix)  # noqa: E731
    monkeypatch.setattr(dmae, "masked_pixel_loss", everywhere)
    with pytest.raises(disagreement, match="pixel_loss"):
        theirs.check(case, pixel_loss=losses_of(theirs, case)["pixel_loss"])
