"""The sine-cosine table against a formula in Python's floats."""

import math

import pytest
import torch

from g2sd_deploy.models.position import is_sincos, resize_positions, sincos_position_table


@pytest.mark.parametrize(("width", "grid"), [(4, 1), (8, 3), (80, 4), (192, 14)])
def test_a_row_holds_sines_and_cosines_of_x_and_then_of_y(width: int, grid: int) -> None:
    quarter = width // 4
    rates = [10000.0 ** (-k / quarter) for k in range(quarter)]
    rows = [[0.0] * width]
    for y in range(grid):
        for x in range(grid):
            rows.append([wave(place * rate) for place in (x, y) for wave in (math.sin, math.cos) for rate in rates])
    table = sincos_position_table(width, grid)
    assert table.dtype == torch.float32
    torch.testing.assert_close(table, torch.tensor([rows], dtype=torch.float32), rtol=0, atol=1e-7)


def test_the_class_token_has_a_zero_position() -> None:
    assert not sincos_position_table(16, 2)[0, 0].any()


def test_x_comes_first_so_a_step_to_the_right_changes_the_first_half_alone() -> None:
    grid = sincos_position_table(16, 3)[0, 1:].view(3, 3, 16)
    assert torch.equal(grid[1, 0, 8:], grid[1, 1, 8:])
    assert not torch.equal(grid[1, 0, :8], grid[1, 1, :8])
    assert torch.equal(grid[0, 1, :8], grid[1, 1, :8])


def test_a_width_that_does_not_split_into_four_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of 4, not 10"):
        sincos_position_table(10, 2)


def test_the_fixed_table_is_recognised_up_to_rounding_and_nothing_else_is() -> None:
    table = sincos_position_table(16, 3)
    assert is_sincos(table) and is_sincos(table.half().float())
    shuffled = table[:, [0, 2, 1, *range(3, 10)]]
    for other in (table + 3e-3, shuffled, table[:, :9], torch.randn(1, 10, 16), torch.zeros(1, 10, 18)):
        assert not is_sincos(other)


def test_a_table_of_the_same_grid_is_left_alone() -> None:
    table = torch.randn(1, 10, 16)
    assert resize_positions(table, 3) is table


@pytest.mark.parametrize("grid", [1, 2, 6, 7])
def test_a_fixed_table_is_computed_exactly_at_the_places_that_the_new_patches_have_on_the_old_grid(grid: int) -> None:
    old, width, quarter = 3, 16, 4
    rows = [[0.0] * width]
    for y in range(grid):
        for x in range(grid):
            places = [(place + 0.5) * old / grid - 0.5 for place in (x, y)]
            rows.append([wave(p * 10000.0 ** (-k / quarter)) for p in places for wave in (math.sin, math.cos) for k in range(quarter)])
    resized = resize_positions(sincos_position_table(width, old), grid)
    torch.testing.assert_close(resized, torch.tensor([rows], dtype=torch.float32), rtol=0, atol=1e-6)


def test_a_trained_table_is_interpolated_as_the_vits_of_timm_do() -> None:
    from timm.models.vision_transformer import VisionTransformer

    model = VisionTransformer(img_size=12, patch_size=4, embed_dim=16, depth=1, num_heads=2)
    assert model.pos_embed is not None
    before = model.pos_embed.detach().clone()
    model.set_input_size(img_size=20)
    torch.testing.assert_close(resize_positions(before, 5), model.pos_embed.detach())
    assert torch.equal(resize_positions(before, 5)[:, 0], before[:, 0])


def test_a_picture_that_is_constant_stays_so_under_interpolation() -> None:
    table = torch.cat([torch.zeros(1, 1, 8), torch.ones(1, 16, 8)], 1)
    torch.testing.assert_close(resize_positions(table, 7)[:, 1:], torch.ones(1, 49, 8))


def test_patches_that_fill_no_square_cannot_be_resized() -> None:
    with pytest.raises(ValueError, match="8 positions of patches fill no square grid"):
        resize_positions(torch.zeros(1, 9, 8), 4)
