"""Distillation of a detector against the numbers of pengzhiliang/G2SD and a formula in float64, and what it would take to be wrong."""

import hashlib
import math
from collections.abc import Callable
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.methods import detection
from g2sd_deploy.methods.detection import (
    DetectionLearner,
    DetectionViews,
    ramp_at,
    richness_feature_loss,
    richness_objectness_loss,
    richness_of,
)
from g2sd_deploy.models.dense.detector import LOSS_TERMS, Detector
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.vit import EncoderSpec

CASES = ("first_steps", "full_weight", "one_image", "sure_teacher", "step_0", "step_499")
WITH_GRADIENTS = ("first_steps", "sure_teacher")
TINY = DetectorSpec(
    EncoderSpec(image_px=64, patch_px=16, num_channels=3, width=8, depth=2, heads=2),
    num_classes=2,
    window=2,
    global_blocks=(1,),
    channels=8,
    box_width=8,
    mask_channels=4,
    train_proposals=20,
    train_level_proposals=20,
    regions_per_image=8,
)


class Scripted(Detector):
    """A detector that gives the maps that it was made with."""

    def __init__(self, features: list[Tensor], objectness: list[Tensor]) -> None:
        nn.Module.__init__(self)
        self.spec = SimpleNamespace(channels=features[0].shape[1])  # type: ignore[assignment]
        self.maps = features, objectness

    def losses(self, *_: Any) -> tuple[dict[str, Tensor], list[Tensor], list[Tensor]]:
        return {"rpn_box": torch.tensor(2.0)}, *self.maps


def views_of(num: int, *, ramp: float = 1.0, spec: DetectorSpec = TINY) -> DetectionViews:
    """Square images with one object each."""
    px = spec.encoder.image_px
    random = torch.Generator().manual_seed(0)
    masks = torch.zeros(1, px, px, dtype=torch.bool)
    masks[:, 8:40, 8:40] = True
    truth = ImageTruth(torch.tensor([[8.0, 8.0, 40.0, 40.0]]), torch.tensor([1]), masks, (px, px))
    anchors, regions = (torch.rand(num, draws, generator=random) for draws in (spec.num_anchors, spec.num_region_draws))
    return DetectionViews(torch.randn(num, 3, px, px, generator=random), (truth,) * num, None, anchors, regions, ramp)


class Theirs:
    """The maps that the authors' code was given, and what it made of them."""

    def __init__(self, numbers: Any, case: str) -> None:
        self.numbers, self.case, self.about = numbers, case, numbers.cases[case]
        self.features, self.objectness = (
            [tensor.requires_grad_() for tensor in self.maps("student", kind)] for kind in ("features", "objectness")
        )

    def maps(self, who: str, kind: str) -> list[Tensor]:
        data = self.numbers.data
        dim = data["channels"] if kind == "features" else data["anchors"]
        times = self.about["teacher_objectness_times"] if (who, kind) == ("teacher", "objectness") else 1.0
        shapes = [(self.about["batch"], dim, *size) for size in data["sizes"]]
        low, high = data["formula"]["low_high"][kind]
        return [self.numbers.draw(f"{who}/{kind}/{level}", shape, low, high) * times for level, shape in enumerate(shapes)]

    def teacher(self, _: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        return self.maps("teacher", "features"), self.maps("teacher", "objectness")

    def learner(self) -> DetectionLearner:
        """Ours, with the adapters that theirs had."""
        settings = self.numbers.data["settings"]
        weights = {"feature_weight": settings["feature_weight"], "objectness_weight": settings["objectness_weight"]}
        learner = DetectionLearner(Scripted(self.features, self.objectness), self.teacher, **weights)
        digest = hashlib.sha256()
        for name, parameter in sorted(learner.adapters.named_parameters()):
            limit = 0.4 if name.endswith("bias") else math.sqrt(3 / math.prod(parameter.shape[1:]))
            drawn = self.numbers.draw(f"adapter/conv.{name}", tuple(parameter.shape), -limit, limit)
            digest.update(f"conv.{name}".encode() + drawn.numpy().tobytes())
            parameter.data.copy_(drawn)
        assert digest.hexdigest() == self.numbers.data["weights_sha256"], "these are not the adapters that the original had"
        return learner

    def views(self) -> DetectionViews:
        ramp = ramp_at(self.about["iteration"], self.numbers.data["settings"]["ramp_steps"])
        return views_of(self.about["batch"], ramp=ramp)

    def terms(self) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.learner()(self.views())
        return {name: found[name] for name in ("frs_feature", "frs_objectness")}


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Callable[[str], Theirs]:
    return lambda case: Theirs(original("../detection_losses"), case)


@pytest.mark.parametrize("case", CASES)
def test_both_terms_are_theirs(theirs: Callable[[str], Theirs], case: str) -> None:
    asked = theirs(case)
    asked.numbers.check(case, **asked.terms())


@pytest.mark.parametrize("case", WITH_GRADIENTS)
def test_the_gradients_are_theirs(theirs: Callable[[str], Theirs], case: str) -> None:
    asked = theirs(case)
    learner = asked.learner()
    terms = learner(asked.views())
    renamed = {name: f"conv.{name}" for name, _ in learner.adapters.named_parameters()}
    asked.numbers.check_gradients(case, learner.adapters, terms["frs_feature"] + terms["frs_objectness"], renamed)
    for kind, maps in (("features", asked.features), ("objectness", asked.objectness)):
        for level, own in enumerate(maps):
            assert own.grad is not None
            asked.numbers.check(case, **{f"gradient of {kind}/{level}": own.grad})


def scaled_by_channels(student: Any, teacher: Any, richness: Any) -> Tensor:
    return richness_feature_loss(student, teacher, richness) / student[0].shape[1]


def image_by_image(student: Any, teacher: Any, richness: Any) -> Tensor:
    num = len(student[0])
    cut = [[[level[i : i + 1] for level in maps] for maps in (student, teacher, richness)] for i in range(num)]
    return torch.stack([richness_feature_loss(*part) for part in cut]).mean()


BROKEN: dict[str, tuple[str, Callable[..., Any]]] = {
    "a mean over channels": ("richness_feature_loss", scaled_by_channels),
    "normalised image by image": ("richness_feature_loss", image_by_image),
    "no weights": ("richness_feature_loss", lambda s, t, w: richness_feature_loss(s, t, [torch.ones_like(of) for of in w])),
    "only four levels": ("richness_feature_loss", lambda s, t, w: richness_feature_loss(s[:4], t[:4], w[:4])),
    "the mean anchor's richness": ("richness_of", lambda levels: [logits.sigmoid().mean(dim=1) for logits in levels]),
    "logits as richness": ("richness_of", lambda levels: [logits.amax(dim=1) for logits in levels]),
}


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_feature_loss_is_noticed(
    theirs: Callable[[str], Theirs], disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    monkeypatch.setattr(detection, *BROKEN[broken])
    asked = theirs("full_weight")
    with pytest.raises(disagreement, match="frs_feature"):
        asked.numbers.check("full_weight", **asked.terms())


@pytest.mark.parametrize("broken", ["student and teacher swapped", "a mean over anchors"])
def test_a_broken_objectness_loss_is_noticed(
    theirs: Callable[[str], Theirs], disagreement: type[AssertionError], monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    swapped = broken.startswith("student")
    changed = lambda s, t, w: richness_objectness_loss(t, s, w) if swapped else richness_objectness_loss(s, t, w) / 3  # noqa: E731
    monkeypatch.setattr(detection, "richness_objectness_loss", changed)
    asked = theirs("full_weight")
    with pytest.raises(disagreement, match="frs_objectness"):
        asked.numbers.check("full_weight", **asked.terms())


def some_maps(num: int, dim: int, seed: int, size: tuple[int, int] = (3, 4)) -> list[Tensor]:
    random = torch.Generator().manual_seed(seed)
    return [torch.randn(num, dim, size[0] * scale, size[1], generator=random) for scale in (1, 2)]


def test_the_losses_are_the_formula_in_float64() -> None:
    student, teacher, own_logits, logits = (some_maps(2, dim, seed) for seed, dim in enumerate((5, 5, 3, 3)))
    feature = objectness = 0.0
    for level in range(2):
        squares = entropies = weights = 0.0
        for image, y, x in ((i, y, x) for i in range(2) for y in range(3 * (level + 1)) for x in range(4)):
            sure = [1 / (1 + math.exp(-float(value))) for value in logits[level][image, :, y, x]]
            told = [1 / (1 + math.exp(-float(value))) for value in own_logits[level][image, :, y, x]]
            weight = max(sure)
            differences = teacher[level][image, :, y, x].double() - student[level][image, :, y, x].double()
            squares += weight * float((differences**2).sum())
            entropies += weight * sum(-t * math.log(s) - (1 - t) * math.log(1 - s) for s, t in zip(told, sure, strict=True))
            weights += weight
        feature, objectness = feature + squares / weights, objectness + entropies / weights
    richness = richness_of(logits)
    assert float(richness_feature_loss(student, teacher, richness)) == pytest.approx(feature, rel=1e-6)
    assert float(richness_objectness_loss(own_logits, logits, richness)) == pytest.approx(objectness, rel=1e-6)


def test_what_the_teacher_does_not_see_does_not_count() -> None:
    student, teacher = some_maps(2, 5, 0), some_maps(2, 5, 1)
    logits = [torch.full((2, 3, *of.shape[2:]), -60.0) for of in student]
    logits[0][1, 2, 0, 0] = logits[1][0, 1, 2, 3] = 4.0
    expected = sum(((student[a][b] - teacher[a][b])[:, c, d] ** 2).sum() for a, b, c, d in ((0, 1, 0, 0), (1, 0, 2, 3)))
    assert float(richness_feature_loss(student, teacher, richness_of(logits))) == pytest.approx(float(expected), rel=1e-6)


def test_a_teacher_that_sees_nothing_at_all_teaches_nothing() -> None:
    maps, logits = some_maps(1, 5, 0), [torch.full_like(of, -200.0) for of in some_maps(1, 3, 0)]
    richness = richness_of(logits)
    assert all(not of.any() for of in richness)
    assert float(richness_feature_loss(maps, some_maps(1, 5, 1), richness)) == 0.0
    assert float(richness_objectness_loss(some_maps(1, 3, 2), logits, richness)) == 0.0


def test_no_gradient_reaches_the_teacher() -> None:
    student, teacher, own_logits, logits = (some_maps(1, dim, seed) for seed, dim in enumerate((5, 5, 3, 3)))
    for of in (*student, *teacher, *own_logits, *logits):
        of.requires_grad_()
    richness = richness_of(logits)
    (richness_feature_loss(student, teacher, richness) + richness_objectness_loss(own_logits, logits, richness)).backward()
    assert all(of.grad is None for of in (*teacher, *logits))
    assert all(of.grad is not None and bool(of.grad.any()) for of in (*student, *own_logits))


def test_a_student_that_is_sure_and_wrong_still_learns() -> None:
    logits, teacher = [torch.full((1, 1, 1, 1), 40.0, requires_grad=True)], [torch.full((1, 1, 1, 1), -3.0)]
    loss = richness_objectness_loss(logits, teacher, richness_of(teacher))
    (gradient,) = torch.autograd.grad(loss, logits)
    seen = 1 / (1 + math.exp(3))
    assert loss.item() == pytest.approx(40 * (1 - seen), rel=1e-6)
    assert gradient.item() == pytest.approx(1 - seen, rel=1e-6)
    rounded = F.binary_cross_entropy(logits[0].sigmoid(), teacher[0].sigmoid())  # as the authors write it
    assert rounded.item() == pytest.approx(100 * (1 - seen), rel=1e-6)
    assert torch.autograd.grad(rounded, logits)[0].item() == 0.0


def test_half_precision_is_computed_in_single_precision() -> None:
    student, teacher, logits = some_maps(1, 5, 0), some_maps(1, 5, 1), some_maps(1, 3, 2)
    half = [[of.to(torch.bfloat16) for of in maps] for maps in (student, teacher, logits)]
    exact = [[of.float() for of in maps] for maps in half]
    assert richness_feature_loss(*half[:2], richness_of(half[2])) == richness_feature_loss(*exact[:2], richness_of(exact[2]))
    assert richness_objectness_loss(half[2], half[2], richness_of(half[2])).dtype == torch.float32


def test_maps_of_other_shapes_are_refused() -> None:
    maps, weights = some_maps(1, 5, 0), richness_of(some_maps(1, 3, 0))
    with pytest.raises(ValueError, match=r"maps have the shapes \[\[1, 5, 3, 4\], \[1, 5, 6, 4\]\] and the teacher's \[\[1, 5, 3, 4\]\]"):
        richness_feature_loss(maps, maps[:1], weights)
    with pytest.raises(ValueError, match="objectness logits have the shapes"):
        richness_objectness_loss(some_maps(1, 3, 0), some_maps(1, 3, 0, size=(3, 5)), weights)


@pytest.mark.parametrize(("step", "num_steps", "wanted"), [(0, 500, 0.0), (125, 500, 0.25), (500, 500, 1.0), (9000, 500, 1.0), (0, 0, 1.0)])
def test_distillation_sets_in_evenly(step: int, num_steps: int, wanted: float) -> None:
    assert ramp_at(step, num_steps) == wanted


def test_without_a_teacher_there_are_the_terms_of_mask_r_cnn_alone() -> None:
    learner = DetectionLearner(Detector(TINY))
    assert tuple(learner(views_of(2))) == LOSS_TERMS
    assert not list(learner.adapters.parameters())


def test_a_detector_learns_from_another_of_other_width() -> None:
    teacher = Detector(replace(TINY, channels=12)).eval().requires_grad_(False)
    learner = DetectionLearner(Detector(TINY), teacher.levels, teacher_channels=12)
    terms = learner(views_of(2, ramp=0.5))
    assert tuple(terms) == (*LOSS_TERMS, "frs_feature", "frs_objectness")
    whole = learner(views_of(2))
    for name in terms:
        times = 2 if name.startswith("frs") else 1
        torch.testing.assert_close(times * terms[name], whole[name])
    sum(whole.values(), torch.zeros(())).backward()
    assert all(of.grad is not None and bool(of.grad.any()) for of in learner.adapters.parameters())
    assert all(of.grad is None for of in teacher.parameters())
    assert {id(of) for of in learner.parameters()}.isdisjoint(id(of) for of in teacher.parameters())
    assert len(list(learner.adapters)) == 5 and not any(name.startswith("adapters") for name in learner.model.state_dict())


def test_the_teacher_is_asked_once_a_step_without_a_gradient_and_of_the_same_images() -> None:
    asked: list[tuple[Tensor, bool]] = []
    model = Detector(TINY)

    def teacher(images: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        asked.append((images, torch.is_grad_enabled()))
        return model.levels(images)

    views = views_of(1)
    DetectionLearner(model, teacher)(views)
    assert len(asked) == 1 and asked[0][0] is views.images and not asked[0][1]
