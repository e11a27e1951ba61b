"""Encoder and classifier against the same network put together by hand from convolutions and timm's blocks."""

import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar, cast

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import TypeCheckError
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from g2sd_deploy.models.vit import (
    Classifier,
    Encoder,
    EncoderSpec,
    Token,
    gather_tokens,
    patchify,
    run_block,
    run_block_for,
    start_from,
    survival_scales,
)

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4)
DEEP = replace(SPEC, depth=4)
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


def forbid(*modules: nn.Module) -> None:
    """Fail the test as soon as one of these is called."""

    def fail(*_: object) -> None:
        raise AssertionError("a module was run whose result nobody reads")

    for module in modules:
        module.register_forward_pre_hook(fail)


def test_features_are_the_residual_stream_after_each_block_asked_for() -> None:
    encoder, pictures = randomise(Encoder(DEEP)), images()
    keep = torch.stack([torch.randperm(9)[:4] for _ in range(3)])
    by_hand = [encoder.features(pictures, keep, taps=(0,))[0]]
    torch.testing.assert_close(by_hand[0][:, 0], (encoder.cls_token + encoder.pos_embed[:, :1])[:, 0].expand(3, -1), **CLOSE)
    for block in encoder.blocks:
        by_hand.append(run_timm_blocks([block], by_hand[-1], DEEP))
    for taps in ((0,), (1,), (4,), (0, 4), (1, 2, 3), (0, 1, 2, 3, 4)):
        found = encoder.features(pictures, keep, taps=taps)
        assert len(found) == len(taps)
        for tap, stream in zip(taps, found, strict=True):
            torch.testing.assert_close(stream, by_hand[tap], **CLOSE)
    assert torch.equal(encoder(pictures, keep), encoder.features(pictures, keep, taps=(4,))[0])


@pytest.mark.parametrize("taps", [(0,), (1,), (0, 2)])
def test_blocks_behind_the_last_tap_and_the_norm_are_not_run(taps: tuple[int, ...]) -> None:
    encoder = Encoder(DEEP)
    forbid(*list(encoder.blocks)[taps[-1] :], encoder.norm)
    encoder.features(images(), taps=taps)
    with pytest.raises(AssertionError, match="nobody reads"):
        encoder.features(images(), taps=(taps[-1] + 1,))


@pytest.mark.parametrize("taps", [(), (-1,), (5,), (2, 1), (1, 1), (0, 5)])
def test_taps_that_are_no_blocks_or_do_not_ascend_are_refused(taps: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=rf"taps are \[{', '.join(map(str, taps))}\]; wanted ascending blocks between 0 and 4"):
        Encoder(DEEP).features(images(), taps=taps)


@pytest.mark.parametrize("block", [1, 3, 4])
def test_queries_keys_and_values_are_those_of_the_block_and_nothing_behind_them_is_run(block: int) -> None:
    encoder, pictures = randomise(Encoder(DEEP)), images()
    stream = run_timm_blocks(list(encoder.blocks)[: block - 1], embedded_by_hand(encoder, pictures), DEEP)
    target = cast("Any", encoder.blocks[block - 1])
    normed = F.layer_norm(stream, (16,), target.norm1.weight, target.norm1.bias, 1e-6)
    forbid(target, target.attn, target.attn.proj, target.norm2, target.mlp, *list(encoder.blocks)[block:], encoder.norm)
    found = encoder.qkv(pictures, block)
    torch.testing.assert_close(found, normed @ target.attn.qkv.weight.T + target.attn.qkv.bias, **CLOSE)


@pytest.mark.parametrize("block", [-1, 0, 5])
def test_relations_of_a_block_that_the_encoder_has_not_are_refused(block: int) -> None:
    with pytest.raises(ValueError, match=f"block is {block}; wanted one between 1 and 4"):
        Encoder(DEEP).qkv(images(), block)


def test_hidden_patches_are_dropped_before_they_are_projected() -> None:
    encoder, shapes = Encoder(SPEC), []
    encoder.patch_embed.register_forward_pre_hook(lambda _, given: shapes.append(tuple(given[0].shape)))
    encoder(images(), torch.tensor([[3, 8], [0, 1], [5, 4]]))
    encoder(images())
    assert shapes == [(3, 2, 48), (3, 9, 48)]


def test_learned_positions_start_as_noise_and_get_a_gradient_and_sine_positions_neither() -> None:
    fixed, learned = Encoder(SPEC), Encoder(replace(SPEC, learned_positions=True))
    assert not fixed.pos_embed[:, 0].any()
    assert 0.01 < learned.pos_embed[:, 0].std() < 0.03 and 0.01 < learned.pos_embed.std() < 0.03
    for encoder in (fixed, learned):
        encoder(images(), torch.tensor([[3, 8]] * 3)).square().sum().backward()
    assert fixed.pos_embed.grad is None
    assert learned.pos_embed.grad is not None
    assert learned.pos_embed.grad.any(dim=-1)[0].tolist() == [place in (0, 4, 9) for place in range(10)]  # class token, patches 3 and 8


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.25, 0.9])
def test_a_branch_is_skipped_as_often_as_its_rate_says_and_its_mean_stays(rate: float) -> None:
    draws = ((torch.arange(1000, dtype=torch.float64) + 0.5) / 1000).view(500, 1, 2)  # every thousandth once
    scales = survival_scales(draws, [rate])
    assert scales.dtype == torch.float32
    assert (scales == 0).sum() == round(1000 * rate)
    assert scales.double().mean().item() == pytest.approx(1.0, abs=1e-6)
    assert len(scales.unique()) == (1 if rate == 0 else 2)


def test_each_block_has_its_own_rate_and_each_branch_its_own_draw() -> None:
    draws = torch.tensor([[[0.05, 0.3], [0.3, 0.05]]], dtype=torch.float64)
    assert survival_scales(draws, [0.0, 0.2]).tolist() == [[[1.0, 1.0], [1.25, 0.0]]]
    assert survival_scales(draws, [0.2, 0.0]).tolist() == [[[0.0, 1.25], [1.0, 1.0]]]


def test_scaling_every_branch_by_one_is_no_drop_path() -> None:
    encoder, pictures = randomise(Encoder(DEEP)), images()
    torch.testing.assert_close(encoder(pictures, survival=torch.ones(3, 4, 2)), encoder(pictures), **CLOSE)
    torch.testing.assert_close(encoder.qkv(pictures, 3, survival=torch.ones(3, 4, 2)), encoder.qkv(pictures, 3), **CLOSE)


def test_a_skipped_block_is_as_if_it_were_not_there() -> None:
    encoder, pictures = randomise(Encoder(DEEP)), images()
    survival = torch.ones(3, 4, 2)
    survival[:, 1] = 0
    before = run_timm_blocks([encoder.blocks[i] for i in (0, 2)], embedded_by_hand(encoder, pictures), DEEP)
    torch.testing.assert_close(encoder(pictures, survival=survival), run_timm_blocks([encoder.blocks[3]], before, DEEP), **CLOSE)
    last = cast("Any", encoder.blocks[3])
    torch.testing.assert_close(encoder.qkv(pictures, 4, survival=survival), last.attn.qkv(last.norm1(before)), **CLOSE)


def test_each_branch_of_each_sample_has_its_own_factor() -> None:
    block, x = cast("Any", randomise(Encoder(SPEC)).blocks[0]), torch.randn(4, 5, 16)
    scales = torch.tensor([[1.0, 1.0], [0.0, 1.25], [1.25, 0.0], [0.0, 0.0]])
    found = run_block(block, x, scales)
    for sample, (attention, mlp) in enumerate(scales.tolist()):
        one = x[sample : sample + 1]
        one = one + attention * block.attn(block.norm1(one)) if attention else one
        one = one + mlp * block.mlp(block.norm2(one)) if mlp else one
        torch.testing.assert_close(found[sample : sample + 1], one, **CLOSE)
    assert torch.equal(found[3], x[3])


def test_drop_path_scales_a_classifier_too_and_is_absent_at_inference() -> None:
    model, pictures = classifier("cls", "g2sd"), images()
    survival = torch.zeros(3, 2, 2)
    logits, dist_logits = model.forward_heads(pictures, survival=survival)
    assert model.head_dist is not None and model.dist_token is not None and dist_logits is not None
    bare = embedded_by_hand(model.encoder, pictures)
    torch.testing.assert_close(logits, model.head(model.encoder.norm(bare[:, 0])), **CLOSE)
    torch.testing.assert_close(dist_logits, model.head_dist(model.encoder.norm(model.dist_token[:, 0])).expand(3, -1), **CLOSE)
    assert torch.equal(model(pictures), model.train()(pictures))


def classifier(pooling: str, token: Token) -> Classifier:
    return randomise(Classifier(SPEC, 5, pooling="mean" if pooling == "mean" else "cls", token=token))


def test_the_distillation_token_of_g2sd_stands_at_the_end_and_has_no_position() -> None:
    model, pictures = classifier("cls", "g2sd"), images()
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
    assert model.dist_pos is None


def timm_deit(model: Classifier) -> VisionTransformerDistilled:
    """timm's own distilled DeiT with our weights: its token is second, and its position the second row of the table."""
    twin = VisionTransformerDistilled(
        img_size=12, patch_size=4, num_classes=5, embed_dim=16, depth=2, num_heads=4, norm_layer=partial(nn.LayerNorm, eps=1e-6)
    )
    weights = {name.removeprefix("encoder."): value for name, value in model.state_dict().items()}
    positions = weights["pos_embed"]
    weights["pos_embed"] = torch.cat([positions[:, :1], weights.pop("dist_pos"), positions[:, 1:]], dim=1)
    twin.load_state_dict(weights)
    twin.set_distilled_training(True)  # both heads in training mode, their mean in evaluation
    return twin


def test_a_classifier_with_deits_token_computes_what_timms_deit_computes() -> None:
    model, pictures = classifier("cls", "deit"), images()
    twin = timm_deit(model)
    logits, dist_logits = model.forward_heads(pictures)
    wanted, dist_wanted = twin.train()(pictures)
    assert dist_logits is not None
    torch.testing.assert_close(logits, wanted, **CLOSE)
    torch.testing.assert_close(dist_logits, dist_wanted, **CLOSE)
    torch.testing.assert_close(model(pictures), twin.eval()(pictures), **CLOSE)


def test_the_position_of_deits_token_counts_and_is_trained() -> None:
    model, pictures = classifier("cls", "deit"), images()
    before = model(pictures)
    before.sum().backward()
    assert model.dist_pos is not None and model.dist_pos.grad is not None and model.dist_pos.grad.any()
    with torch.no_grad():
        model.dist_pos += torch.randn(16)  # a constant would vanish in the first norm
    assert not torch.allclose(model(pictures), before)


def test_both_heads_are_averaged_at_inference() -> None:
    model, pictures = classifier("cls", "g2sd"), images()
    logits, dist_logits = model.forward_heads(pictures)
    assert dist_logits is not None
    torch.testing.assert_close(model(pictures), 0.5 * logits + 0.5 * dist_logits, **CLOSE)


def test_without_a_distillation_token_there_is_one_head() -> None:
    model, pictures = classifier("cls", "none"), images()
    logits, dist_logits = model.forward_heads(pictures)
    assert dist_logits is None
    assert torch.equal(model(pictures), logits)


@pytest.mark.parametrize("token", ["none", "g2sd", "deit"])
def test_mean_pooling_averages_the_patches_without_class_and_distillation_token_and_norms_the_mean(token: Token) -> None:
    model, pictures = classifier("mean", token), images()
    extra = model.dist_token + model.dist_pos if model.dist_token is not None and model.dist_pos is not None else model.dist_token
    tokens = model.encoder(pictures, extra_token=extra)
    mean = sum(tokens[:, place] for place in range(1, 10)) / 9
    normed = F.layer_norm(mean, (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6)
    torch.testing.assert_close(model.forward_heads(pictures)[0], model.head(normed), **CLOSE)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_an_image_gets_the_same_logits_in_any_batch(pooling: str) -> None:
    model, pictures = classifier(pooling, "g2sd"), images(5)
    alone = torch.cat([model(pictures[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(model(pictures), alone, **CLOSE)
    torch.testing.assert_close(model(pictures.flip(0)).flip(0), alone, **CLOSE)


def test_the_position_is_trained_in_a_classifier_and_fixed_in_a_masked_encoder() -> None:
    assert not Encoder(SPEC).pos_embed.requires_grad
    assert Classifier(SPEC, 5, pooling="cls").encoder.pos_embed.requires_grad


def test_a_new_classifier_starts_undecided() -> None:
    logits, dist_logits = Classifier(SPEC, 10, pooling="cls", token="g2sd").eval().forward_heads(images(8))
    assert dist_logits is not None
    assert logits.abs().max() < 1e-3  # head std 2e-5
    assert 0.01 < dist_logits.std() < 0.5  # distillation head std 0.02


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_starts_from_an_encoder_and_under_mean_pooling_its_norm_starts_anew(pooling: str) -> None:
    model, encoder = classifier(pooling, "g2sd"), randomise(Encoder(SPEC))
    start_from(model, encoder)
    found = model.encoder.state_dict()
    norm = {"norm.weight": torch.ones(16), "norm.bias": torch.zeros(16)} if pooling == "mean" else {}
    for name, value in {**encoder.state_dict(), **norm}.items():
        assert torch.equal(found[name], value), name
    assert encoder.norm.weight.ne(1).any(), "the encoder itself is left alone"


def counted_by_formula(spec: EncoderSpec, num_classes: int, token: Token) -> int:
    width, hidden, tokens = spec.width, int(spec.width * spec.mlp_ratio), (spec.image_px // spec.patch_px) ** 2 + 1
    block = 4 * width + (3 * width * width + 3 * width) + (width * width + width) + (2 * width * hidden + hidden + width)
    encoder = (spec.num_channels * spec.patch_px**2 + 1) * width + width + tokens * width + spec.depth * block + 2 * width
    return encoder + (width + 1) * num_classes * (1 if token == "none" else 2) + {"none": 0, "g2sd": width, "deit": 2 * width}[token]


def num_parameters(spec: EncoderSpec, num_classes: int, token: Token = "none") -> int:
    with torch.device("meta"):
        model = Classifier(spec, num_classes, pooling="cls", token=token)
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize("token", ["none", "g2sd", "deit"])
@pytest.mark.parametrize("mlp_ratio", [2.0, 4.0])
def test_a_classifier_holds_exactly_the_parameters_of_the_formula(token: Token, mlp_ratio: float) -> None:
    spec = EncoderSpec(image_px=28, patch_px=7, num_channels=1, width=80, depth=5, heads=4, mlp_ratio=mlp_ratio)
    assert num_parameters(spec, 10, token) == counted_by_formula(spec, 10, token)


@pytest.mark.parametrize(
    ("width", "depth", "heads", "plain_m", "distilled_m"),
    [(192, 12, 3, 5.72, 5.91), (384, 12, 6, 22.05, 22.44), (768, 12, 12, 86.57, 87.34)],
    ids=["ViT-Ti", "ViT-S", "ViT-B"],
)
def test_imagenet_models_have_the_sizes_of_the_papers(width: int, depth: int, heads: int, plain_m: float, distilled_m: float) -> None:
    spec = EncoderSpec(image_px=224, patch_px=16, num_channels=3, width=width, depth=depth, heads=heads)
    assert round(num_parameters(spec, 1000) / 1e6, 2) == plain_m
    assert round(num_parameters(spec, 1000, "g2sd") / 1e6, 2) == distilled_m
    assert round(num_parameters(spec, 1000, "deit") / 1e6, 2) == distilled_m


@pytest.mark.parametrize(
    ("patch_px", "width", "depth", "heads", "size_m"),
    [(16, 192, 12, 3, 5.52), (16, 384, 12, 6, 21.67), (16, 768, 12, 12, 85.80), (16, 1024, 24, 16, 303.30), (14, 1280, 32, 16, 630.76)],
    ids=["ViT-Ti", "ViT-S", "ViT-B", "ViT-L", "ViT-H"],
)
def test_imagenet_encoders_have_the_sizes_of_the_papers(patch_px: int, width: int, depth: int, heads: int, size_m: float) -> None:
    with torch.device("meta"):
        encoder = Encoder(EncoderSpec(image_px=224, patch_px=patch_px, num_channels=3, width=width, depth=depth, heads=heads))
    assert round(sum(parameter.numel() for parameter in encoder.parameters()) / 1e6, 2) == size_m


def test_some_patches_are_cut_out_in_the_order_that_is_asked() -> None:
    pictures, ids = images(2), torch.tensor([[8, 0, 3], [1, 1, 5]])
    for size in (4, 2):
        cut = patchify(pictures, size, ids)
        assert torch.equal(cut, torch.stack([patchify(pictures, size)[row, ids[row]] for row in range(2)]))


PICKS: dict[str, Callable[[Tensor], Tensor]] = {
    "the first": lambda tokens: tokens[:, :1],
    "the last and the first": lambda tokens: tokens[:, [-1, 0]],
    "other ones of each image": lambda tokens: gather_tokens(tokens, torch.tensor([[3, 1], [0, 2], [9, 9]])),
    "all": lambda tokens: tokens,
}


@pytest.mark.parametrize("drop_path", [False, True])
@pytest.mark.parametrize("pick", PICKS)
def test_a_block_for_some_tokens_is_the_block_with_its_gradients(pick: str, drop_path: bool) -> None:
    block = randomise(Encoder(SPEC)).blocks[0]
    x, weights = torch.randn(3, 10, 16), torch.randn(16)
    scales = torch.tensor([[0.0, 2.0], [1.5, 1.5], [1.0, 0.0]]) if drop_path else None
    found = []
    for compute in (lambda x: PICKS[pick](run_block(block, x, scales)), lambda x: run_block_for(block, x, PICKS[pick], scales)):
        given = x.clone().requires_grad_()
        block.zero_grad()
        tokens = compute(given)
        (tokens * weights).sum().backward()
        assert given.grad is not None
        found.append([tokens.detach(), given.grad, *(cast("Tensor", value.grad).clone() for value in block.parameters())])
    for whole, part in zip(*found, strict=True):
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_encoder_that_is_asked_for_some_tokens_gives_those_of_all(depth: int) -> None:
    encoder = randomise(Encoder(replace(SPEC, depth=depth)))
    pictures, survival = images(), torch.rand(3, depth, 2)
    whole = encoder(pictures, survival=survival)
    torch.testing.assert_close(encoder(pictures, survival=survival, pick=lambda tokens: tokens[:, 2:5]), whole[:, 2:5], **CLOSE)
