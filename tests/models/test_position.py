"""The sine-cosine table against a formula in Python's floats."""

import math

import pytest
import torch

from g2sd_deploy.models.position import sincos_position_table


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
