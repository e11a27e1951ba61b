"""Fixed two-dimensional sine-cosine positions."""

import torch
from jaxtyping import Float
from torch import Tensor


def sincos_position_table(width: int, grid: int) -> Float[Tensor, "1 tokens width"]:
    """Position of each patch of a square grid, preceded by a zero row for the class token.

    The first half of a row encodes x, the second y; each half is sines then cosines of the coordinate at geometric frequencies.

    Raises:
        ValueError: The width is not a multiple of 4.

    Source: facebookresearch/mae@efb2a80, util/pos_embed.py (x first: its meshgrid puts w before h).
    """
    if width % 4:
        raise ValueError(f"a sine-cosine position needs a width that is a multiple of 4, not {width}")
    quarter = width // 4
    frequencies = 1.0 / 10000 ** (torch.arange(quarter, dtype=torch.float64) / quarter)
    y, x = torch.meshgrid(torch.arange(grid, dtype=torch.float64), torch.arange(grid, dtype=torch.float64), indexing="ij")
    halves = []
    for coordinate in (x, y):
        angles = coordinate.reshape(-1, 1) * frequencies
        halves += [angles.sin(), angles.cos()]
    table = torch.cat(halves, dim=1)
    return torch.cat([torch.zeros(1, width, dtype=torch.float64), table]).float().unsqueeze(0)
