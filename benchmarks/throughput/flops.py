"""Floating-point operations that a step needs, whoever computes it; a multiplication and an addition are two."""

from g2sd_deploy.models.vit import EncoderSpec
from throughput.cases import MASK_RATIO, Case


def blocks_flops(tokens: int, width: int, depth: int, mlp_ratio: float) -> float:
    """Transformer blocks on one image: four projections and the MLP of each token, and the two products of attention."""
    weights = (4 + 2 * mlp_ratio) * width**2
    return depth * (2 * tokens * weights + 4 * tokens**2 * width)


def classifier_flops(spec: EncoderSpec, num_classes: int, *, heads: int, read: int | None) -> float:
    """Forward pass of a classifier on one image, without the embedding.

    Args:
        heads: Classification heads; a distillation head comes with a token.
        read: Tokens whose final state is read; the last block's queries, projection and MLP are needed for them alone. None: all.
    """
    tokens = spec.num_patches + heads
    flops = blocks_flops(tokens, spec.width, spec.depth, spec.mlp_ratio) + heads * 2 * spec.width * num_classes
    if read is None:
        return flops
    spared = tokens - read
    return flops - 2 * spared * (2 + 2 * spec.mlp_ratio) * spec.width**2 - 4 * spared * tokens * spec.width


def embed_flops(spec: EncoderSpec, patches: int) -> float:
    """Projection of the patches that are seen."""
    return 2 * patches * spec.patch_dim * spec.width


def step_flops(case: Case) -> float:
    """One image of a training step: teacher forward, student forward and backward (twice the forward, but no gradient of the pixels)."""
    teacher, student = (_generic if case.stage == "generic" else _specific)(case)
    patches = _visible(case) if case.stage == "generic" else case.student.num_patches
    return teacher + embed_flops(case.teacher, patches) + 3 * student + 2 * embed_flops(case.student, patches)


def _visible(case: Case) -> int:
    return int(case.student.num_patches * (1 - MASK_RATIO))


def _generic(case: Case) -> tuple[float, float]:
    seen, tokens = _visible(case) + 1, case.student.num_patches + 1
    found = []
    for encoder, decoder, depth in (
        (case.teacher, case.teacher_decoder, case.teacher_blocks),
        (case.student, case.student_decoder, case.student_decoder.depth),
    ):
        encoded = blocks_flops(seen, encoder.width, encoder.depth, encoder.mlp_ratio) + 2 * seen * encoder.width * decoder.width
        found.append(encoded + blocks_flops(tokens, decoder.width, depth, decoder.mlp_ratio))
    target = case.teacher_decoder.width
    head = 2 * tokens * (case.student_decoder.width * target + target**2)
    return found[0], found[1] + head


def _specific(case: Case) -> tuple[float, float]:
    teacher = classifier_flops(case.teacher, case.num_classes, heads=1, read=None)
    return teacher, classifier_flops(case.student, case.num_classes, heads=2, read=2)
