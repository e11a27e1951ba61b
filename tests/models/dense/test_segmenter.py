"""The segmenter: what its parts compute, what it starts as, and what is refused."""

import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.models.dense.levels import FeatureLevels, group_norm
from g2sd_deploy.models.dense.relative import RelativePositions, dense_encoder
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec, default_taps, start_segmenter_from, tapped_maps
from g2sd_deploy.models.dense.upernet import CellMeans, drop_channels
from g2sd_deploy.models.frozen import cast_frozen
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.training.optimizer import layer_scale

ENCODER = EncoderSpec(image_px=32, patch_px=8, num_channels=3, width=16, depth=4, heads=2)
SPEC = SegmenterSpec(ENCODER, 5, (0, 1, 2, 3), 16, 8, relative_positions=True, layer_scale=1.0)


def shaken(model: nn.Module) -> nn.Module:
    """Nothing is zero or one any more."""
    for parameter in model.parameters():
        parameter.data += 0.3 * torch.randn_like(parameter)
    return model


@pytest.mark.parametrize("survival", [None, torch.tensor([[[0.0, 2.0]] * 2 + [[1.5, 0.0]] * 2, [[1.0, 1.0]] * 4])])
@pytest.mark.parametrize(("relative", "scale"), [(True, 1.0), (True, None), (False, 1.0), (False, None)])
def test_a_dense_encoder_starts_as_the_plain_one(relative: bool, scale: float | None, survival: Tensor | None) -> None:
    plain, dense = shaken(Encoder(ENCODER)), dense_encoder(ENCODER, relative_positions=relative, layer_scale=scale)
    assert isinstance(plain, Encoder)
    found = dense.load_state_dict(plain.state_dict(), strict=False)
    assert not found.unexpected_keys
    assert all(re.fullmatch(r"blocks\.\d\.(attn\.positions\.table|attn\.gamma|mlp\.gamma)", name) for name in found.missing_keys)
    assert len(found.missing_keys) == 4 * (relative + 2 * (scale is not None))
    images = torch.randn(2, 3, 32, 32)
    taps = (1, 4)
    for one, other in zip(
        dense.features(images, taps=taps, survival=survival), plain.features(images, taps=taps, survival=survival), strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("survival", [None, torch.ones(2, 4, 2)])
@pytest.mark.parametrize("part", ["positions", "attn.gamma", "mlp.gamma"])
def test_each_added_part_counts_with_drop_path_and_without(part: str, survival: Tensor | None) -> None:
    dense = dense_encoder(ENCODER, relative_positions=True, layer_scale=1.0)
    images = torch.randn(2, 3, 32, 32)
    before = dense.features(images, taps=(4,), survival=survival)[0]
    for name, parameter in dense.named_parameters():
        if part in name:
            parameter.data += torch.randn_like(parameter)
    assert (dense.features(images, taps=(4,), survival=survival)[0] - before).abs().max() > 1e-3


def test_attention_is_the_formula_with_its_bias_and_scale() -> None:
    dense = dense_encoder(ENCODER, relative_positions=True, layer_scale=1.0)
    shaken(dense)
    attention, x = dense.blocks[1].get_submodule("attn").double(), torch.randn(2, 17, 16).double()
    q, k, v = (part.view(2, 17, 2, 8).transpose(1, 2) for part in attention.qkv(x).chunk(3, dim=-1))
    logits = q @ k.mT / math.sqrt(8) + attention.positions()
    wanted = attention.proj((logits.softmax(-1) @ v).transpose(1, 2).flatten(2)) * attention.gamma
    torch.testing.assert_close(attention(x), wanted, rtol=1e-6, atol=1e-7)  # the kernel exponentiates in its own way


def test_a_bias_is_looked_up_by_the_offset_from_key_to_query() -> None:
    grid, heads = 3, 2
    positions = RelativePositions(grid, heads)
    positions.table.data = torch.randn_like(positions.table)
    assert positions.table.shape == ((2 * grid - 1) ** 2 + 3, heads)
    bias, table = positions(), positions.table
    for query in range(grid**2):
        for key in range(grid**2):
            dy, dx = query // grid - key // grid + grid - 1, query % grid - key % grid + grid - 1
            assert torch.equal(bias[:, 1 + query, 1 + key], table[dy * (2 * grid - 1) + dx])
    assert torch.equal(bias[:, 0, 1:], table[-3].unsqueeze(1).expand(heads, grid**2))
    assert torch.equal(bias[:, 1:, 0], table[-2].unsqueeze(1).expand(heads, grid**2))
    assert torch.equal(bias[:, 0, 0], table[-1])


@pytest.mark.parametrize(("side", "scale"), [(16, 6), (16, 3), (7, 6), (5, 2), (2, 6), (1, 3), (4, 1)])
def test_means_of_cells_are_torchs_adaptive_pool(side: int, scale: int) -> None:
    x = torch.randn(2, 3, side, side, dtype=torch.float64)
    means = CellMeans(side, scale).double()
    torch.testing.assert_close(means(x), F.adaptive_avg_pool2d(x, scale), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("patch_px", [4, 8, 16, 32])
def test_levels_have_strides_of_4_to_32_whatever_the_patch(patch_px: int) -> None:
    levels = FeatureLevels(patch_px, 8)([torch.randn(2, 8, 64 // patch_px, 64 // patch_px)] * 4)
    assert [tuple(level.shape) for level in levels] == [(2, 8, 64 // stride, 64 // stride) for stride in (4, 8, 16, 32)]


def test_levels_are_mmsegmentations_for_patches_of_16_px() -> None:
    maps = [torch.randn(1, 8, 4, 4) for _ in range(4)]
    levels = FeatureLevels(16, 8)
    finest, second = levels.levels[0].children(), levels.levels[1].children()
    assert [type(layer).__name__ for layer in finest] == ["ConvTranspose2d", "GroupNorm", "GELU", "ConvTranspose2d"]
    assert [type(layer).__name__ for layer in second] == ["ConvTranspose2d"]
    _, _, third, coarsest = levels(maps)
    assert torch.equal(third, maps[2]) and torch.equal(coarsest, F.max_pool2d(maps[3], 2))


@pytest.mark.parametrize("patch_px", [0, 14, 12, -8])
def test_patches_that_are_no_power_of_two_are_refused(patch_px: int) -> None:
    with pytest.raises(ValueError, match=f"patches are {patch_px} px wide; wanted a power of two"):
        FeatureLevels(patch_px, 8)


def test_groups_divide_the_channels_and_hold_at_least_four() -> None:
    assert [group_norm(channels).num_groups for channels in (768, 384, 256, 192, 64, 16, 8, 6, 3)] == [32, 32, 32, 16, 16, 4, 2, 1, 1]


def test_dropping_channels_is_torchs_dropout_of_whole_channels() -> None:
    x, draws = torch.randn(3, 50, 4, 4), torch.rand(3, 50, dtype=torch.float64)
    ours, plain = drop_channels(x, draws, 0.3), nn.Dropout2d(0.3).train()(torch.ones(1, 4000, 1, 1))
    gone = (ours == 0).flatten(2).all(-1)
    assert torch.equal(gone, draws < 0.3)
    torch.testing.assert_close(ours[~gone], x[~gone] / 0.7)
    assert sorted({round(float(v), 5) for v in plain.flatten()}) == [0.0, round(1 / 0.7, 5)]  # the same two factors
    assert drop_channels(x, None) is x


@pytest.mark.parametrize(("px", "patch_px"), [(32, 16), (48, 16), (40, 8), (20, 4), (64, 32)])
def test_logits_have_stride_4_at_sizes_that_no_stride_divides(px: int, patch_px: int) -> None:
    model = Segmenter(replace(SPEC, encoder=replace(ENCODER, image_px=px, patch_px=patch_px)))
    images = torch.randn(2, 3, px, px)
    logits, aux = model.forward_train(images)
    assert logits.shape == (2, 5, px // 4, px // 4) and aux is not None and aux.shape[:2] == (2, 5)
    assert torch.equal(model.eval()(images), logits.detach()) or torch.allclose(model(images), logits, atol=1e-6)


def test_an_image_does_not_change_the_answer_of_another() -> None:
    model, images = Segmenter(SPEC), torch.randn(3, 3, 32, 32)
    torch.testing.assert_close(model(images)[1:2], model(images[1:2]), rtol=1e-4, atol=1e-6)


def test_a_block_that_is_tapped_twice_gives_two_levels() -> None:
    encoder, images = Encoder(replace(ENCODER, depth=2)), torch.randn(1, 3, 32, 32)
    maps = tapped_maps(encoder, images, (0, 0, 1, 1))
    assert torch.equal(maps[0], maps[1]) and torch.equal(maps[2], maps[3]) and not torch.equal(maps[1], maps[2])
    stream = encoder.features(images, taps=(1,))[0]
    assert torch.equal(maps[0][0, :, 2, 3], stream[0, 1 + 2 * 4 + 3])  # row 2, column 3


def test_taps_are_those_of_the_authors_and_fit_any_depth() -> None:
    assert default_taps(12) == (3, 5, 7, 11) and default_taps(24) == (7, 11, 15, 23)
    for depth in range(1, 30):
        replace(SPEC, encoder=replace(ENCODER, depth=depth), taps=default_taps(depth))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"taps": (0, 1, 2)}, r"taps are \[0, 1, 2\]; wanted 4 ascending blocks from 0 to 3, the last of them 3"),
        ({"taps": (0, 2, 1, 3)}, "ascending"),
        ({"taps": (0, 1, 2, 2)}, "the last of them 3"),
        ({"taps": (-1, 1, 2, 3)}, "from 0 to 3"),
        ({"taps": (0, 1, 2, 4)}, "from 0 to 3"),
        ({"num_classes": 0}, "there are 0 classes; wanted 1 to 255"),
        ({"num_classes": 256}, "there are 256 classes"),
        ({"channels": 0}, "channels are 0"),
        ({"aux_channels": 0}, "aux_channels 0"),
        ({"encoder": replace(ENCODER, image_px=36)}, r"image_px is 36; wanted a multiple of 4 and of the patch \(8 px\)"),
        ({"encoder": replace(ENCODER, image_px=30, patch_px=2)}, "image_px is 30"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(SPEC, **change)


def test_every_parameter_that_is_trained_learns_and_the_norm_that_nobody_reads_does_not() -> None:
    model = Segmenter(SPEC)
    logits, aux = model.forward_train(torch.randn(2, 3, 32, 32))
    assert aux is not None
    (logits.square().sum() + aux.square().sum()).backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert without == {"encoder.norm.weight", "encoder.norm.bias"}


def test_layer_decay_finds_the_layers_of_a_segmenter() -> None:
    scales = {name: layer_scale(name, 4, 0.5) for name, _ in Segmenter(SPEC).named_parameters()}
    assert scales["encoder.pos_embed"] == scales["encoder.patch_embed.proj.weight"] == 0.5**5
    for index in range(4):
        own = {value for name, value in scales.items() if name.startswith(f"encoder.blocks.{index}.")}
        assert own == {0.5 ** (4 - index)} and f"encoder.blocks.{index}.attn.positions.table" in scales
    assert {value for name, value in scales.items() if not name.startswith("encoder.")} == {1.0}


def test_a_segmenter_starts_from_an_encoder_of_another_image_size() -> None:
    generic = shaken(Encoder(replace(ENCODER, image_px=64)))
    assert isinstance(generic, Encoder)
    model = Segmenter(SPEC)
    fresh = {name: value.clone() for name, value in model.state_dict().items()}
    start_segmenter_from(model, generic)
    held = model.encoder.state_dict()
    assert torch.equal(held["blocks.2.attn.qkv.weight"], generic.state_dict()["blocks.2.attn.qkv.weight"])
    assert torch.equal(held["norm.weight"], generic.state_dict()["norm.weight"]) and held["pos_embed"].shape == (1, 17, 16)
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, fresh[name])}
    assert all(name.startswith("encoder.") and "positions" not in name and "gamma" not in name for name in changed)
    assert len(changed) == len(generic.state_dict())


def test_an_encoder_of_another_shape_is_refused() -> None:
    with pytest.raises(ValueError, match=r"the one to start from is .*heads=4.*they may differ in image_px alone"):
        start_segmenter_from(Segmenter(SPEC), Encoder(replace(ENCODER, heads=4)))


@pytest.mark.parametrize(("width", "heads", "million"), [(192, 3, 11.03), (384, 6, 42.00), (768, 12, 163.88)])
def test_full_sizes_have_the_parameters_that_the_authors_layers_have(width: int, heads: int, million: float) -> None:
    """Counted by hand from their configuration: ViT, four levels, UPerHead of `channels` = width, FCNHead of 256, 150 classes, 512 px."""
    c, a, k, tokens = width, 256, 150, 32 * 32 + 1
    block = 12 * width**2 + 13 * width + 2 * width + (63**2 + 3) * heads
    encoder = 768 * width + width + width + tokens * width + 12 * block
    levels = 3 * (4 * width**2 + width) + 2 * width
    head = 4 * (width * c + 2 * c) + ((width + 4 * c) * c * 9 + 2 * c) + 3 * (width * c + 2 * c) + 3 * (9 * c * c + 2 * c)
    head += 4 * c * c * 9 + 2 * c + c * k + k
    aux = 9 * width * a + 2 * a + a * k + k
    with torch.device("meta"):
        spec = SegmenterSpec(EncoderSpec(512, 16, 3, width, 12, heads), k, default_taps(12), c, a, relative_positions=True, layer_scale=1.0)
        model = Segmenter(spec)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trained == encoder + levels + head + aux
    assert trained / 1e6 == pytest.approx(million, abs=0.006)


def test_a_frozen_segmenter_in_bfloat16_answers_nearly_the_same() -> None:
    model, images = Segmenter(SPEC).eval().requires_grad_(False), torch.randn(2, 3, 32, 32)
    shaken(model)
    wanted = model(images)
    cast_frozen(model, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = model(images)
    assert found.dtype == torch.bfloat16
    assert (found.float() - wanted).norm() < 0.05 * wanted.norm()
