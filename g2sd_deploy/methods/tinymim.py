"""TinyMIM's distillation of attention relations."""

from collections.abc import Callable
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.methods.views import Views
from g2sd_deploy.models.vit import Encoder, survival_scales


def relation_losses(
    student_qkv: Float[Tensor, "batch tokens student_dim3"], teacher_qkv: Float[Tensor, "batch tokens teacher_dim3"], *, heads: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Divergence of the student's query-key and value-value relations from the teacher's.

    Args:
        student_qkv: Queries, keys and values side by side; any float dtype, relations are computed in float32.
        teacher_qkv: The same of the teacher, whose width may differ; receives no gradient.
        heads: Number of heads that both are split into (the paper's adaptive last block: the student's takes the teacher's number).

    Returns:
        KL(teacher || student) of the query-key and of the value-value relations: summed over keys, mean over batch, heads and queries,
        in nats.

    Raises:
        ValueError: Other numbers of images or tokens, or heads that do not divide a width.

    Source: arXiv 2301.01296; OliverRensu/TinyMIM@d084705, models_tinymim.py and vit.py.
    Differs: log_softmax instead of the logarithm of a softmax.
    """
    if student_qkv.shape[:2] != teacher_qkv.shape[:2]:
        raise ValueError(f"student {tuple(student_qkv.shape[:2])} and teacher {tuple(teacher_qkv.shape[:2])} must have the same tokens")
    for who, qkv in (("student", student_qkv), ("teacher", teacher_qkv)):
        if qkv.shape[2] % (3 * heads):
            raise ValueError(f"{heads} heads do not divide the {who}'s width {qkv.shape[2] // 3}")
    student_q, student_k, student_v = _split(student_qkv, heads)
    teacher_q, teacher_k, teacher_v = _split(teacher_qkv.detach(), heads)
    return (
        _divergence(_log_relation(student_q, student_k), _log_relation(teacher_q, teacher_k)),
        _divergence(_log_relation(student_v, student_v), _log_relation(teacher_v, teacher_v)),
    )


def _split(qkv: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each [batch, heads, tokens, head_dim] in float32."""
    batch, tokens, dim3 = qkv.shape
    parts = qkv.float().view(batch, tokens, 3, heads, dim3 // 3 // heads).permute(2, 0, 3, 1, 4)
    return parts[0], parts[1], parts[2]


def _log_relation(left: Tensor, right: Tensor) -> Tensor:
    """Log-probabilities over keys, scaled by each network's own head width."""
    scale: float = left.shape[-1] ** -0.5
    with torch.autocast(left.device.type, enabled=False):  # which would multiply in half precision
        return (left @ right.transpose(-2, -1) * scale).log_softmax(dim=-1)


def _divergence(student: Tensor, teacher: Tensor) -> Tensor:
    return F.kl_div(student, teacher, reduction="none", log_target=True).sum(dim=-1).mean()


class TinymimLearner(nn.Module):
    """An encoder whose last block's relations follow those of one of the teacher's blocks, on whole images.

    What lies behind the last block's queries, keys and values (its projection and MLP, and the encoder's norm) is not run; it is frozen
    here, and learns when the encoder is fine-tuned.

    Args:
        student: Encoder.
        target: The frozen teacher: images to queries, keys and values of its target block.
        heads: Heads that both networks' relations are split into.
        drop_path: Probability of skipping a branch, the same for every block but the last, which has none.
    """

    def __init__(self, student: Encoder, target: Callable[[Tensor], Tensor], *, heads: int, drop_path: float) -> None:
        super().__init__()
        self.student = student
        self.target = target
        self.heads = heads
        self.drop_path = drop_path
        last = cast("Block", student.blocks[-1])
        for unused in (last.attn.proj, last.norm2, last.mlp, student.norm):
            unused.requires_grad_(False)

    def forward(self, views: Views) -> dict[str, Tensor]:
        with torch.no_grad():
            target = self.target(views.images)
        depth = self.student.spec.depth
        survival = survival_scales(views.drop_draws, [self.drop_path] * (depth - 1) + [0.0]) if self.drop_path else None
        predicted = self.student.qkv(views.student_images, depth, survival=survival)
        query_key, value_value = relation_losses(predicted, target, heads=self.heads)
        return {"query_key": query_key, "value_value": value_value}
