"""What a ViT for segmentation has beside a plain one: a learned bias for the offset of two patches, and learned scales of its branches.

Both sit inside a block's attention and MLP, so that whoever runs the blocks of `models.vit` computes them, with drop path and without.
Shape letters: B batch, T tokens (class token first), D width, N patches.

Source: arXiv 2106.08254, as in pengzhiliang/G2SD@6146adf, G2SD_seg_dis/src/backbone/mae.py.
"""

from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from timm.layers.attention import Attention
from timm.layers.mlp import Mlp
from torch import Tensor, nn

from g2sd_deploy.models.vit import Encoder, EncoderSpec

_OF_CLASS = 3
"""Rows behind the offsets: class token to patches, patches to class token, class token to itself."""


class RelativePositions(nn.Module):
    """Bias of attention's logits by the offset between query and key, one for each head; zero at the start.

    Differs: the authors look up all pairs of tokens at once (a million of them at 512 px, in every block). Rows are looked up first here
    and columns then, which needs two tables of grid x grid indices.
    """

    offsets: Int64[Tensor, " pairs"]

    def __init__(self, grid: int, heads: int) -> None:
        super().__init__()
        self.grid = grid
        self.table = nn.Parameter(torch.zeros((2 * grid - 1) ** 2 + _OF_CLASS, heads))
        places = torch.arange(grid)
        self.register_buffer("offsets", (places.unsqueeze(1) - places.unsqueeze(0) + grid - 1).flatten(), persistent=False)

    def forward(self) -> Float[Tensor, "heads T T"]:
        """The bias for each query (row) and key (column)."""
        grid, heads = self.grid, self.table.shape[1]
        by_offset = self.table[:-_OF_CLASS].view(2 * grid - 1, 2 * grid - 1, heads)
        pairs = by_offset.index_select(0, self.offsets).index_select(1, self.offsets).view(grid, grid, grid, grid, heads)
        patches = pairs.permute(4, 0, 2, 1, 3).reshape(heads, grid**2, grid**2)
        to_patches, to_class, own = self.table[-_OF_CLASS:].view(_OF_CLASS, heads, 1, 1).unbind(0)
        first = torch.cat([own, to_patches.expand(-1, 1, grid**2)], dim=2)
        return torch.cat([first, torch.cat([to_class.expand(-1, grid**2, 1), patches], dim=2)], dim=1)


class DenseAttention(nn.Module):
    """Self-attention with the layers of timm's, a bias by offset, and a scale of what it adds to the residual stream."""

    def __init__(self, plain: Attention, positions: RelativePositions | None, layer_scale: float | None) -> None:
        super().__init__()
        self.num_heads = plain.num_heads
        self.qkv = plain.qkv
        self.proj = plain.proj
        self.positions = positions
        self.gamma = _scale(plain.proj.out_features, layer_scale)

    def forward(self, x: Float[Tensor, "B T D"], attn_mask: None = None, is_causal: bool = False) -> Float[Tensor, "B T D"]:
        """Attend; timm's block passes a mask, of which there is none."""
        assert attn_mask is None and not is_causal
        _, tokens, width = x.shape
        q, k, v = self.qkv(x).view(-1, tokens, 3, self.num_heads, width // self.num_heads).permute(2, 0, 3, 1, 4).unbind(0)
        bias = None if self.positions is None else self.positions().to(q.dtype).unsqueeze(0)
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias).transpose(1, 2).reshape(-1, tokens, width)
        added: Tensor = self.proj(attended)
        return added if self.gamma is None else added * self.gamma


class ScaledMlp(nn.Module):
    """The layers of timm's MLP, and a scale of what it adds to the residual stream."""

    def __init__(self, plain: Mlp, layer_scale: float) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = plain.fc1, plain.act, plain.fc2
        self.gamma = _scale(cast("nn.Linear", plain.fc2).out_features, layer_scale)

    def forward(self, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
        scaled: Tensor = self.fc2(self.act(self.fc1(x))) * self.gamma
        return scaled


def dense_encoder(spec: EncoderSpec, *, relative_positions: bool, layer_scale: float | None) -> Encoder:
    """An encoder for dense tasks; as it starts it computes what the plain encoder of the same weights does (at a scale of 1).

    Positions are trained. The final norm, which dense tasks do not read, is kept as it came, so that the encoder stays whole.

    Args:
        spec: Shape of the plain encoder; its parameters keep their names, those that are added stand below them
            (`blocks.N.attn.positions.table`, `blocks.N.attn.gamma`, `blocks.N.mlp.gamma`).
        relative_positions: Whether each block has a bias by offset.
        layer_scale: Where the scales of the branches start; None: there are none.
    """
    encoder = Encoder(spec)
    encoder.pos_embed.requires_grad_(True)
    encoder.norm.requires_grad_(False)
    for block in encoder.blocks if relative_positions or layer_scale is not None else ():
        positions = RelativePositions(spec.grid, spec.heads) if relative_positions else None
        block.attn = DenseAttention(cast("Attention", block.attn), positions, layer_scale)
        if layer_scale is not None:
            block.mlp = ScaledMlp(cast("Mlp", block.mlp), layer_scale)
    return encoder


def _scale(width: int, start: float | None) -> nn.Parameter | None:
    return None if start is None else nn.Parameter(torch.full((width,), start))
