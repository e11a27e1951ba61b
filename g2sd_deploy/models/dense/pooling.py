"""Features of regions, each read from the level of the pyramid that fits its size.

Shape letters: B batch, R regions, C channels, S side of the answer.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torchvision.ops import roi_align
from torchvision.ops.poolers import LevelMapper

from g2sd_deploy.models.dense.detector_spec import LEVEL_STRIDES

_FINEST, _COARSEST = 2, 5


def regions_of(boxes: Float[Tensor, "B R 4"]) -> Float[Tensor, "BR 5"]:
    """Boxes of all images in one list, each preceded by the number of its image."""
    image = torch.arange(boxes.shape[0], device=boxes.device, dtype=boxes.dtype).view(-1, 1, 1).expand(-1, boxes.shape[1], 1)
    return torch.cat([image, boxes], dim=2).flatten(0, 1)


def pooled_regions(
    features: Sequence[Float[Tensor, "B C _ _"]], regions: Float[Tensor, "R 5"], side: int, canonical_px: int
) -> Float[Tensor, "R C S S"]:
    """RoIAlign of each region on its level: p4 for a region of `canonical_px`, one level finer for each halving of its side.

    Every level looks at all regions, those of other levels shrunk to nothing (which costs nothing): shapes do not depend on the values, so
    that the graph exports with a free batch size.

    Args:
        features: p2 .. p5 (what follows is not read); any float dtype, computed in float32.
        regions: Number of the image, left, top, right, bottom in pixels.
        side: Cells of the answer along one side.
        canonical_px: Side of a region that belongs to p4.

    Source: arXiv 1612.03144, eq. 1; torchvision, ops/poolers.py (MultiScaleRoIAlign).
    Differs: half-pixel alignment, and as many sampling points as a cell needs, as detectron2's ROIAlignV2 has them.
    """
    mapper = LevelMapper(_FINEST, _COARSEST, canonical_scale=canonical_px)
    level_of = mapper([regions[:, 1:]])
    found: Tensor | None = None
    for level, (feature, stride) in enumerate(zip(features, LEVEL_STRIDES[:-1], strict=False)):
        own = (level_of == level).unsqueeze(1)
        shrunk = torch.cat([regions[:, :1], torch.where(own, regions[:, 1:], 0.0)], dim=1)
        pooled = roi_align(feature.float(), shrunk, side, 1 / stride, sampling_ratio=0, aligned=True)
        pooled = torch.where(own[:, :, None, None], pooled, 0.0)
        found = pooled if found is None else found + pooled
    assert found is not None
    return found
