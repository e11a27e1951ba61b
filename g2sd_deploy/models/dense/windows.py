"""The plain encoder as a detector's backbone: most blocks attend within windows, and there is no class token.

Shape letters: B batch, H and W rows and columns of tokens, S side of a window, D width, T tokens, d width of a head.
"""

from typing import Any, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from g2sd_deploy.models.position import sincos_position_table
from g2sd_deploy.models.vit import EncoderSpec, PatchEmbed, patchify, transformer_blocks


class WindowEncoder(nn.Module):
    """ViT blocks over a map of tokens.

    The names of the weights are the plain encoder's, so that its weights load; its class token, its final norm and the class token's
    position take no part. Window blocks pad the map with zeros behind their first norm where windows do not divide it.

    Source: arXiv 2203.16527; facebookresearch/detectron2, modeling/backbone/vit.py (padding, no class token, no final norm).
    """

    def __init__(self, spec: EncoderSpec, *, window: int, global_blocks: tuple[int, ...], relative_positions: bool) -> None:
        super().__init__()
        self.spec = spec
        self.window = min(window, spec.grid)
        self.global_blocks = frozenset(global_blocks)
        self.patch_embed = PatchEmbed(spec)
        self.pos_embed = nn.Parameter(sincos_position_table(spec.width, spec.grid))
        self.blocks = transformer_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)
        if relative_positions:
            for index, block in enumerate(self.blocks):
                _add_relative_tables(block, spec.grid if index in self.global_blocks else self.window)

    def forward(
        self, images: Float[Tensor, "B C height width"], survival: Float[Tensor, "B depth 2"] | None = None
    ) -> Float[Tensor, "B D H W"]:
        """The residual stream behind the last block, as a map.

        Args:
            images: Normalised images.
            survival: Factors of each block's residual branches (drop path); None for 1.
        """
        tokens = self.patch_embed(patchify(images, self.spec.patch_px)) + self.pos_embed[:, 1:]
        x: Tensor = tokens.view(-1, self.spec.grid, self.spec.grid, self.spec.width)
        for index, block in enumerate(self.blocks):
            window = None if index in self.global_blocks else self.window
            x = run_map_block(block, x, window, None if survival is None else survival[:, index])
        return x.permute(0, 3, 1, 2)


def run_map_block(
    block: nn.Module, x: Float[Tensor, "B H W D"], window: int | None, scales: Float[Tensor, "B 2"] | None
) -> Float[Tensor, "B H W D"]:
    """One of timm's blocks over a map of tokens.

    Args:
        block: Its attention may have the tables of `with_relative_positions`.
        x: Residual stream.
        window: Side of the windows; None attends to the whole map.
        scales: Factors of the two residual branches; None for 1.
    """
    inner = cast("Any", block)
    normed = inner.norm1(x)
    attended = _attend(inner.attn, normed) if window is None else _attend_in_windows(inner.attn, normed, window)
    if scales is None:
        x = x + attended
        plain: Tensor = x + inner.mlp(inner.norm2(x))
        return plain
    attention, mlp = scales.to(x.dtype).view(-1, 2, 1, 1, 1).unbind(1)
    x = x + attention * attended
    scaled: Tensor = x + mlp * inner.mlp(inner.norm2(x))
    return scaled


def into_windows(x: Float[Tensor, "B H W D"], side: int) -> Float[Tensor, "windows S S D"]:
    """Cut a map into square windows, row by row; zeros are added at the right and the bottom where they do not divide it."""
    rows, columns = -(-x.shape[1] // side), -(-x.shape[2] // side)
    padded = F.pad(x, (0, 0, 0, columns * side - x.shape[2], 0, rows * side - x.shape[1]))
    return padded.reshape(-1, rows, side, columns, side, x.shape[3]).transpose(2, 3).flatten(0, 2)


def out_of_windows(windows: Float[Tensor, "windows S S D"], height: int, width: int) -> Float[Tensor, "B H W D"]:
    """The map of which these are the windows: the inverse of `into_windows`."""
    side = windows.shape[1]
    rows, columns = -(-height // side), -(-width // side)
    cut = windows.view(-1, rows, columns, side, side, windows.shape[3]).transpose(2, 3)
    return cut.flatten(3, 4).flatten(1, 2)[:, :height, :width]


def with_relative_positions(
    q: Float[Tensor, "N heads T d"],
    k: Float[Tensor, "N heads T d"],
    rows: Float[Tensor, "rows2 d"],
    columns: Float[Tensor, "columns2 d"],
) -> tuple[Float[Tensor, "N heads T wide"], Float[Tensor, "N heads T wide"]]:
    """Queries and keys whose products are the scores of attention with decomposed relative positions.

    Score of query (y, x) and key (v, u): q k / sqrt(d) + q rows[y - v] + q columns[x - u]. The last two depend on the key through its row
    and its column alone, so that they are further numbers of a query that one-hot numbers of a key pick: no table of all pairs is made.

    Args:
        q: Queries of a map, row by row.
        k: Keys of the same map.
        rows: Table of the differences 1 - height .. height - 1.
        columns: Table of the differences 1 - width .. width - 1.

    Returns:
        Queries, scaled, and keys.

    Source: arXiv 2112.01526 (MViTv2), eq. 4 without its value term; as in facebookresearch/detectron2, modeling/backbone/utils.py.
    """
    height, width = (rows.shape[0] + 1) // 2, (columns.shape[0] + 1) // 2
    grid = q.view(*q.shape[:2], height, width, -1)
    of_rows = grid @ _by_pair(rows, height).transpose(1, 2).to(q.dtype)
    of_columns = (grid.transpose(2, 3) @ _by_pair(columns, width).transpose(1, 2).to(q.dtype)).transpose(2, 3)
    wide_q = torch.cat([q * q.shape[-1] ** -0.5, of_rows.flatten(2, 3), of_columns.flatten(2, 3)], dim=-1)
    row_of = torch.eye(height, dtype=q.dtype, device=q.device).repeat_interleave(width, dim=0)
    column_of = torch.eye(width, dtype=q.dtype, device=q.device).repeat(height, 1)
    places = torch.cat([row_of, column_of], dim=1).expand(*k.shape[:2], -1, -1)
    return wide_q, torch.cat([k, places], dim=-1)


def _add_relative_tables(block: nn.Module, side: int) -> None:
    attention = cast("Any", block).attn
    for name in ("rel_pos_h", "rel_pos_w"):
        attention.register_parameter(name, nn.Parameter(torch.zeros(2 * side - 1, attention.head_dim)))


def _by_pair(table: Float[Tensor, "twice d"], side: int) -> Float[Tensor, "side side d"]:
    """Row of the table for each query place (first) and key place (second)."""
    places = torch.arange(side, device=table.device)
    return table[places[:, None] - places[None, :] + side - 1]


def _attend(attention: Any, x: Float[Tensor, "N H W D"]) -> Float[Tensor, "N H W D"]:
    tokens, table = x.flatten(1, 2), getattr(attention, "rel_pos_h", None)
    if table is None:
        plain: Tensor = attention(tokens)
        return plain.view(x.shape)
    parts = attention.qkv(tokens).unflatten(2, (3, attention.num_heads, -1)).permute(2, 0, 3, 1, 4)
    q, k, v = parts.unbind(0)
    q, k = with_relative_positions(q, k, table, attention.rel_pos_w)
    mixed = F.scaled_dot_product_attention(q, k, v, scale=1.0).transpose(1, 2).flatten(2)
    projected: Tensor = attention.proj(mixed)
    return projected.view(x.shape)


def _attend_in_windows(attention: Any, x: Float[Tensor, "B H W D"], side: int) -> Float[Tensor, "B H W D"]:
    return out_of_windows(_attend(attention, into_windows(x, side)), x.shape[1], x.shape[2])
