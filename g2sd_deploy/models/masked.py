"""Masked encoder-decoders: MAE teachers and the students of generic distillation.

Shape letters as in vit.py; R is the width of the decoder.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from g2sd_deploy.models.position import sincos_position_table
from g2sd_deploy.models.vit import Encoder, EncoderSpec, gather_tokens, init_linear, transformer_blocks


@dataclass(frozen=True)
class DecoderSpec:
    """Shape of the decoder that sees all positions."""

    width: int
    depth: int
    heads: int
    mlp_ratio: float = 4.0


@dataclass(frozen=True)
class Mask:
    """Which patches the encoder sees, shared by teacher and student."""

    keep_ids: Int64[Tensor, "B K"]
    restore_ids: Int64[Tensor, "B N"]
    hidden: Bool[Tensor, "B N"]

    def require_hidden(self) -> None:
        """Refuse a mask that hides nothing, by its shape: looking at `hidden` would make the host wait for the device.

        Raises:
            ValueError: Every patch is visible.
        """
        if self.keep_ids.shape[1] == self.restore_ids.shape[1]:
            raise ValueError("the mask hides no patch, so there is nothing to score; raise mask_ratio")


def mask_from_noise(noise: Float[Tensor, "B N"], mask_ratio: float) -> Mask:
    """Hide the patches with the largest noise; int(N * (1 - mask_ratio)) stay visible.

    Source: facebookresearch/mae@efb2a80, models_mae.py (random_masking).
    """
    num_patches = noise.shape[1]
    num_keep = int(num_patches * (1 - mask_ratio))
    if not 0 < num_keep <= num_patches:
        raise ValueError(f"mask_ratio {mask_ratio} leaves {num_keep} of {num_patches} patches visible; at least 1 must stay")
    shuffle = noise.argsort(dim=1, stable=True)
    restore = shuffle.argsort(dim=1, stable=True)
    return Mask(keep_ids=shuffle[:, :num_keep], restore_ids=restore, hidden=restore >= num_keep)


class Decoder(nn.Module):
    """Decoder blocks over all positions; hidden patches are a shared mask token."""

    def __init__(self, spec: DecoderSpec, encoder: EncoderSpec) -> None:
        super().__init__()
        self.spec = spec
        self.embed = nn.Linear(encoder.width, spec.width)
        init_linear(self.embed)
        self.mask_token = nn.Parameter(torch.empty(1, 1, spec.width).normal_(std=0.02))
        self.pos_embed = nn.Parameter(sincos_position_table(spec.width, encoder.grid), requires_grad=False)
        self.blocks = transformer_blocks(spec.width, spec.depth, spec.heads, spec.mlp_ratio)

    def forward(
        self, visible: Float[Tensor, "B T D"], restore_ids: Int64[Tensor, "B N"], num_blocks: int | None = None
    ) -> Float[Tensor, "B S R"]:
        """Hidden state of all positions after `num_blocks` blocks (all by default), before any norm.

        Args:
            visible: Normed encoder tokens: the class token, then the visible patches in shuffled order.
            restore_ids: Where each patch of the image went in the shuffle.
            num_blocks: How many blocks to compute, counted from 1; the rest is not run.

        Returns:
            Class token, then all N patches in image order.
        """
        x: Tensor = self.embed(visible)
        num_hidden = restore_ids.shape[1] + 1 - x.shape[1]
        shuffled = torch.cat([x[:, 1:], self.mask_token.expand(x.shape[0], num_hidden, -1)], dim=1)
        x = torch.cat([x[:, :1], gather_tokens(shuffled, restore_ids)], dim=1) + self.pos_embed
        for block in list(self.blocks)[:num_blocks]:
            x = block(x)
        return x


class MaskedAutoencoder(nn.Module):
    """MAE: encoder, decoder and pixel prediction. Source: arXiv 2111.06377; facebookresearch/mae@efb2a80, models_mae.py."""

    def __init__(self, encoder: EncoderSpec, decoder: DecoderSpec) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = Decoder(decoder, encoder)
        self.decoder_norm = nn.LayerNorm(decoder.width, eps=1e-6)
        self.decoder_pred = nn.Linear(decoder.width, encoder.patch_dim)
        init_linear(self.decoder_pred)

    def hidden_states(self, images: Float[Tensor, "B C H W"], mask: Mask, num_blocks: int | None = None) -> Float[Tensor, "B S R"]:
        """Decoder hidden state after `num_blocks` blocks: the target of G2SD's generic distillation."""
        visible = self.encoder.norm(self.encoder(images, mask.keep_ids))
        hidden: Tensor = self.decoder(visible, mask.restore_ids, num_blocks)
        return hidden

    def forward(self, images: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "B N CPP"]:
        """Predicted pixels of every patch."""
        return self.pixels_from(self.encoder(images, mask.keep_ids), mask)

    def pixels_from(self, tokens: Float[Tensor, "B T D"], mask: Mask) -> Float[Tensor, "B N CPP"]:
        """Predicted pixels of every patch, given what the encoder made of the visible ones."""
        hidden = self.decoder(self.encoder.norm(tokens), mask.restore_ids)
        predicted: Tensor = self.decoder_pred(self.decoder_norm(hidden)[:, 1:])
        return predicted


class GenericStudent(nn.Module):
    """Student of generic distillation: encoder, small decoder, and a two-layer head to the teacher decoder's width.

    Source: pengzhiliang/G2SD@6146adf, models_mae.py. Differs: no encoder projection, decoder norm or pixel head (the authors build them and
    never train them).
    """

    def __init__(self, encoder: EncoderSpec, decoder: DecoderSpec, teacher_width: int) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.decoder = Decoder(decoder, encoder)
        self.feature_head = _feature_head(decoder.width, teacher_width)

    def forward(self, images: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "B S R"]:
        """Predicted teacher features of the class token and every patch."""
        visible = self.encoder.norm(self.encoder(images, mask.keep_ids))
        features: Tensor = self.feature_head(self.decoder(visible, mask.restore_ids))
        return features


class FeatureStudent(nn.Module):
    """Student whose encoder itself predicts the features of a teacher's encoder, through a two-layer head; no decoder.

    Source: pengzhiliang/G2SD@6146adf, models_mae.py (encoderfeature_pred, which the authors weigh with 0).
    """

    def __init__(self, encoder: EncoderSpec, teacher_width: int) -> None:
        super().__init__()
        self.encoder = Encoder(encoder)
        self.feature_head = _feature_head(encoder.width, teacher_width)

    def forward(self, images: Float[Tensor, "B C H W"], mask: Mask) -> Float[Tensor, "B T R"]:
        """Predicted teacher features of the class token and the visible patches."""
        features: Tensor = self.feature_head(self.encoder.norm(self.encoder(images, mask.keep_ids)))
        return features


def _feature_head(width: int, teacher_width: int) -> nn.Sequential:
    head = nn.Sequential(nn.Linear(width, teacher_width), nn.GELU(), nn.Linear(teacher_width, teacher_width))
    return head.apply(init_linear)
