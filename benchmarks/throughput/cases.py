"""What is trained: the published shapes at 224 px, and the small ones of recipes/cifar10.yaml at 32 px."""

from dataclasses import dataclass
from typing import Any, Literal

from g2sd_deploy.models.masked import DecoderSpec
from g2sd_deploy.models.vit import EncoderSpec

Stage = Literal["generic", "specific"]
MASK_RATIO = 0.75
LAYER_DECAY = 0.75
SMOOTHING = 0.1
MIXUP, CUTMIX = 0.8, 1.0


@dataclass(frozen=True)
class Case:
    """One training step.

    Attributes:
        teacher_blocks: Blocks of the teacher's decoder that are computed (generic stage).
        batch_gpu: Images per GPU as published (GD.sh and SD.sh of the original), used on a GPU.
        batch_cpu: Images per step on a CPU.
    """

    name: str
    stage: Stage
    teacher: EncoderSpec
    student: EncoderSpec
    teacher_decoder: DecoderSpec
    student_decoder: DecoderSpec
    teacher_blocks: int
    num_classes: int
    batch_gpu: int
    batch_cpu: int


def _vit(width: int, heads: int) -> EncoderSpec:
    return EncoderSpec(224, 16, 3, width=width, depth=12, heads=heads)


def _pair(label: str, sizes: dict[str, Any], *, batch_cpu: tuple[int, int]) -> list[Case]:
    return [
        Case(f"generic {label}", "generic", **sizes, batch_gpu=256, batch_cpu=batch_cpu[0]),
        Case(f"specific {label}", "specific", **sizes, batch_gpu=128, batch_cpu=batch_cpu[1]),
    ]


_BASE = {"teacher": _vit(768, 12), "teacher_decoder": DecoderSpec(512, 8, 16), "teacher_blocks": 4, "num_classes": 1000}
_SMALL = {**_BASE, "student": _vit(384, 6), "student_decoder": DecoderSpec(256, 4, 8)}
_TINY = {**_BASE, "student": _vit(192, 3), "student_decoder": DecoderSpec(128, 4, 4)}
_PX32 = {
    "teacher": EncoderSpec(32, 8, 3, width=128, depth=4, heads=4),
    "student": EncoderSpec(32, 8, 3, width=64, depth=4, heads=4),
    "teacher_decoder": DecoderSpec(64, 4, 4),
    "student_decoder": DecoderSpec(48, 2, 3),
    "teacher_blocks": 2,
    "num_classes": 10,
}

CASES = {
    case.name: case
    for case in [
        *_pair("B->S 224", _SMALL, batch_cpu=(16, 4)),
        *_pair("B->Ti 224", _TINY, batch_cpu=(16, 4)),
        *_pair("32 px", _PX32, batch_cpu=(128, 128)),
    ]
}
