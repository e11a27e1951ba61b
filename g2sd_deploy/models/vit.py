"""Plain ViT encoder and classifier on timm's blocks.

Shape letters: B batch, N patches of an image, K patches that the encoder sees, C channels, P patch side in pixels, D width.
"""

from dataclasses import dataclass
from functools import partial
from typing import Literal, cast

import torch
from jaxtyping import Float, Int64
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.models.position import sincos_position_table

Pooling = Literal["cls", "mean"]


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


def patchify(images: Float[Tensor, "B C H W"], patch_px: int) -> Float[Tensor, "B N CPP"]:
    """Cut images into non-overlapping patches, row by row; numbers of a patch are ordered (channel, y, x) as in a convolution's kernel."""
    b, c, h, w = images.shape
    grid_y, grid_x = h // patch_px, w // patch_px
    cut = images.reshape(b, c, grid_y, patch_px, grid_x, patch_px)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(b, grid_y * grid_x, c * patch_px * patch_px)


def gather_tokens(tokens: Float[Tensor, "B N D"], ids: Int64[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Pick tokens by index, per image."""
    return torch.gather(tokens, 1, ids.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


class PatchEmbed(nn.Module):
    """Linear projection of patches, stored as the convolution kernel that MAE and timm store."""

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.proj = nn.Conv2d(spec.num_channels, spec.width, spec.patch_px, spec.patch_px)
        nn.init.xavier_uniform_(self.proj.weight.view(spec.width, -1))
        assert self.proj.bias is not None
        nn.init.zeros_(self.proj.bias)

    def forward(self, patches: Float[Tensor, "B K CPP"]) -> Float[Tensor, "B K D"]:
        return nn.functional.linear(patches, self.proj.weight.flatten(1), self.proj.bias)


class Encoder(nn.Module):
    """ViT encoder that projects only the patches it is asked to see.

    The forward pass returns the residual stream before `norm`, so that a caller may pool first (MAE's fc_norm) or norm first:
    a per-token LayerNorm commutes with picking a token.
    """

    def __init__(self, spec: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.patch_embed = PatchEmbed(spec)
        self.cls_token = nn.Parameter(torch.empty(1, 1, spec.width).normal_(std=0.02))
        self.pos_embed = nn.Parameter(sincos_position_table(spec.width, spec.grid), requires_grad=False)
        self.blocks = transformer_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)
        self.norm = nn.LayerNorm(spec.width, eps=1e-6)

    def forward(
        self,
        images: Float[Tensor, "B C H W"],
        keep_ids: Int64[Tensor, "B K"] | None = None,
        extra_token: Float[Tensor, "1 1 D"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Encode all patches, or only those in `keep_ids`.

        Args:
            images: Normalised images.
            keep_ids: Patches to see; None for all of them.
            extra_token: A token appended at the end without a position (G2SD's distillation token).

        Returns:
            Tokens (class token, patches, extra token), before the final norm.
        """
        patches = patchify(images, self.spec.patch_px)
        positions = self.pos_embed[:, 1:]
        if keep_ids is not None:
            patches = gather_tokens(patches, keep_ids)
            positions = gather_tokens(positions.expand(images.shape[0], -1, -1), keep_ids)
        tokens = self.patch_embed(patches) + positions
        cls = (self.cls_token + self.pos_embed[:, :1]).expand(images.shape[0], -1, -1)
        parts = [cls, tokens] if extra_token is None else [cls, tokens, extra_token.expand(images.shape[0], -1, -1)]
        x = torch.cat(parts, dim=1)
        for block in self.blocks:
            x = block(x)
        return x


class Classifier(nn.Module):
    """ViT classifier; with a distillation token it has two heads, averaged at inference.

    Source: pengzhiliang/G2SD@6146adf, models_vit.py (token at the end, no position; cls pooling) and facebookresearch/mae@efb2a80,
    models_vit.py (mean pooling of the patch tokens followed by the norm).
    """

    no_weight_decay = ("pos_embed", "cls_token", "dist_token")
    """Parameters that timm's ViT exempts from weight decay."""

    def __init__(self, spec: EncoderSpec, num_classes: int, *, pooling: Pooling, distilled: bool) -> None:
        super().__init__()
        self.pooling = pooling
        self.num_classes = num_classes
        self.encoder = Encoder(spec)
        self.encoder.pos_embed.requires_grad_(True)
        self.head = nn.Linear(spec.width, num_classes)
        nn.init.trunc_normal_(self.head.weight, std=2e-5)
        nn.init.zeros_(self.head.bias)
        self.dist_token: nn.Parameter | None = None
        self.head_dist: nn.Linear | None = None
        if distilled:
            self.dist_token = nn.Parameter(nn.init.trunc_normal_(torch.empty(1, 1, spec.width), std=0.02))
            self.head_dist = nn.Linear(spec.width, num_classes)
            nn.init.trunc_normal_(self.head_dist.weight, std=0.02)
            nn.init.zeros_(self.head_dist.bias)

    def forward_heads(self, images: Float[Tensor, "B C H W"]) -> tuple[Float[Tensor, "B classes"], Float[Tensor, "B classes"] | None]:
        """Logits of the class head and, where there is one, of the distillation head."""
        tokens = self.encoder(images, extra_token=self.dist_token)
        num_patches = self.encoder.spec.num_patches
        match self.pooling:
            case "cls":
                pooled = tokens[:, 0]
            case "mean":
                pooled = tokens[:, 1 : 1 + num_patches].mean(dim=1)
        logits = self.head(self.encoder.norm(pooled))
        if self.head_dist is None:
            return logits, None
        return logits, self.head_dist(self.encoder.norm(tokens[:, -1]))

    def forward(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, "B classes"]:
        """Logits for inference: the mean of the two heads where there are two."""
        logits, dist = self.forward_heads(images)
        return logits if dist is None else (logits + dist) / 2
