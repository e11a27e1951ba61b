"""What trains a detector: the terms of Mask R-CNN, and a teacher's maps where the teacher sees something.

Shape letters: B batch, A anchors of a position, C channels, H and W rows and columns of a level.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.dense.detector import Detector
from g2sd_deploy.models.dense.detector_spec import LEVEL_STRIDES

RAMP_STEPS = 500

Maps = list[Tensor]
DetectorTeacher = Callable[[Tensor], tuple[Maps, Maps]]
"""Of normalised images [B, C, H, W] to the maps [B, C, H, W] of the levels and their objectness logits [B, A, H, W]."""


@dataclass(frozen=True)
class DetectionViews:
    """Images of one step, their objects, and the random numbers that belong to them.

    Attributes:
        images: Augmented, normalised and padded to a square.
        truths: The objects of each image.
        survival: Factors of each block's residual branches (drop path); None for 1.
        anchor_draws: Uniform numbers in [0, 1) that choose the anchors whose objectness is learnt.
        region_draws: Uniform numbers in [0, 1) that choose the regions that the heads learn from.
        ramp: What the distillation terms are multiplied by, 0 to 1; see `ramp_at`.
    """

    images: Float[Tensor, "batch channels height width"]
    truths: tuple[ImageTruth, ...]
    survival: Float[Tensor, "batch depth 2"] | None
    anchor_draws: Float[Tensor, "batch anchors"]
    region_draws: Float[Tensor, "batch regions"]
    ramp: float = 1.0


def ramp_at(step: int, num_steps: int = RAMP_STEPS) -> float:
    """Weight of the distillation terms at a step: 0 at step 0, rising evenly to 1 at step `num_steps` and staying there.

    Source: pengzhiliang/G2SD@6146adf, G2SD_det_dis/tools/plain_distill_net.py (distill_warm_step).
    """
    return min(1.0, step / num_steps) if num_steps else 1.0


def richness_of(objectness: Sequence[Float[Tensor, "B A _ _"]]) -> list[Float[Tensor, "B _ _"]]:
    """How much the teacher sees at each position of each level: its surest anchor's probability, 0 to 1, float32, without gradient.

    Args:
        objectness: The teacher's logits, level by level.

    Source: Du et al. 2021, arXiv 2111.00674 (feature richness score); pengzhiliang/G2SD@6146adf takes the RPN's objectness for it.
    """
    return [logits.detach().float().amax(dim=1).sigmoid() for logits in objectness]


def richness_feature_loss(
    student: Sequence[Float[Tensor, "B C _ _"]], teacher: Sequence[Float[Tensor, "B C _ _"]], richness: Sequence[Float[Tensor, "B _ _"]]
) -> Float[Tensor, ""]:
    """Squared distance of the student's (adapted) maps from the teacher's, where the teacher sees something.

    Args:
        student: Maps of each level; any float dtype, computed in float32.
        teacher: Maps of the same shapes; receive no gradient.
        richness: Weight of each position, at least 0.

    Returns:
        Sum over levels of [sum over images, channels and positions of weight x squared difference, divided by the sum of the weights
        over images and positions], float32. So it is a mean over positions of the whole batch, and a sum over channels; an image in
        which the teacher sees little counts little.

    Raises:
        ValueError: Numbers of levels or shapes that differ.

    Source: pengzhiliang/G2SD@6146adf, G2SD_det_dis/tools/plain_distill_net.py (do_train).
    Differs: 0, not NaN, where every weight of a level is 0 in float32.
    """
    _check("maps", student, teacher)
    squares = [(theirs.detach().float() - own.float()).square().sum(dim=1) for own, theirs in zip(student, teacher, strict=True)]
    return _weighted(squares, richness)


def richness_objectness_loss(
    student: Sequence[Float[Tensor, "B A _ _"]], teacher: Sequence[Float[Tensor, "B A _ _"]], richness: Sequence[Float[Tensor, "B _ _"]]
) -> Float[Tensor, ""]:
    """Binary cross-entropy of the student's objectness to the teacher's, where the teacher sees something.

    Args:
        student: Logits of each level; any float dtype, computed in float32.
        teacher: Logits of the same shapes; receive no gradient.
        richness: Weight of each position, at least 0.

    Returns:
        As `richness_feature_loss`, of nats; a sum over anchors.

    Raises:
        ValueError: Numbers of levels or shapes that differ.

    Source: pengzhiliang/G2SD@6146adf, G2SD_det_dis/tools/plain_distill_net.py (do_train).
    Differs: computed from logits. The authors take the sigmoid first, which is 1 in float32 from a logit of 17 on; torch then puts 100
        for the logarithm of 0, and no gradient is left. And 0, not NaN, where every weight of a level is 0.
    """
    _check("objectness logits", student, teacher)
    entropies = [
        F.binary_cross_entropy_with_logits(own.float(), theirs.detach().float().sigmoid(), reduction="none").sum(dim=1)
        for own, theirs in zip(student, teacher, strict=True)
    ]
    return _weighted(entropies, richness)


def _check(what: str, student: Sequence[Tensor], teacher: Sequence[Tensor]) -> None:
    own, theirs = ([list(of_level.shape) for of_level in maps] for maps in (student, teacher))
    if own != theirs:
        raise ValueError(f"the student's {what} have the shapes {own} and the teacher's {theirs}; they must be the same, level by level")


def _weighted(values: Sequence[Float[Tensor, "B _ _"]], weights: Sequence[Float[Tensor, "B _ _"]]) -> Float[Tensor, ""]:
    """Sum over levels of weighted means."""
    tiny = torch.finfo(torch.float32).tiny
    means = [(value * weight).sum() / weight.sum().clamp_min(tiny) for value, weight in zip(values, weights, strict=True)]
    return torch.stack(means).sum()


class DetectionLearner(nn.Module):
    """A detector with the terms that it is trained by.

    The adapters (one 3 x 3 convolution a level) lead from the student's maps to the teacher's. They are trained along and belong to the
    learner, so nothing of them is in the detector that is kept.

    Args:
        model: The detector.
        teacher: Frozen, in evaluation mode; None for Mask R-CNN's own terms alone.
        feature_weight: Of `richness_feature_loss`.
        objectness_weight: Of `richness_objectness_loss`.
        teacher_channels: Of the teacher's maps; None for as many as the student has.

    Source: pengzhiliang/G2SD@6146adf, G2SD_det_dis/tools/plain_distill_net.py and detectron2/modeling/distill/adap.py (ADAP).
    Differs: the teacher neither matches truth nor suppresses boxes, which change nothing; its drop path is off, as it is in evaluation
        mode (the authors leave it in training mode).
    """

    def __init__(
        self,
        model: Detector,
        teacher: DetectorTeacher | None = None,
        *,
        feature_weight: float = 0.001,
        objectness_weight: float = 0.1,
        teacher_channels: int | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.teacher = teacher
        self.feature_weight = feature_weight
        self.objectness_weight = objectness_weight
        channels, num = model.spec.channels, 0 if teacher is None else len(LEVEL_STRIDES)
        self.adapters = nn.ModuleList(nn.Conv2d(channels, teacher_channels or channels, 3, padding=1) for _ in range(num))

    def forward(self, views: DetectionViews) -> dict[str, Tensor]:
        terms, features, objectness = self.model.losses(views.images, views.truths, views.survival, views.anchor_draws, views.region_draws)
        if self.teacher is None:
            return terms
        with torch.no_grad():
            teacher_features, teacher_objectness = self.teacher(views.images)
        richness = richness_of(teacher_objectness)
        adapted = [adapter(of_level) for adapter, of_level in zip(self.adapters, features, strict=True)]
        feature = richness_feature_loss(adapted, teacher_features, richness)
        distilled = {
            "frs_feature": views.ramp * self.feature_weight * feature,
            "frs_objectness": views.ramp * self.objectness_weight * richness_objectness_loss(objectness, teacher_objectness, richness),
        }
        return terms | distilled
