"""What the layers of a vision transformer compute: its residual stream, and where its heads look.

All patches are seen: nothing is masked, and only the encoder of a masked model is read.

Shape letters: B images, C channels, H rows, W columns, T tokens (prefix, patches, suffix), D width, N patches.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Float32
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder
from g2sd_deploy.models.masked import FeatureStudent, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder
from g2sd_deploy.models.weight_file import held_kind
from g2sd_export.edge.preprocess import Preprocessing

Watch = Callable[[int, Tensor], None]
"""Told the number of a block, from 0, and its attention [B, heads, T, T]."""


@dataclass(frozen=True)
class LayerReader:
    """A vision transformer, layer by layer, without gradients.

    Attributes:
        image_px: Side of the square network input.
        grid: Patches along one side.
        patch_px: Side of a patch.
        heads: Attention heads of each block.
        num_prefix: Tokens before the patches: class token, distillation token, registers.
        embed: From normalised images to the tokens that enter the first block.
        blocks: Pre-norm blocks of timm.
        queries: Share of each token in what the classifier pools, summing to 1; None where that is no fixed average of tokens.
        preprocessing: How the model wants its images; None where nobody says.
        module: The network.
    """

    image_px: int
    grid: int
    patch_px: int
    heads: int
    num_prefix: int
    embed: Callable[[Tensor], Tensor]
    blocks: tuple[nn.Module, ...]
    queries: Float[Tensor, "T"] | None
    preprocessing: Preprocessing | None = None
    module: nn.Module | None = None

    def to(self, device: torch.device) -> "LayerReader":
        """Move the network there; inputs have to come from there, too."""
        if self.module is not None:
            self.module.to(device)
        return self

    @property
    def names(self) -> tuple[str, ...]:
        """Of the layers that `layers` gives, in its order."""
        return ("embedding", *(f"block {number}" for number in range(1, len(self.blocks) + 1)))

    def layers(self, inputs: Float[Tensor, "B C H W"], watch: Watch | None = None) -> Iterator[Float[Tensor, "B T D"]]:
        """The residual stream after the embedding and after every block, one layer at a time.

        Args:
            inputs: Normalised images.
            watch: Told the attention of each block on the way, as `attention` gives it; this saves a second forward pass.

        Raises:
            ValueError: The inputs are not of the size that the model reads.
        """
        for number, (stream, block) in enumerate(self._walk(inputs)):
            yield stream
            if watch is not None and block is not None:
                watch(number, attention_of(block, stream))

    def features(self, inputs: Float[Tensor, "B C H W"]) -> list[Float[Tensor, "B T D"]]:
        """All that `layers` gives, at once: the memory of every layer."""
        return list(self.layers(inputs))

    def attention(self, inputs: Float[Tensor, "B C H W"]) -> Iterator[Float32[Tensor, "B heads T T"]]:
        """Attention of every block, one at a time; rows are queries and sum to 1. Raises as `layers` does."""
        for stream, block in self._walk(inputs):
            if block is not None:
                yield attention_of(block, stream)

    def salience(self, inputs: Float[Tensor, "B C H W"]) -> Float32[Tensor, "B N"]:
        """How much the tokens that the classifier pools look at each patch, in the last block, on average over its heads.

        A class token for class-token pooling, together with the distillation token where there is one; all patches for mean pooling. A
        model without a classifier is read as if it pooled its class token.

        Returns:
            At least 0; a row sums to at most 1, for what prefix and suffix tokens get is not spread over the patches.

        Raises:
            UserError: The classifier pools by an attention of its own.
            ValueError: As `layers`.
        """
        if self.queries is None:
            raise UserError(
                "the model pools its tokens by an attention of its own, so its blocks do not say which patches matter; "
                "take the salience from a model with class-token or average pooling"
            )
        stream, block = next(islice(self._walk(inputs), len(self.blocks) - 1, None))
        assert block is not None
        over_heads = attention_of(block, stream).mean(dim=1)
        salience: Tensor = self.queries.to(over_heads) @ over_heads
        return salience[:, self.num_prefix : self.num_prefix + self.grid**2]

    def _walk(self, inputs: Float[Tensor, "B C H W"]) -> Iterator[tuple[Float[Tensor, "B T D"], nn.Module | None]]:
        """Each state of the stream with the block that reads it; the last state is read by none."""
        if inputs.shape[2:] != (self.image_px, self.image_px):
            raise ValueError(f"inputs are {inputs.shape[2]} x {inputs.shape[3]} px; the model reads {self.image_px} x {self.image_px}")
        with torch.no_grad():  # never around a yield: the caller would be in it too
            stream = self.embed(inputs)
        for block in self.blocks:
            yield stream, block
            with torch.no_grad():
                stream = block(stream)
        yield stream, None


@torch.no_grad()
def attention_of(block: nn.Module, stream: Float[Tensor, "B T D"]) -> Float32[Tensor, "B heads T T"]:
    """Attention that a pre-norm block of timm pays when it reads these tokens, from its queries and keys; rows are queries and sum to 1."""
    inner = cast("Any", block)
    attn, normed = inner.attn, inner.norm1(stream)
    queries, keys, _ = attn.qkv(normed).unflatten(-1, (3, attn.num_heads, attn.head_dim)).permute(2, 0, 3, 1, 4)
    scores = attn.q_norm(queries).float() * attn.scale @ attn.k_norm(keys).float().mT
    weights: Tensor = scores.softmax(dim=-1)
    return weights


def open_layers(path: Path) -> LayerReader:
    """The layers of any weight file of ours.

    Raises:
        UserError: Missing or damaged file, or not one of ours.
    """
    if held_kind(path) == "classifier":
        file = load_classifier(path)
        return replace(layer_reader(file.model), preprocessing=file.preprocessing)
    return layer_reader(load_encoder(path))


def layer_reader(model: nn.Module) -> LayerReader:
    """The layers of a network of ours, or of timm's plain vision transformer; the model is put into evaluation mode.

    Raises:
        UserError: Another architecture, blocks whose attention we do not know, or patches that are no square grid.
    """
    model.eval()
    match model:
        case Classifier():
            reader = _of_encoder(model.encoder, model)
        case Encoder():
            reader = _of_encoder(model, None)
        case MaskedAutoencoder() | GenericStudent() | FeatureStudent():
            reader = _of_encoder(model.encoder, None)
        case VisionTransformer():
            reader = _of_timm(model)
        case _:
            raise UserError(f"the layers of a {type(model).__name__} cannot be read; give a plain vision transformer, ours or timm's")
    return replace(reader, module=model)


def _of_encoder(encoder: Encoder, classifier: Classifier | None) -> LayerReader:
    spec = encoder.spec
    _check_blocks(encoder.blocks)

    def embed(images: Tensor) -> Tensor:
        return encoder.features(images, taps=(0,), extra_token=None if classifier is None else _extra_token(classifier))[0]

    num_tokens = 1 + spec.num_patches
    queries = _uniform(num_tokens, slice(1, num_tokens) if classifier is not None and classifier.pooling == "mean" else slice(0, 1))
    if classifier is not None and classifier.dist_token is not None:
        queries = torch.cat([queries, torch.ones(1)]) / 2
    return LayerReader(spec.image_px, spec.grid, spec.patch_px, spec.heads, 1, embed, tuple(encoder.blocks), queries)


def _extra_token(classifier: Classifier) -> Tensor | None:
    if classifier.dist_token is None or classifier.dist_pos is None:
        return classifier.dist_token
    return classifier.dist_token + classifier.dist_pos


def _of_timm(model: VisionTransformer) -> LayerReader:
    _check_blocks(model.blocks)
    inner = cast("Any", model)
    (rows, columns), sides = inner.patch_embed.grid_size, inner.patch_embed.img_size
    if rows != columns or sides[0] != sides[1]:
        raise UserError(
            f"the model reads {sides[0]} x {sides[1]} px as {rows} x {columns} patches; wanted a square input and a square grid"
        )

    def embed(images: Tensor) -> Tensor:
        tokens = inner._pos_embed(inner.patch_embed(images))
        embedded: Tensor = inner.norm_pre(inner.patch_drop(tokens))
        return embedded

    heads, prefix = inner.blocks[0].attn.num_heads, inner.num_prefix_tokens
    queries = _timm_queries(model, prefix, rows**2)
    return LayerReader(sides[0], rows, sides[0] // rows, heads, prefix, embed, tuple(inner.blocks), queries)


def _timm_queries(model: VisionTransformer, num_prefix: int, num_patches: int) -> Float[Tensor, "T"] | None:
    """As `timm.layers.global_pool_nlc` pools; a maximum is taken from all patches alike."""
    inner = cast("Any", model)
    num_tokens, pool = num_prefix + num_patches, inner.global_pool
    if isinstance(model, VisionTransformerDistilled):
        return _uniform(num_tokens, slice(0, 2))
    if pool == "token" or (not pool and inner.has_class_token):
        return _uniform(num_tokens, slice(0, 1))
    if pool in ("avg", "avgmax", "max", ""):
        return _uniform(num_tokens, slice(0 if inner.pool_include_prefix else num_prefix, num_tokens))
    return None


def _uniform(num_tokens: int, pooled: slice) -> Float[Tensor, "T"]:
    shares = torch.zeros(num_tokens)
    shares[pooled] = 1
    return shares / shares.sum()


def _check_blocks(blocks: nn.Module) -> None:
    """A subclass may compute something else, so nothing but the very classes will do."""
    for block in blocks.children():
        attention = type(block.attn) if type(block) is Block else None
        if attention is not Attention:
            found = type(block).__name__ + (f" with {attention.__name__}" if attention else "")
            raise UserError(f"the model's blocks are timm's {found}; layers can be read of its Block with Attention only")
