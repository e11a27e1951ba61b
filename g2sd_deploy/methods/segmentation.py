"""What a segmenter learns from: the truth, by two heads, and a teacher's logits, channel by channel.

Shape letters: B batch, K classes, H and W sides of the images, h and w sides of a map of logits.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from torch import Tensor, nn

from g2sd_deploy.models.dense.segmenter import Segmenter
from g2sd_deploy.models.dense.upernet import resize

IGNORED = 255
"""Class of pixels that no loss looks at, as in the data."""
AUX_WEIGHT = 0.4
"""The authors' weight of the other head's cross-entropy."""


@dataclass(frozen=True)
class SegmentationViews:
    """Images of one step, what they show, and the random numbers that belong to them.

    Attributes:
        images: Augmented, normalised images.
        classes: Class of each pixel, or `IGNORED`.
        survival: Factors of each block's residual branches (drop path); None for 1.
        dropout: Uniform draws for the channels before the class layers, see `Segmenter.num_dropout_draws`; None leaves none out.
    """

    images: Float[Tensor, "batch channels height width"]
    classes: Int64[Tensor, "batch height width"]
    survival: Float[Tensor, "batch depth 2"] | None = None
    dropout: Float64[Tensor, "batch draws"] | None = None


def pixel_cross_entropy(logits: Float[Tensor, "B K h w"], classes: Int64[Tensor, "B H W"]) -> Float[Tensor, ""]:
    """Cross-entropy of logits that are enlarged to the truth's size, in nats; computed in float32.

    Args:
        logits: At any stride.
        classes: 0 .. K - 1, or `IGNORED`, which adds nothing.

    Returns:
        The sum over the pixels that are asked, divided by the number of ALL pixels; 0 where none is asked.

    Source: open-mmlab/mmsegmentation 0.11.0, models/decode_heads/decode_head.py and losses/cross_entropy_loss.py, whose mean counts the
    ignored pixels too (`avg_non_ignore` came with 0.23). So an image that is half padding counts half.
    """
    enlarged = resize(logits.float(), classes.shape[1:])
    return F.cross_entropy(enlarged, classes, ignore_index=IGNORED, reduction="sum") / classes.numel()


def channel_wise_distillation_loss(
    student_logits: Float[Tensor, "B K h w"], teacher_logits: Float[Tensor, "B _ _ _"], *, tau: float = 1.0
) -> Float[Tensor, ""]:
    """Cross-entropy between where the teacher and where the student sees a class, for each class of each image.

    Each channel becomes a distribution over the positions; the mean over channels and images is multiplied by tau squared.

    Args:
        student_logits: Computed in float32.
        teacher_logits: Of the same images; no gradient.
        tau: Divides the logits of both networks; above 0.

    Returns:
        tau^2 * sum(-p_T log p_S) / (B K), in nats; at least tau^2 times the entropy of the teacher's maps.

    Raises:
        ValueError: The shapes differ, or tau is not above 0.

    Source: arXiv 2011.13256; pengzhiliang/G2SD@6146adf, G2SD_seg_dis/src/distillation/losses/cwd.py.
    Differs: irfanICMLL/TorchDistiller@78bac7c, SemSeg-distill/utils/criterion.py, takes the divergence, which is less by the teacher's
    entropy and has the same gradient.
    """
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"the student's logits are {tuple(student_logits.shape)} and the teacher's {tuple(teacher_logits.shape)}; wanted one shape: "
            "the same classes, and images of the same size"
        )
    if tau <= 0:
        raise ValueError(f"tau is {tau}; it must be above 0")
    seen = (teacher_logits.detach().float().flatten(2) / tau).softmax(dim=-1)
    believed = (student_logits.float().flatten(2) / tau).log_softmax(dim=-1)
    return -(seen * believed).sum(dim=-1).mean() * tau**2


class SegmentationLearner(nn.Module):
    """A segmenter with the losses that it is trained by.

    Args:
        model: The segmenter that learns.
        teacher: From images to logits of the shape of the student's; asked without gradients, and no part of this module. None: the
            truth alone.
        tau: See `channel_wise_distillation_loss`.
        distill_weight: Weight of the teacher's term; the authors take 3.
    """

    def __init__(
        self, model: Segmenter, teacher: Callable[[Tensor], Tensor] | None = None, *, tau: float = 1.0, distill_weight: float = 3.0
    ) -> None:
        super().__init__()
        self.model = model
        self.ask = None if teacher is None else lambda images: teacher(images)  # a module would become a part of this one
        self.tau = tau
        self.distill_weight = distill_weight

    def forward(self, views: SegmentationViews) -> dict[str, Tensor]:
        """Weighted terms, whose sum is the loss: `ce`, `aux` where there is a second head, `cwd` where there is a teacher."""
        logits, aux = self.model.forward_train(views.images, views.survival, views.dropout)
        terms = {"ce": pixel_cross_entropy(logits, views.classes)}
        if aux is not None:
            terms["aux"] = AUX_WEIGHT * pixel_cross_entropy(aux, views.classes)
        if self.ask is not None:
            with torch.no_grad():
                wanted = self.ask(views.images)
            terms["cwd"] = self.distill_weight * channel_wise_distillation_loss(logits, wanted, tau=self.tau)
        return terms
