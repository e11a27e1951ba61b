"""TinyMIM against the numbers of OliverRensu/TinyMIM, and what it would take to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from g2sd_deploy.methods import tinymim
from g2sd_deploy.methods.tinymim import TinymimLearner, relation_losses
from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.vit import Encoder, survival_scales

CASES = ("teacher_block_3", "teacher_block_4", "teacher_block_3_drop_path")


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Any:
    return original("tinymim")


def encoder_of(theirs: Any, name: str) -> Encoder:
    encoder = Encoder(theirs.specs(name)[0])
    theirs.fill(name, encoder)
    return encoder


def views_of(theirs: Any) -> Views:
    """The two networks see two views; the last of the student's twelve blocks has no drop path in the original, so its draws are ours."""
    drops = theirs.draw("drop path", (theirs.batch, 11, 2), 0, 1)
    views: Views = theirs.views(
        teacher="images/teacher", student="images/student", drops=torch.cat([drops, torch.zeros(theirs.batch, 1, 2)], dim=1)
    )
    return views


def target_of(theirs: Any, case: str, *, further: int = 0) -> Callable[[Tensor], Tensor]:
    """Queries, keys and values of the block that the original took, or `further` blocks behind it."""
    teacher, block = encoder_of(theirs, "teacher").requires_grad_(False), theirs.cases[case]["teacher_block"] + further
    return lambda images: teacher.qkv(images, block)


def learner(theirs: Any, case: str, **changed: Any) -> TinymimLearner:
    settings = {name: theirs.cases[case][name] for name in ("heads", "drop_path")}
    return TinymimLearner(encoder_of(theirs, "student"), **{"target": target_of(theirs, case), **settings, **changed})


def losses_of(theirs: Any, case: str, **changed: Any) -> dict[str, Tensor]:
    """Both losses, by their names."""
    found = learner(theirs, case, **changed)(views_of(theirs))
    return {"qk_loss": found["query_key"], "vv_loss": found["value_value"]}


def assert_both_differ(theirs: Any, disagreement: type[AssertionError], case: str, found: dict[str, Tensor]) -> None:
    for name, value in found.items():
        with pytest.raises(disagreement, match=name):
            theirs.check(case, **{name: value})


@pytest.mark.parametrize("case", CASES)
def test_queries_keys_and_values_are_theirs(theirs: Any, case: str) -> None:
    views, rate = views_of(theirs), theirs.cases[case]["drop_path"]
    theirs.check(case, teacher_qkv=target_of(theirs, case)(views.images))
    survival = survival_scales(views.drop_draws, [rate] * 11 + [0.0])
    theirs.check(case, student_qkv=encoder_of(theirs, "student").qkv(views.student_images, 12, survival=survival))


@pytest.mark.parametrize("case", CASES)
def test_both_losses_and_every_gradient_are_theirs(theirs: Any, case: str) -> None:
    ours = learner(theirs, case)
    found = ours(views_of(theirs))
    theirs.check(case, qk_loss=found["query_key"], vv_loss=found["value_value"], loss=found["query_key"] + found["value_value"])
    theirs.check_gradients(case, ours, found["query_key"] + found["value_value"])


def scaled(student: Tensor, teacher: Tensor, heads: int, which: str) -> tuple[Tensor, Tensor]:
    """Undo the division of the relations by the root of a head's width, of both networks or of one."""
    student_root, teacher_root = ((x.shape[-1] / 3 / heads) ** 0.25 for x in (student, teacher))
    return relation_losses(
        student * (student_root if which != "teacher" else 1.0), teacher * (teacher_root if which != "student" else 1.0), heads=heads
    )


def student_scale_for_both(student: Tensor, teacher: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    return relation_losses(student, teacher * (teacher.shape[-1] / student.shape[-1]) ** 0.25, heads=heads)


def cut_into(student: Tensor, teacher: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Heads of interleaved instead of neighbouring features."""
    mixed = student.unflatten(-1, (3, -1, heads)).transpose(-1, -2).flatten(-3)
    return relation_losses(mixed, teacher, heads=heads)


BROKEN: dict[str, Callable[[Tensor, Tensor, int], tuple[Tensor, Tensor]]] = {
    "KL reversed": lambda s, t, h: relation_losses(t, s, heads=h),
    "no scale": lambda s, t, h: scaled(s, t, h, "both"),
    "no scale for the student": lambda s, t, h: scaled(s, t, h, "student"),
    "no scale for the teacher": lambda s, t, h: scaled(s, t, h, "teacher"),
    "the student's scale for both": student_scale_for_both,
    "the student's own number of heads": lambda s, t, h: relation_losses(s, t, heads=3),
    "heads cut otherwise": cut_into,
    "relations swapped": lambda s, t, h: relation_losses(s, t, heads=h)[::-1],
    "the class token left out": lambda s, t, h: relation_losses(s[:, 1:], t[:, 1:], heads=h),
    "values before queries": lambda s, t, h: relation_losses(s.roll(s.shape[-1] // 3, -1), t, heads=h),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("broken", BROKEN)
def test_broken_relations_are_noticed(
    theirs: Any, disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str, case: str
) -> None:
    monkeypatch.setattr(tinymim, "relation_losses", lambda s, t, *, heads: BROKEN[broken](s, t, heads))
    assert_both_differ(theirs, disagreement, case, losses_of(theirs, case))


@pytest.mark.parametrize(("case", "further"), [("teacher_block_3", -1), ("teacher_block_3", 1), ("teacher_block_4", -1)])
def test_a_teacher_block_beside_the_right_one_is_noticed(theirs: Any, disagreement: type[AssertionError], case: str, further: int) -> None:
    assert_both_differ(theirs, disagreement, case, losses_of(theirs, case, target=target_of(theirs, case, further=further)))


def test_a_student_block_beside_the_last_is_noticed(theirs: Any, disagreement: type[AssertionError]) -> None:
    views = views_of(theirs)
    early = encoder_of(theirs, "student").qkv(views.student_images, 11)
    losses = relation_losses(early, target_of(theirs, "teacher_block_3")(views.images), heads=6)
    assert_both_differ(theirs, disagreement, "teacher_block_3", dict(zip(("qk_loss", "vv_loss"), losses, strict=True)))


def test_the_teachers_view_for_the_student_is_noticed(theirs: Any, disagreement: type[AssertionError]) -> None:
    target = target_of(theirs, "teacher_block_3")
    other = views_of(theirs).student_images
    assert_both_differ(theirs, disagreement, "teacher_block_3", losses_of(theirs, "teacher_block_3", target=lambda images: target(other)))


def test_other_drop_paths_are_noticed(theirs: Any, disagreement: type[AssertionError]) -> None:
    case = "teacher_block_3_drop_path"
    for rate in (0.0, 0.2):
        assert_both_differ(theirs, disagreement, case, losses_of(theirs, case, drop_path=rate))
