"""CKA against the sums of its definition, and what an unbiased estimate must do."""

import itertools

import numpy as np
import pytest
import torch
from torch import Tensor

from g2sd_deploy.evaluation.similarity import Cka

NUM = 8


def hsic_by_sums(left: np.ndarray, right: np.ndarray) -> float:
    """Mean of k_ij (l_ij - 2 l_iq + l_qr) over all ordered quadruples of different images: the U-statistic of Song et al. as it is."""
    k, m = left @ left.T, right @ right.T
    quadruples = list(itertools.permutations(range(len(left)), 4))
    return sum(float(k[i, j] * (m[i, j] - 2 * m[i, q] + m[q, r])) for i, j, q, r in quadruples) / len(quadruples)


def cka_by_sums(batches: list[tuple[np.ndarray, np.ndarray]]) -> float:
    cross, left, right = np.sum([(hsic_by_sums(x, y), hsic_by_sums(x, x), hsic_by_sums(y, y)) for x, y in batches], axis=0)
    return float(cross / np.sqrt(left * right))


def cka(*batches: tuple[list[Tensor], list[Tensor]]) -> np.ndarray:
    found = Cka()
    for left, right in batches:
        found.add(left, right)
    return found.result()


def related(num: int = NUM) -> tuple[list[Tensor], list[Tensor]]:
    """Layers of two networks with other widths and numbers of tokens; the first of each side share a part."""
    shared = torch.randn(num, 3)
    left = [torch.cat([shared, torch.randn(num, 7)], dim=1).view(num, 5, 2) + 4, torch.randn(num, 5, 3)]
    right = [torch.cat([2 * shared, torch.randn(num, 3)], dim=1).view(num, 2, 3) - 1, torch.randn(num, 2, 3), torch.randn(num, 6)]
    return left, right


def flat(layer: Tensor) -> np.ndarray:
    return layer.reshape(len(layer), -1).double().numpy()


def test_every_pair_of_layers_agrees_with_the_sum_over_all_quadruples_of_images() -> None:
    batches = [related(6), related(6)]
    got = cka(*batches)
    assert got.dtype == np.float64
    wanted = [[cka_by_sums([(flat(le[i]), flat(ri[j])) for le, ri in batches]) for j in range(3)] for i in range(2)]
    np.testing.assert_allclose(got, wanted, rtol=1e-9, atol=1e-9)


def test_one_batch_of_everything_is_the_unbiased_cka_of_everything() -> None:
    left, right = related(NUM)
    assert cka((left[:1], right[:1]))[0, 0] == pytest.approx(cka_by_sums([(flat(left[0]), flat(right[0]))]), rel=1e-9)


def test_identical_layers_give_one() -> None:
    left, _ = related(32)
    np.testing.assert_allclose(np.diag(cka((left, left), (left, left))), 1, rtol=1e-12)


def test_neither_rotation_nor_scale_nor_an_offset_changes_it() -> None:
    left, right = (side[:1] for side in related(16))
    turn, _ = torch.linalg.qr(torch.randn(10, 10, dtype=torch.float64))
    turned = [(left[0].flatten(1).double() @ turn) * 37 + torch.randn(10)]
    np.testing.assert_allclose(cka((turned, right)), cka((left, right)), rtol=1e-5)
    np.testing.assert_allclose(cka((turned, left)), 1, rtol=1e-5)


def test_an_offset_a_thousand_times_the_signal_is_bearable() -> None:
    left, right = (side[:1] for side in related(16))
    shifted = [layer.double() + 1000 for layer in left]
    np.testing.assert_allclose(cka((shifted, right)), cka((left, right)), rtol=1e-9)


def test_layers_wider_than_what_is_cast_at_once_are_counted_whole() -> None:
    wide = torch.randn(5, 20_000)
    assert cka(([wide], [wide[:, :9000]]))[0, 0] == pytest.approx(cka_by_sums([(flat(wide), flat(wide[:, :9000]))]), rel=1e-9)


def test_shuffling_the_images_of_one_side_leaves_nothing_in_common() -> None:
    layer = torch.randn(256, 4, 8)
    assert abs(cka(([layer], [layer[torch.randperm(256)]]))[0, 0]) < 0.05


@pytest.mark.parametrize("num", [6, 24])
def test_unrelated_features_give_zero_on_average_however_small_the_batches(num: int) -> None:
    values = np.array([cka(*(([torch.randn(num, 40)], [torch.randn(num, 40)]) for _ in range(4)))[0, 0] for _ in range(200)])
    error = values.std() / np.sqrt(len(values))
    assert abs(values.mean()) < 4 * error < 0.1  # the usual, biased estimate gives 0.88 and 0.63


def test_small_batches_and_large_ones_tell_the_same() -> None:
    shared = torch.randn(1200, 10)
    left, right = (torch.cat([shared, torch.randn(1200, 10)], dim=1) for _ in range(2))
    small, large = (cka(*(([x], [y]) for x, y in zip(left.split(n), right.split(n), strict=True))) for n in (6, 400))  # type: ignore[no-untyped-call]
    assert small[0, 0] == pytest.approx(large[0, 0], abs=0.03)
    assert large[0, 0] > 0.2


def test_a_layer_that_ignores_the_image_has_no_similarity() -> None:
    constant = torch.rand(1, 3, 50).expand(16, -1, -1) * 100
    rounded = constant * (1 + 1e-7 * torch.randn(16, 1, 1))
    left = [torch.randn(16, 9), constant, rounded, torch.zeros(16, 2)]
    got = cka((left, left))
    assert np.isnan(got[1:]).all() and np.isnan(got[:, 1:]).all()
    assert got[0, 0] == pytest.approx(1)


def test_layers_may_come_from_a_generator_and_keep_their_gradients() -> None:
    left, right = related()
    assert cka(((x.requires_grad_() for x in left), iter(right))).shape == (2, 3)  # type: ignore[arg-type]


def test_a_batch_of_three_is_refused() -> None:
    with pytest.raises(ValueError, match="has 3 images; unbiased CKA needs at least 4"):
        Cka().add(*related(3))


def test_a_smaller_last_batch_is_refused_with_what_to_do() -> None:
    found = Cka()
    found.add(*related(8))
    with pytest.raises(ValueError, match="this batch has 5 images and those before 8; leave a smaller last batch out"):
        found.add(*related(5))


def test_what_does_not_match_is_refused() -> None:
    left, right = related()
    with pytest.raises(ValueError, match="8 images on the left and 6 on the right"):
        Cka().add(left, (layer[:6] for layer in right))
    found = Cka()
    found.add(left, right)
    with pytest.raises(ValueError, match="2 x 2 pairs of layers and those before 2 x 3"):
        found.add(left, right[:2])
    with pytest.raises(ValueError, match="no layer"):
        Cka().add([], right)
    with pytest.raises(ValueError, match="no batch was added"):
        Cka().result()


def test_features_that_are_not_finite_are_refused() -> None:
    left, right = related()
    right[1][3, 0, 0] = torch.inf
    with pytest.raises(ValueError, match="features of layer 1 are not finite"):
        Cka().add(left, right)
