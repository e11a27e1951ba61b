"""The window encoder against plain blocks, windows cut by hand, and the formula of relative positions."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.models.dense.windows import WindowEncoder, into_windows, out_of_windows, run_map_block
from g2sd_deploy.models.vit import Encoder, EncoderSpec, patchify
from g2sd_deploy.training.optimizer import layer_scale

SPEC = EncoderSpec(image_px=32, patch_px=4, num_channels=3, width=16, depth=2, heads=2)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def encoder(window: int, global_blocks: tuple[int, ...] = (), *, relative: bool = False, spec: EncoderSpec = SPEC) -> WindowEncoder:
    torch.manual_seed(1)
    made = WindowEncoder(spec, window=window, global_blocks=global_blocks, relative_positions=relative).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if "rel_pos" not in name:
                parameter.normal_(std=0.3)
    return made


def embedded(made: WindowEncoder, images: Tensor) -> Tensor:
    return made.patch_embed(patchify(images, SPEC.patch_px)) + made.pos_embed[:, 1:]


@pytest.mark.parametrize("relative", [False, True])
def test_with_a_window_as_large_as_the_image_and_zero_tables_it_is_the_plain_encoder_without_class_token(relative: bool) -> None:
    images, made = torch.randn(2, 3, 32, 32), encoder(8, relative=relative)
    plain = Encoder(SPEC).eval()
    shared = {name: value for name, value in made.state_dict().items() if "rel_pos" not in name}
    assert set(plain.load_state_dict(shared, strict=False).missing_keys) == {"cls_token", "norm.weight", "norm.bias"}
    tokens = embedded(made, images)
    for block in plain.blocks:
        tokens = block(tokens)
    torch.testing.assert_close(made(images).flatten(2).transpose(1, 2), tokens, **CLOSE)


def test_every_window_is_a_picture_of_its_own_and_a_global_block_is_not() -> None:
    images, made = torch.randn(2, 3, 32, 32), encoder(4, (1,))
    grid = embedded(made, images).unflatten(1, (8, 8))
    quarters = torch.empty_like(grid)
    for y in (0, 4):
        for x in (0, 4):
            cut = grid[:, y : y + 4, x : x + 4]
            quarters[:, y : y + 4, x : x + 4] = made.blocks[0](cut.flatten(1, 2)).view(cut.shape)
    wanted = made.blocks[1](quarters.flatten(1, 2))
    torch.testing.assert_close(made(images).flatten(2).transpose(1, 2), wanted, **CLOSE)


def test_windows_that_do_not_divide_the_map_are_filled_with_zeros_behind_the_first_norm() -> None:
    images, made = torch.randn(1, 3, 32, 32), encoder(5, spec=replace(SPEC, depth=1))
    block, x = made.blocks[0], embedded(made, images).unflatten(1, (8, 8))
    normed = F.layer_norm(x, (16,), block.norm1.weight, block.norm1.bias, 1e-6)
    padded = torch.zeros(1, 10, 10, 16)
    padded[:, :8, :8] = normed
    attended = torch.empty(1, 10, 10, 16)
    for y in (0, 5):
        for left in (0, 5):
            cut = padded[:, y : y + 5, left : left + 5]
            attended[:, y : y + 5, left : left + 5] = block.attn(cut.flatten(1, 2)).view(cut.shape)
    x = x + attended[:, :8, :8]
    wanted = x + block.mlp(block.norm2(x))
    torch.testing.assert_close(made(images).permute(0, 2, 3, 1), wanted, **CLOSE)


def test_cutting_windows_and_putting_them_together_changes_nothing() -> None:
    x = torch.randn(2, 7, 5, 3)
    windows = into_windows(x, 3)
    assert windows.shape == (2 * 3 * 2, 3, 3, 3)
    assert torch.equal(windows[1, :, :2], x[0, :3, 3:5]) and not windows[1, :, 2].any()
    assert torch.equal(out_of_windows(windows, 7, 5), x)


def attention_with_tables(attention: nn.Module, x: Tensor) -> Tensor:
    """float64, pair by pair."""
    height, width, dim = x.shape
    heads, out = 2, []
    qkv = attention.qkv(x.reshape(-1, dim)).reshape(height * width, 3, heads, dim // heads)
    places = [(y, x) for y in range(height) for x in range(width)]
    for head in range(heads):
        q, k, v = qkv[:, 0, head], qkv[:, 1, head], qkv[:, 2, head]
        scores = torch.zeros(len(places), len(places), dtype=torch.float64)
        for i, (y, left) in enumerate(places):
            for j, (other_y, other_left) in enumerate(places):
                row, column = attention.rel_pos_h[y - other_y + height - 1], attention.rel_pos_w[left - other_left + width - 1]
                scores[i, j] = q[i] @ k[j] / (dim // heads) ** 0.5 + q[i] @ row + q[i] @ column
        out.append(scores.softmax(dim=1) @ v)
    found: Tensor = attention.proj(torch.cat(out, dim=1)).view(height, width, dim)
    return found


def test_relative_positions_add_what_the_formula_says_to_every_pair() -> None:
    made = encoder(4, relative=True, spec=replace(SPEC, depth=1)).double()
    block = made.blocks[0]
    for name in ("rel_pos_h", "rel_pos_w"):
        assert not getattr(block.attn, name).any()
        nn.init.normal_(getattr(block.attn, name))
    x = torch.randn(1, 4, 4, 16, dtype=torch.float64)
    got = run_map_block(block, x, 4, None)
    middle = x + attention_with_tables(block.attn, block.norm1(x)[0])
    torch.testing.assert_close(got, middle + block.mlp(block.norm2(middle)), rtol=1e-9, atol=1e-9)


def test_tables_are_as_large_as_the_windows_and_in_global_blocks_as_the_image() -> None:
    made = encoder(3, (1,), relative=True)
    sizes = {name: tuple(value.shape) for name, value in made.named_parameters() if "rel_pos" in name}
    assert sizes == {
        "blocks.0.attn.rel_pos_h": (5, 8),
        "blocks.0.attn.rel_pos_w": (5, 8),
        "blocks.1.attn.rel_pos_h": (15, 8),
        "blocks.1.attn.rel_pos_w": (15, 8),
    }


def test_drop_path_scales_each_branch_of_each_image() -> None:
    images, made = torch.randn(2, 3, 32, 32), encoder(4, (1,))
    survival = torch.ones(2, 2, 2)
    torch.testing.assert_close(made(images, survival), made(images), **CLOSE)
    survival[1] = 0  # of the second image nothing but its embedding is left
    got = made(images, survival).flatten(2).transpose(1, 2)
    torch.testing.assert_close(got[1], embedded(made, images)[1], **CLOSE)
    survival[1, 0, 1] = 2.0
    x = embedded(made, images)[1:]
    wanted = x + 2 * made.blocks[0].mlp(made.blocks[0].norm2(x))
    torch.testing.assert_close(made(images, survival).flatten(2).transpose(1, 2)[1:], wanted, **CLOSE)


def test_layer_decay_reaches_every_parameter() -> None:
    names = [f"encoder.{name}" for name, _ in encoder(3, (1,), relative=True).named_parameters()]
    scales = {name: layer_scale(name, SPEC.depth, 0.5) for name in names}
    assert scales.pop("encoder.pos_embed") == 0.125
    assert {name: scale for name, scale in scales.items() if scale == 1} == {}
    assert scales["encoder.blocks.1.attn.rel_pos_h"] == 0.5
