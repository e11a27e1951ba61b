"""Two-dimensional positions: the fixed sine-cosine table, and fitting a table to another grid."""

import math

import torch
from jaxtyping import Float, Float64
from timm.layers.pos_embed import resample_abs_pos_embed
from torch import Tensor

_SAME = 1e-3


def sincos_position_table(width: int, grid: int) -> Float[Tensor, "1 tokens width"]:
    """Position of each patch of a square grid, preceded by a zero row for the class token.

    The first half of a row encodes x, the second y; each half is sines then cosines of the coordinate at geometric frequencies.

    Raises:
        ValueError: The width is not a multiple of 4.

    Source: facebookresearch/mae@efb2a80, util/pos_embed.py (x first: its meshgrid puts w before h).
    """
    return _sincos(width, torch.arange(grid, dtype=torch.float64))


def is_sincos(table: Float[Tensor, "1 tokens width"]) -> bool:
    """Whether a table is the fixed sine-cosine one, up to rounding (1e-3: float16 leaves 5e-4)."""
    if table.shape[2] % 4 or math.isqrt(table.shape[1] - 1) ** 2 != table.shape[1] - 1:
        return False
    wanted = sincos_position_table(table.shape[2], math.isqrt(table.shape[1] - 1)).to(table.device)
    return torch.allclose(table.float(), wanted, rtol=0, atol=_SAME)


def resize_positions(table: Float[Tensor, "1 tokens width"], grid: int) -> Float[Tensor, "1 resized width"]:
    """A table of one square grid for another, over the same picture: the class token's row is kept.

    A sine-cosine table is computed anew, exactly, at the places that the new patches have on the old grid; any other is interpolated
    (bicubic, antialiased).

    Args:
        table: Row of the class token, then the patches of a square grid, row by row.
        grid: Patches along one side that are wanted.

    Raises:
        ValueError: The patches of the table fill no square.

    Source: huggingface/pytorch-image-models, timm/layers/pos_embed.py (resample_abs_pos_embed), for a table that is not sine-cosine.
    """
    old = math.isqrt(table.shape[1] - 1)
    if old**2 != table.shape[1] - 1:
        raise ValueError(f"{table.shape[1] - 1} positions of patches fill no square grid")
    if old == grid:
        return table
    if is_sincos(table):
        centres = (torch.arange(grid, dtype=torch.float64) + 0.5) * old / grid - 0.5
        return _sincos(table.shape[2], centres).to(table)
    resized: Tensor = resample_abs_pos_embed(table, [grid, grid], num_prefix_tokens=1)
    return resized


def _sincos(width: int, coordinates: Float64[Tensor, " grid"]) -> Float[Tensor, "1 tokens width"]:
    """The sine-cosine table of the square grid of these coordinates."""
    if width % 4:
        raise ValueError(f"a sine-cosine position needs a width that is a multiple of 4, not {width}")
    quarter = width // 4
    frequencies = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(coordinates, coordinates, indexing="ij")
    halves = []
    for coordinate in (x, y):
        angles = coordinate.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    table = torch.cat(halves, dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float().unsqueeze(0)
