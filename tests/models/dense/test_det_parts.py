"""Pyramid, pooling, suppression and sampling against torchvision and against loops."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import MultiScaleRoIAlign, batched_nms, poolers, roi_align

from g2sd_deploy.models.dense.pooling import pooled_regions, regions_of
from g2sd_deploy.models.dense.pyramid import FeaturePyramid
from g2sd_deploy.models.dense.sampling import balanced_choice
from g2sd_deploy.models.dense.suppression import survivors


def random_boxes(num: int, side: float, batch: int = 2) -> Tensor:
    corners = torch.rand(batch, num, 2, 2) * side
    return torch.cat([corners.amin(dim=2), corners.amax(dim=2)], dim=2)


@pytest.mark.parametrize("patch_px", [4, 8, 16])
def test_levels_have_strides_from_4_to_64_whatever_the_patch(patch_px: int) -> None:
    levels = FeaturePyramid(32, patch_px, 6)(torch.randn(2, 32, 128 // patch_px, 128 // patch_px))
    assert [tuple(level.shape) for level in levels] == [(2, 6, side, side) for side in (32, 16, 8, 4, 2)]
    assert torch.equal(levels[4], levels[3][:, :, ::2, ::2])


def normed(x: Tensor, layer: torch.nn.Module) -> Tensor:
    centred = x - x.mean(dim=1, keepdim=True)
    weight, bias = (part[:, None, None] for part in (layer.weight, layer.bias))
    return centred / (centred.square().mean(dim=1, keepdim=True) + 1e-6).sqrt() * weight + bias


def test_levels_are_enlarged_or_pooled_then_convolved_and_normed_over_channels() -> None:
    pyramid, x = FeaturePyramid(16, 16, 6), torch.randn(2, 16, 4, 4)
    for layer in pyramid.modules():
        if isinstance(layer, torch.nn.LayerNorm):
            torch.nn.init.normal_(layer.weight)
            torch.nn.init.normal_(layer.bias)
    finest, fine, same, coarse = ([*level] for level in pyramid.levels)
    for got, before, (one, norm_one, three, norm_three) in zip(
        pyramid(x),
        [
            finest[3](F.gelu(normed(finest[0](x), finest[1]))),
            F.conv_transpose2d(x, fine[0].weight, fine[0].bias, stride=2),
            x,
            x.unfold(2, 2, 2).unfold(3, 2, 2).amax(dim=(4, 5)),
        ],
        [finest[4:], fine[1:], same, coarse[1:]],
        strict=False,
    ):
        wanted = normed(F.conv2d(normed(F.conv2d(before, one.weight), norm_one), three.weight, padding=1), norm_three)
        torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-4)


def test_regions_are_pooled_as_torchvision_pools_them_with_half_pixel_alignment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poolers, "roi_align", partial(roi_align, aligned=True))
    features = [torch.randn(2, 3, side, side) for side in (32, 16, 8, 4)]
    boxes = random_boxes(40, 128.0)
    reference = MultiScaleRoIAlign(["0", "1", "2", "3"], 5, 0, canonical_scale=50)
    wanted = reference({str(index): feature for index, feature in enumerate(features)}, list(boxes), [(128, 128)] * 2)
    torch.testing.assert_close(pooled_regions(features, regions_of(boxes), 5, 50), wanted)
    sides = (boxes[..., 2:] - boxes[..., :2]).prod(dim=2).sqrt()
    assert {int(level) for level in (4 + (sides / 50).log2()).floor().clamp(2, 5).flatten()} == {2, 3, 4, 5}  # all levels are read


def test_a_region_without_area_has_no_features() -> None:
    features = [torch.randn(1, 3, side, side) for side in (32, 16, 8, 4)]
    assert not pooled_regions(features, torch.zeros(2, 5), 7, 224).any()


@pytest.mark.parametrize("exporting", [False, True])
def test_suppression_is_that_of_torchvision_image_by_image(monkeypatch: pytest.MonkeyPatch, exporting: bool) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    boxes, scores, groups = random_boxes(60, 64.0, 3), torch.randn(3, 60), torch.randint(0, 4, (3, 60))
    got = survivors(boxes, scores, groups, torch.ones(3, 60, dtype=torch.bool), threshold=0.3, image_px=64)
    for image in range(3):
        kept = batched_nms(boxes[image], scores[image], groups[image], 0.3)
        assert got[image].nonzero().squeeze(1).tolist() == sorted(kept.tolist())
    assert 10 < got.sum() < 170


@pytest.mark.parametrize("exporting", [False, True])
def test_boxes_that_take_no_part_neither_survive_nor_suppress(monkeypatch: pytest.MonkeyPatch, exporting: bool) -> None:
    monkeypatch.setattr(torch.compiler, "is_exporting", lambda: exporting)
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 9, 10], [0, 0, 1, 1]]])
    valid = torch.tensor([[False, True, True, False]])
    got = survivors(boxes, torch.tensor([[3.0, 1, 2, 0]]), torch.zeros(1, 4, dtype=torch.int64), valid, threshold=0.5, image_px=10)
    assert got.tolist() == [[False, False, True, False]]


def chosen_by_hand(kinds: list[int], draws: list[float], num: int, share: float) -> tuple[set[int], set[int]]:
    order = sorted(range(len(kinds)), key=lambda index: draws[index])
    objects = [index for index in order if kinds[index] == 1][: int(num * share)]
    return set(objects), set([index for index in order if kinds[index] == 0][: num - len(objects)])


@pytest.mark.parametrize(("num", "share"), [(8, 0.5), (8, 0.25), (30, 1.0), (40, 0.5)])
def test_the_smallest_draws_are_chosen_and_background_fills_what_objects_leave(num: int, share: float) -> None:
    kinds = torch.stack([torch.randint(-1, 2, (30,)), torch.zeros(30, dtype=torch.int64), torch.ones(30, dtype=torch.int64)])
    draws = torch.rand(3, 30)
    objects, background = balanced_choice(kinds, draws, num, share)
    for row in range(3):
        wanted = chosen_by_hand(kinds[row].tolist(), draws[row].tolist(), num, share)
        assert tuple(set(part[row].nonzero().flatten().tolist()) for part in (objects, background)) == wanted
