"""Distance that heads look, against loops over patches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from g2sd_deploy.evaluation.attention import AttentionDistance


def attention(num: int, heads: int, tokens: int) -> Tensor:
    return (3 * torch.randn(num, heads, tokens, tokens)).softmax(dim=-1)


def distance_by_loops(batches: list[list[Tensor]], grid: int, patch_px: int, prefix: int) -> np.ndarray:
    blocks, heads = len(batches[0]), batches[0][0].shape[1]
    found = np.zeros((blocks, heads))
    for block in range(blocks):
        paid = torch.cat([batch[block] for batch in batches]).double().numpy()
        for head in range(heads):
            means = []
            for image in range(len(paid)):
                for query in range(grid**2):
                    weights, far = 0.0, 0.0
                    for key in range(grid**2):
                        weight = paid[image, head, prefix + query, prefix + key]
                        weights += weight
                        far += weight * patch_px * np.hypot(query // grid - key // grid, query % grid - key % grid)
                    means.append(far / weights)
            found[block, head] = np.mean(means)
    return found


@pytest.mark.parametrize(("prefix", "suffix"), [(1, 0), (0, 0), (2, 1)])
def test_it_agrees_with_loops_over_images_queries_and_keys(prefix: int, suffix: int) -> None:
    tokens = prefix + 9 + suffix
    batches = [[attention(2, 2, tokens) for _ in range(3)], [attention(1, 2, tokens) for _ in range(3)]]
    found = AttentionDistance(grid=3, patch_px=5, num_prefix=prefix)
    for batch in batches:
        found.add(iter(batch))
    assert found.result().dtype == np.float64
    np.testing.assert_allclose(found.result(), distance_by_loops(batches, 3, 5, prefix), rtol=1e-6)


def test_a_head_that_looks_at_its_own_patch_looks_no_distance() -> None:
    found = AttentionDistance(grid=4, patch_px=16, num_prefix=1)
    found.add([torch.eye(17).expand(2, 1, 17, 17)])
    assert found.result() == 0


def test_a_head_that_looks_one_patch_to_the_side_looks_one_patch_far() -> None:
    left_to_right = torch.eye(16).view(16, 4, 4).flip(2).view(16, 16)  # column 0 looks at 3, 1 at 2, and back
    found = AttentionDistance(grid=4, patch_px=16, num_prefix=0)
    found.add([left_to_right[None, None]])
    assert found.result().item() == 16 * (3 + 1) / 2


def test_what_is_paid_to_the_class_token_does_not_count() -> None:
    before = attention(2, 2, 10)
    more = before.clone()
    more[..., 0] += 5
    one, other = (AttentionDistance(grid=3, patch_px=4, num_prefix=1) for _ in range(2))
    one.add([before])
    other.add([more / more.sum(dim=-1, keepdim=True)])
    np.testing.assert_allclose(other.result(), one.result(), rtol=1e-6)


def test_a_patch_that_looks_at_no_patch_is_left_out() -> None:
    some = attention(1, 2, 10)
    blind = some.clone()
    blind[0, 0, 5], blind[0, 1] = 0, 0
    blind[..., 0] = 1
    found = AttentionDistance(grid=3, patch_px=4, num_prefix=1)
    found.add([blind])
    kept = [query for query in range(9) if query != 4]
    patches = torch.stack([torch.arange(9) // 3, torch.arange(9) % 3], dim=1).double() * 4
    weights = some[0, 0, 1:, 1:].double()
    means = (weights * torch.cdist(patches, patches)).sum(dim=1) / weights.sum(dim=1)
    assert found.result()[0, 0] == pytest.approx(float(means[kept].mean()), rel=1e-6)
    assert np.isnan(found.result()[0, 1])


def test_too_few_tokens_and_nothing_at_all_are_refused() -> None:
    found = AttentionDistance(grid=3, patch_px=4, num_prefix=1)
    with pytest.raises(ValueError, match="over 9 tokens; wanted at least 10"):
        found.add([attention(1, 1, 9)])
    with pytest.raises(ValueError, match="no attention was added"):
        found.result()
