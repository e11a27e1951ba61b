"""G2SD's generic distillation against the numbers of pengzhiliang/G2SD, and what it would take to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch.nn.functional as F
from torch import Tensor

from g2sd_deploy.methods import g2sd
from g2sd_deploy.methods.g2sd import G2sdLearner, hidden_feature_loss
from g2sd_deploy.models.masked import GenericStudent, Mask, MaskedAutoencoder, mask_from_noise

CASES = ("all_tokens_block_2", "hidden_patches_block_2", "all_tokens_block_4", "quiet_teacher")
Target = Callable[[Tensor, Mask], Tensor]


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Any:
    return original("g2sd")


def teacher_of(theirs: Any) -> MaskedAutoencoder:
    encoder, decoder = theirs.specs("teacher")
    teacher = MaskedAutoencoder(encoder, decoder)
    theirs.fill("teacher", teacher)
    return teacher.requires_grad_(False)


def student_of(theirs: Any) -> GenericStudent:
    encoder, decoder = theirs.specs("student")
    student = GenericStudent(encoder, decoder, teacher_width=theirs.data["models"]["teacher"]["decoder_width"])
    theirs.fill("student", student)
    return student


def target_of(theirs: Any, case: str, *, further: int = 0) -> Target:
    """The teacher's hidden states after the block that the original took, or `further` blocks behind it."""
    teacher, block = teacher_of(theirs), theirs.cases[case]["teacher_decoder_block"] + further
    times = theirs.cases[case]["teacher_hidden_times"]  # a quiet teacher's variances are as small as the eps of the norm
    return lambda images, mask: teacher.hidden_states(images, mask, block) * times


def learner(theirs: Any, case: str, **changed: Any) -> G2sdLearner:
    settings = {"target": target_of(theirs, case), "mask_ratio": 0.75, "masked_only": not theirs.cases[case]["supervise_all"]}
    return G2sdLearner(student_of(theirs), **{**settings, **changed})


def loss_of(theirs: Any, case: str, **changed: Any) -> Tensor:
    loss: Tensor = learner(theirs, case, **changed)(theirs.views())["features"]
    return loss


def scored_of(theirs: Any, case: str, values: Tensor, mask: Mask) -> Tensor:
    return values if theirs.cases[case]["supervise_all"] else values[:, 1:][mask.hidden]


@pytest.mark.parametrize("case", CASES)
def test_target_and_prediction_are_theirs(theirs: Any, case: str) -> None:
    views = theirs.views()
    mask = mask_from_noise(views.mask_noise, 0.75)
    hidden = scored_of(theirs, case, target_of(theirs, case)(views.images, mask), mask)
    theirs.check(case, teacher_hidden=hidden, teacher_target=F.layer_norm(hidden, hidden.shape[-1:], eps=1e-6))
    theirs.check(case, student_prediction=scored_of(theirs, case, student_of(theirs)(views.images, mask), mask))


@pytest.mark.parametrize("case", CASES)
def test_the_loss_and_every_gradient_are_theirs(theirs: Any, case: str) -> None:
    ours = learner(theirs, case)
    loss = ours(theirs.views())["features"]
    theirs.check(case, loss=loss)
    theirs.check_gradients(case, ours, loss)


def smooth(student: Tensor, target: Tensor, mask: Tensor | None) -> Tensor:
    return F.smooth_l1_loss(student, target, beta=2.0) if mask is None else F.smooth_l1_loss(student[mask], target[mask], beta=2.0)


def affine(theirs: Any, student: Tensor, teacher: Tensor, *, mask: Tensor | None) -> Tensor:
    """The target after the teacher's own norm, which has a gain and an offset."""
    return smooth(student, teacher_of(theirs).decoder_norm(teacher), mask)


BROKEN: dict[str, Callable[..., Tensor]] = {
    "beta 1": lambda theirs, s, t, mask: hidden_feature_loss(s, t, mask=mask, beta=1.0),
    "affine norm": affine,
    "no norm": lambda theirs, s, t, mask: smooth(s, t, mask),
    "the prediction normed too": lambda theirs, s, t, mask: hidden_feature_loss(F.layer_norm(s, s.shape[-1:]), t, mask=mask),
    "half the squared error": lambda theirs, s, t, mask: hidden_feature_loss(s, t, mask=mask, beta=1e6) * 1e6,
    "the class token left out": lambda theirs, s, t, mask: hidden_feature_loss(s[:, 1:], t[:, 1:], mask=None),
}


@pytest.mark.parametrize("case", ["all_tokens_block_2", "hidden_patches_block_2"])
@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_feature_loss_is_noticed(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str, case: str
) -> None:
    monkeypatch.setattr(g2sd, "hidden_feature_loss", lambda s, t, *, mask=None: BROKEN[broken](theirs, s, t, mask=mask))
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_of(theirs, case))


def test_another_eps_is_noticed_where_the_teacher_is_quiet(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(g2sd, "hidden_feature_loss", lambda s, t, *, mask=None: smooth(s, F.layer_norm(t, t.shape[-1:], eps=1e-5), mask))
    theirs.check("all_tokens_block_2", loss=loss_of(theirs, "all_tokens_block_2"))
    with pytest.raises(disagreement, match="loss"):
        theirs.check("quiet_teacher", loss=loss_of(theirs, "quiet_teacher"))


@pytest.mark.parametrize("case", CASES)
def test_a_mask_that_teacher_and_student_do_not_share_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str) -> None:
    other = mask_from_noise(theirs.views().mask_noise.flip(0), 0.75)
    right = target_of(theirs, case)
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_of(theirs, case, target=lambda images, mask: right(images, other)))


@pytest.mark.parametrize(
    ("case", "further"), [("all_tokens_block_2", -1), ("all_tokens_block_2", 1), ("hidden_patches_block_2", 1), ("all_tokens_block_4", -1)]
)
def test_a_teacher_block_beside_the_right_one_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str, further: int) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_of(theirs, case, target=target_of(theirs, case, further=further)))


@pytest.mark.parametrize("case", CASES)
def test_scoring_the_other_set_of_tokens_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=loss_of(theirs, case, masked_only=theirs.cases[case]["supervise_all"]))
