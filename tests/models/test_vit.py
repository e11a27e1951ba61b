"""Encoder and classifier against the same network put together by hand from convolutions and timm's blocks."""

import math
from collections.abc import Iterable
from typing import TypeVar

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, gather_tokens, patchify

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}
Model = TypeVar("Model", bound=nn.Module)


def images(num: int = 3, spec: EncoderSpec = SPEC) -> Tensor:
    return torch.randn(num, spec.num_channels, spec.image_px, spec.image_px)


def randomise(model: Model) -> Model:
    """Fixed starting values (zero biases, tiny heads) would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def run_timm_blocks(blocks: Iterable[nn.Module], x: Tensor, spec: EncoderSpec) -> Tensor:
    """Blocks that this test builds and fills itself."""
    for block in blocks:
        twin = Block(spec.width, spec.heads, mlp_ratio=spec.mlp_ratio, qkv_bias=True)
        twin.norm1, twin.norm2 = nn.LayerNorm(spec.width, eps=1e-6), nn.LayerNorm(spec.width, eps=1e-6)
        twin.load_state_dict(block.state_dict())
        x = twin.eval()(x)
    return x


def embedded_by_hand(encoder: Encoder, pictures: Tensor) -> Tensor:
    """Class token and patches through a strided convolution, with positions, before the blocks."""
    patches = F.conv2d(pictures, encoder.patch_embed.proj.weight, encoder.patch_embed.proj.bias, stride=encoder.spec.patch_px)
    tokens = torch.cat([encoder.cls_token.expand(len(pictures), -1, -1), patches.flatten(2).transpose(1, 2)], dim=1)
    return tokens + encoder.pos_embed


def test_shape_annotations_are_executed() -> None:
    with pytest.raises(TypeCheckError):
        gather_tokens(torch.zeros(2, 3, 4), torch.zeros(2, 3))  # indices of float
    with pytest.raises(TypeCheckError):
        gather_tokens(torch.zeros(2, 3, 4), torch.zeros(5, 1, dtype=torch.int64))  # another batch


def test_patches_are_cut_row_by_row_with_numbers_in_the_order_channel_y_x() -> None:
    picture = images(2)
    cut = patchify(picture, 4)
    assert cut.shape == (2, 9, 48)
    for place in range(9):
        top, left = 4 * (place // 3), 4 * (place % 3)
        assert torch.equal(cut[:, place], picture[:, :, top : top + 4, left : left + 4].flatten(1))


def test_projecting_patches_is_a_strided_convolution() -> None:
    encoder, pictures = randomise(Encoder(SPEC)), images()
    projected = encoder.patch_embed(patchify(pictures, SPEC.patch_px))
    convolved = encoder.patch_embed.proj(pictures).flatten(2).transpose(1, 2)
    torch.testing.assert_close(projected, convolved, **CLOSE)


def test_an_encoder_is_patches_class_token_positions_and_blocks_without_a_last_norm() -> None:
    encoder, pictures = randomise(Encoder(SPEC)), images()
    torch.testing.assert_close(encoder(pictures), run_timm_blocks(encoder.blocks, embedded_by_hand(encoder, pictures), SPEC), **CLOSE)


def test_seeing_every_patch_by_index_is_seeing_the_image() -> None:
    encoder, pictures = Encoder(SPEC).eval(), images()
    torch.testing.assert_close(encoder(pictures, torch.arange(9).expand(3, -1)), encoder(pictures), **CLOSE)


def test_seeing_some_patches_is_encoding_the_sequence_of_just_those_tokens() -> None:
    encoder, pictures = randomise(Encoder(SPEC)), images()
    keep = torch.stack([torch.randperm(9)[:4] for _ in range(3)])
    embedded = embedded_by_hand(encoder, pictures)
    rows = [torch.stack([tokens[0], *(tokens[1 + int(i)] for i in ids)]) for tokens, ids in zip(embedded, keep, strict=True)]
    torch.testing.assert_close(encoder(pictures, keep), run_timm_blocks(encoder.blocks, torch.stack(rows), SPEC), **CLOSE)


def test_weights_start_as_in_mae() -> None:
    encoder = Encoder(EncoderSpec(image_px=28, patch_px=7, num_channels=1, width=64, depth=1, heads=4))
    linears = {name: module for name, module in encoder.named_modules() if isinstance(module, nn.Linear)}
    assert set(linears) == {f"blocks.0.{part}" for part in ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")}
    for linear in (*linears.values(), encoder.patch_embed.proj):
        fan_out, fan_in = linear.weight.flatten(1).shape
        bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier, uniform
        assert 0.95 * bound < linear.weight.abs().max() <= bound
        assert linear.bias is not None
        assert not linear.bias.any()
    assert 0.01 < encoder.cls_token.std() < 0.03
    assert all(module.eps == 1e-6 for module in encoder.modules() if isinstance(module, nn.LayerNorm))


def test_hidden_patches_have_no_influence() -> None:
    encoder, pictures = Encoder(SPEC).eval(), images(1)
    changed = pictures.clone()
    changed[:, :, :4, :4] += 5.0  # patch 0
    keep = torch.tensor([[3, 8, 1]])
    assert torch.equal(encoder(pictures, keep), encoder(changed, keep))


def classifier(pooling: str, *, distilled: bool) -> Classifier:
    return randomise(Classifier(SPEC, 5, pooling="mean" if pooling == "mean" else "cls", distilled=distilled))


def test_the_distillation_token_stands_at_the_end_and_has_no_position() -> None:
    model, pictures = classifier("cls", distilled=True), images()
    assert model.dist_token is not None
    assert model.head_dist is not None
    sequence = torch.cat([embedded_by_hand(model.encoder, pictures), model.dist_token.expand(3, -1, -1)], dim=1)
    normed = F.layer_norm(
        run_timm_blocks(model.encoder.blocks, sequence, SPEC), (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6
    )
    logits, dist_logits = model.forward_heads(pictures)
    assert dist_logits is not None
    torch.testing.assert_close(logits, model.head(normed[:, 0]), **CLOSE)
    torch.testing.assert_close(dist_logits, model.head_dist(normed[:, 10]), **CLOSE)
    assert model.encoder.pos_embed.shape == (1, 10, 16)


def test_both_heads_are_averaged_at_inference() -> None:
    model, pictures = classifier("cls", distilled=True), images()
    logits, dist_logits = model.forward_heads(pictures)
    assert dist_logits is not None
    torch.testing.assert_close(model(pictures), 0.5 * logits + 0.5 * dist_logits, **CLOSE)


def test_without_a_distillation_token_there_is_one_head() -> None:
    model, pictures = classifier("cls", distilled=False), images()
    logits, dist_logits = model.forward_heads(pictures)
    assert dist_logits is None
    assert torch.equal(model(pictures), logits)


@pytest.mark.parametrize("distilled", [False, True])
def test_mean_pooling_averages_the_patches_without_class_and_distillation_token_and_norms_the_mean(distilled: bool) -> None:
    model, pictures = classifier("mean", distilled=distilled), images()
    tokens = model.encoder(pictures, extra_token=model.dist_token)
    mean = sum(tokens[:, place] for place in range(1, 10)) / 9
    normed = F.layer_norm(mean, (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6)
    torch.testing.assert_close(model.forward_heads(pictures)[0], model.head(normed), **CLOSE)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_image_gets_the_same_logits_in_any_batch(pooling: str) -> None:
    model, pictures = classifier(pooling, distilled=True), images(5)
    alone = torch.cat([model(pictures[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(model(pictures), alone, **CLOSE)
    torch.testing.assert_close(model(pictures.flip(0)).flip(0), alone, **CLOSE)


def test_the_position_is_trained_in_a_classifier_and_fixed_in_a_masked_encoder() -> None:
    assert not Encoder(SPEC).pos_embed.requires_grad
    assert Classifier(SPEC, 5, pooling="cls", distilled=False).encoder.pos_embed.requires_grad


def test_a_new_classifier_starts_undecided() -> None:
    logits, dist_logits = Classifier(SPEC, 10, pooling="cls", distilled=True).eval().forward_heads(images(8))
    assert dist_logits is not None
    assert logits.abs().max() < 1e-3  # head std 2e-5
    assert 0.01 < dist_logits.std() < 0.5  # distillation head std 0.02


def counted_by_formula(spec: EncoderSpec, num_classes: int, *, distilled: bool) -> int:
    width, hidden, tokens = spec.width, int(spec.width * spec.mlp_ratio), (spec.image_px // spec.patch_px) ** 2 + 1
    block = 4 * width + (3 * width * width + 3 * width) + (width * width + width) + (2 * width * hidden + hidden + width)
    encoder = (spec.num_channels * spec.patch_px**2 + 1) * width + width + tokens * width + spec.depth * block + 2 * width
    return encoder + (width + 1) * num_classes * (2 if distilled else 1) + (width if distilled else 0)


def num_parameters(spec: EncoderSpec, num_classes: int, *, distilled: bool) -> int:
    with torch.device("meta"):
        model = Classifier(spec, num_classes, pooling="cls", distilled=distilled)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("distilled", [False, True])
@pytest.mark.parametrize("mlp_ratio", [2.0, 4.0])
def test_a_classifier_holds_exactly_the_parameters_of_the_formula(distilled: bool, mlp_ratio: float) -> None:
    spec = EncoderSpec(image_px=28, patch_px=7, num_channels=1, width=80, depth=5, heads=4, mlp_ratio=mlp_ratio)
    assert num_parameters(spec, 10, distilled=distilled) == counted_by_formula(spec, 10, distilled=distilled)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "plain_m", "distilled_m"),
    [(192, 12, 3, 5.72, 5.91), (384, 12, 6, 22.05, 22.44), (768, 12, 12, 86.57, 87.34)],
    ids=["ViT-Ti", "ViT-S", "ViT-B"],
)
def test_imagenet_models_have_the_sizes_of_the_papers(width: int, depth: int, heads: int, plain_m: float, distilled_m: float) -> None:
    spec = EncoderSpec(image_px=224, patch_px=16, num_channels=3, width=width, depth=depth, heads=heads)
    assert round(num_parameters(spec, 1000, distilled=False) / 1e6, 2) == plain_m
    assert round(num_parameters(spec, 1000, distilled=True) / 1e6, 2) == distilled_m
