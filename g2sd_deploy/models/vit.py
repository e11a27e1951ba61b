"""Plain ViT encoder and classifier on timm's blocks.

Shape letters: B batch, N patches of an image, K patches that the encoder sees, T tokens, R tokens that are read, C channels, P patch side
in pixels, D width.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.models.position import sincos_position_table

Pooling = Literal["cls", "mean"]
Token = Literal["none", "g2sd", "deit"]
Pick = Callable[[Tensor], Tensor]
"""Tokens [B, T, D] to some of them, [B, R, D]."""


@dataclass(frozen=True)
class EncoderSpec:
    """Shape of a ViT encoder; pixels are those of the square network input."""

    image_px: int
    patch_px: int
    num_channels: int
    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0
    learned_positions: bool = False

    @property
    def grid(self) -> int:
        """Patches along one side."""
        return self.image_px // self.patch_px

    @property
    def num_patches(self) -> int:
        return self.grid**2

    @property
    def patch_dim(self) -> int:
        """Numbers in one patch."""
        return self.num_channels * self.patch_px**2


def transformer_blocks(width: int, depth: int, heads: int, mlp_ratio: float) -> nn.ModuleList:
    """Pre-norm blocks with qkv bias and LayerNorm eps 1e-6, initialised as MAE does (Xavier-uniform linear layers)."""
    norm_layer = cast("type[nn.Module]", partial(nn.LayerNorm, eps=1e-6))
    blocks = nn.ModuleList(Block(width, heads, mlp_ratio=mlp_ratio, qkv_bias=True, norm_layer=norm_layer) for _ in range(depth))
    blocks.apply(init_linear)
    return blocks


def init_linear(module: nn.Module) -> None:
    """Xavier-uniform weight and zero bias for a linear layer; other modules are left alone."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def patchify(images: Float[Tensor, "B C H W"], patch_px: int, ids: Int64[Tensor, "B K"] | None = None) -> Float[Tensor, "B patches CPP"]:
    """Cut images into non-overlapping patches, row by row; numbers of a patch are ordered (channel, y, x) as in a convolution's kernel.

    Args:
        images: Any images.
        patch_px: Side of a patch.
        ids: Patches to cut out, in this order; the pixels of others are not touched. None: all.
    """
    b, c, h, w = images.shape
    grid_y, grid_x = h // patch_px, w // patch_px
    cut = images.reshape(b, c, grid_y, patch_px, grid_x, patch_px).permute(0, 2, 4, 1, 3, 5)
    if ids is None:
        return cut.reshape(b, grid_y * grid_x, c * patch_px * patch_px)
    image = torch.arange(b, device=images.device).unsqueeze(1)
    return cut[image, ids // grid_x, ids % grid_x].flatten(2)


def gather_tokens(tokens: Float[Tensor, "B N D"], ids: Int64[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Pick tokens by index, per image."""
    return torch.gather(tokens, 1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def survival_scales(draws: Float64[Tensor, "B depth 2"], rates: Sequence[float]) -> Float[Tensor, "B depth 2"]:
    """Factors of the two residual branches of each block under drop path: 0 where it is skipped, 1 / (1 - rate) where not.

    Args:
        draws: Uniform numbers in [0, 1).
        rates: Probability of skipping a branch, per block.

    Source: arXiv 1603.09382; the rescaling as in huggingface/pytorch-image-models, timm/layers/drop.py.
    Differs: the draws are an argument, so that a step is a function of its counters.
    """
    rate = torch.tensor(rates, dtype=draws.dtype).to(draws.device, non_blocking=True).view(1, -1, 1)  # built there, the host would wait
    return ((draws >= rate) / (1 - rate)).float()


def run_block(block: nn.Module, x: Float[Tensor, "B T D"], scales: Float[Tensor, "B 2"] | None) -> Float[Tensor, "B T D"]:
    """One of timm's blocks, with each residual branch scaled per sample."""
    inner = cast("Any", block)
    if scales is None:
        plain: Tensor = inner(x)
        return plain
    attention, mlp = scales.to(x.dtype).view(-1, 2, 1, 1).unbind(1)
    x = x + attention * inner.attn(inner.norm1(x))
    scaled: Tensor = x + mlp * inner.mlp(inner.norm2(x))
    return scaled


def run_block_for(
    block: nn.Module, x: Float[Tensor, "B T D"], pick: Pick, scales: Float[Tensor, "B 2"] | None = None
) -> Float[Tensor, "B R D"]:
    """What `pick(run_block(block, x, scales))` is, up to rounding, without computing the tokens that are not picked.

    Keys and values are needed of every token; queries, projection and MLP of the picked ones alone. For a class token that is a sixth of
    the block's arithmetic.
    """
    inner = cast("Any", block)
    heads, width, normed = inner.attn.num_heads, x.shape[-1], inner.norm1(x)
    weight, bias = inner.attn.qkv.weight, inner.attn.qkv.bias
    queries = F.linear(pick(normed), weight[:width], bias[:width])
    keys, values = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    q, k, v = (part.reshape(*part.shape[:2], heads, -1).transpose(1, 2) for part in (queries, keys, values))
    attended = inner.attn.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    if scales is None:
        x = pick(x) + attended
        plain: Tensor = x + inner.mlp(inner.norm2(x))
        return plain
    attention, mlp = scales.to(x.dtype).view(-1, 2, 1, 1).unbind(1)
    x = pick(x) + attention * attended
    scaled: Tensor = x + mlp * inner.mlp(inner.norm2(x))
    return scaled


class PatchEmbed(nn.Module):
    """Linear projection of patches, stored as the convolution kernel that MAE and timm store."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.num_channels, spec.width, spec.patch_px, spec.patch_px)
        nn.init.xavier_uniform_(self.proj.weight.view(spec.width, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, patches: Float[Tensor, "B K CPP"]) -> Float[Tensor, "B K D"]:
        return F.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """ViT encoder that projects only the patches it is asked to see, and computes no block that nobody reads.

    Results are residual streams before `norm`, so that a caller may pool first (MAE's fc_norm) or norm first: a per-token LayerNorm
    commutes with picking a token.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec)
        self.cls_token = nn.Parameter(torch.empty(1, 1, spec.width).normal_(std=0.02))
        self.pos_embed = nn.Parameter(sincos_position_table(spec.width, spec.grid), requires_grad=spec.learned_positions)
        if spec.learned_positions:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        self.blocks = transformer_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)
        self.norm = nn.LayerNorm(spec.width, eps=1e-6)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        keep_ids: Int64[Tensor, "B K"] | None = None,
        extra_token: Float[Tensor, "1 1 D"] | None = None,
        *,
        survival: Float[Tensor, "B depth 2"] | None = None,
        pick: Pick | None = None,
    ) -> Float[Tensor, "B R D"]:
        """Encode all patches, or only those in `keep_ids`.

        Args:
            images: Normalised images.
            keep_ids: Patches to see; None for all of them.
            extra_token: A token appended at the end as it is (a distillation token).
            survival: Factors of each block's residual branches (drop path); None for 1.
            pick: Tokens that are wanted; the last block computes no other. None: all.

        Returns:
            Tokens (class token, patches, extra token), or those that are picked, before the final norm.
        """
        if pick is None or not self.spec.depth:
            tokens = self.features(images, keep_ids, taps=(self.spec.depth,), extra_token=extra_token, survival=survival)[0]
            return tokens if pick is None else pick(tokens)
        tokens = self.features(images, keep_ids, taps=(self.spec.depth - 1,), extra_token=extra_token, survival=survival)[0]
        return run_block_for(self.blocks[-1], tokens, pick, None if survival is None else survival[:, -1])

    def features(
        self,
        images: Float[Tensor, "B C H W"],
        keep_ids: Int64[Tensor, "B K"] | None = None,
        *,
        taps: Sequence[int],
        extra_token: Float[Tensor, "1 1 D"] | None = None,
        survival: Float[Tensor, "B depth 2"] | None = None,
    ) -> list[Float[Tensor, "B T D"]]:
        """The residual stream after some blocks; blocks behind the last of them are not run.

        Args:
            images: Normalised images.
            keep_ids: As in `forward`.
            taps: Blocks, counted from 1, whose output is wanted, in ascending order; 0 is the embedded tokens.
            extra_token: As in `forward`.
            survival: As in `forward`.

        Raises:
            ValueError: A tap is not a block of this encoder, or the taps do not ascend.
        """
        if not taps or sorted(set(taps)) != list(taps) or taps[0] < 0 or taps[-1] > self.spec.depth:
            raise ValueError(f"taps are {list(taps)}; wanted ascending blocks between 0 and {self.spec.depth}")
        x = self._embed(images, keep_ids, extra_token)
        found = [x] if taps[0] == 0 else []
        for index, block in enumerate(list(self.blocks)[: taps[-1]]):
            x = run_block(block, x, None if survival is None else survival[:, index])
            if index + 1 in taps:
                found.append(x)
        return found

    def qkv(
        self, images: Float[Tensor, "B C H W"], block: int, *, survival: Float[Tensor, "B depth 2"] | None = None
    ) -> Float[Tensor, "B T D3"]:
        """Queries, keys and values (side by side) of one block, counted from 1, of all patches; nothing behind them is run.

        Raises:
            ValueError: It is not a block of this encoder.
        """
        if not 1 <= block <= self.spec.depth:
            raise ValueError(f"block is {block}; wanted one between 1 and {self.spec.depth}")
        x = self.features(images, taps=(block - 1,), survival=survival)[0]
        inner = cast("Any", self.blocks[block - 1])
        found: Tensor = inner.attn.qkv(inner.norm1(x))
        return found

    def _embed(
        self, images: Float[Tensor, "B C H W"], keep_ids: Int64[Tensor, "B K"] | None, extra_token: Float[Tensor, "1 1 D"] | None
    ) -> Float[Tensor, "B T D"]:
        patches = patchify(images, self.spec.patch_px, keep_ids)
        positions = self.pos_embed[:, 1:]
        if keep_ids is not None:
            positions = gather_tokens(positions.expand(images.shape[0], -1, -1), keep_ids)
        tokens = self.patch_embed(patches) + positions
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        parts = [cls, tokens] if extra_token is None else [cls, tokens, extra_token.expand(images.shape[0], -1, -1)]
        return torch.cat(parts, dim=1)


class Classifier(nn.Module):
    """ViT classifier; with a distillation token it has two heads, averaged at inference.

    Source: pengzhiliang/G2SD@6146adf, models_vit.py (token at the end, no position; cls pooling), facebookresearch/deit@7e160fe, models.py
    (token with a position) and facebookresearch/mae@efb2a80, models_vit.py (mean pooling of the patch tokens followed by the norm).
    Differs: DeiT puts its token second; the order of tokens does not change what a ViT computes, so ours is last, and its position is a
    parameter of its own.
    """

    no_weight_decay = ("pos_embed", "cls_token", "dist_token", "dist_pos")
    """Parameters that timm's ViT exempts from weight decay."""

    def __init__(self, spec: EncoderSpec, num_classes: int, *, pooling: Pooling, token: Token = "none") -> None:
        super().__init__()
        self.pooling = pooling
        self.token = token
        self.num_classes = num_classes
        self.encoder = Encoder(spec)
        self.encoder.pos_embed.requires_grad_(True)
        self.head = nn.Linear(spec.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self.dist_token: nn.Parameter | None = None
        self.dist_pos: nn.Parameter | None = None
        self.head_dist: nn.Linear | None = None
        if token == "none":
            return
        self.dist_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, spec.width), std=0.02))
        if token == "deit":
            self.dist_pos = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, spec.width), std=0.02))
        self.head_dist = nn.Linear(spec.width, num_classes)
        nn.init.trunc_normal_(self.head_dist.weight, std=0.02)
        nn.init.zeros_(self.head_dist.bias)

    @property
    def extra_token(self) -> Float[Tensor, "1 1 D"] | None:
        """The distillation token, with its position where it has one."""
        return self.dist_token if self.dist_pos is None or self.dist_token is None else self.dist_token + self.dist_pos

    def forward_heads(
        self, images: Float[Tensor, "B C H W"], *, survival: Float[Tensor, "B depth 2"] | None = None
    ) -> tuple[Float[Tensor, "B classes"], Float[Tensor, "B classes"] | None]:
        """Logits of the class head and, where there is one, of the distillation head."""
        extra = self.extra_token
        num_patches = self.encoder.spec.num_patches
        match self.pooling:
            case "cls":
                tokens = self.encoder(images, extra_token=extra, survival=survival, pick=_first if extra is None else _first_and_last)
                pooled = tokens[:, 0]
            case "mean":
                tokens = self.encoder(images, extra_token=extra, survival=survival)
                pooled = tokens[:, 1 : 1 + num_patches].mean(dim=1)
        logits = self.head(self.encoder.norm(pooled))
        if self.head_dist is None:
            return logits, None
        return logits, self.head_dist(self.encoder.norm(tokens[:, -1]))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits for inference: the mean of the two heads where there are two."""
        logits, dist = self.forward_heads(images)
        return logits if dist is None else (logits + dist) / 2


def _first(tokens: Tensor) -> Tensor:
    return tokens[:, :1]


def _first_and_last(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, :1], tokens[:, -1:]], dim=1)


def start_from(model: Classifier, encoder: Encoder) -> None:
    """Begin with a pre-trained encoder; under mean pooling the norm starts anew.

    As MAE's fc_norm: pooled patches have other statistics than the tokens that the encoder's norm was trained on.
    """
    weights = encoder.state_dict()
    if model.pooling == "mean":
        weights |= {f"norm.{name}": value for name, value in nn.LayerNorm(encoder.spec.width).state_dict().items()}
    model.encoder.load_state_dict(weights)
