"""Mixing of neighbours: against timm, against the pixels it leaves, and cut between pairs."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from timm.data.mixup import Mixup
from torch import Tensor

from g2sd_deploy.data.mixing import NUM_MIX_DRAWS, Mixed, mix_pairs
from g2sd_deploy.methods.classification import smoothed_one_hot
from g2sd_deploy.settings import MixSettings

MIXUP, CUTMIX, BOTH, NEITHER = MixSettings(cutmix=0.0), MixSettings(mixup=0.0), MixSettings(), MixSettings(mixup=0.0, cutmix=0.0)


def pictures(num: int = 6, image_px: int = 12, channels: int = 2) -> Tensor:
    return torch.rand(num, channels, image_px, image_px, generator=torch.Generator().manual_seed(0))


def labelled(num: int = 6) -> tuple[Tensor, Tensor]:
    return pictures(num), smoothed_one_hot(torch.arange(num), 10, 0.1)


def drawn(num: int = 6, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(((num + 1) // 2, NUM_MIX_DRAWS))


def draw_of(share: float, alpha: float) -> float:
    """The uniform number that stands for a share, by scipy's distribution function."""
    return float(np.clip(stats.beta(alpha, alpha).cdf(share), 0.0, np.nextafter(1.0, 0.0)))


def swapped(images: Tensor) -> Tensor:
    """Each image's partner."""
    return images.view(-1, 2, *images.shape[1:]).flip(1).reshape(images.shape)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX, BOTH, NEITHER])
@given(seed=st.integers(0, 1000), num=st.integers(1, 7))
def test_targets_remain_distributions(settings: MixSettings, seed: int, num: int) -> None:
    mixed = mix_pairs(*labelled(num), settings, drawn(num, seed))
    torch.testing.assert_close(mixed.targets.sum(dim=1), torch.ones(num))
    assert mixed.targets.min() >= 0


def test_mixup_blends_each_image_and_its_label_with_its_neighbour_at_the_pairs_ratio() -> None:
    images, targets = labelled()
    draws = drawn()
    shares = stats.beta(0.8, 0.8).ppf(draws[:, 1])
    mixed = mix_pairs(images, targets, MIXUP, draws)
    for i in range(6):
        share, partner = shares[i // 2], i + 1 if i % 2 == 0 else i - 1
        torch.testing.assert_close(mixed.images[i], float(share) * images[i] + float(1 - share) * images[partner])
        torch.testing.assert_close(mixed.targets[i], float(share) * targets[i] + float(1 - share) * targets[partner])


def pasted_share(mixed: Mixed, images: Tensor) -> Tensor:
    """Which pixels come from the partner."""
    pasted = (mixed.images != images).all(dim=1)
    assert torch.equal(mixed.images, torch.where(pasted[:, None], swapped(images), images))
    return pasted


@given(seed=st.integers(0, 1000))
def test_cutmix_pastes_one_box_a_pair_and_labels_share_exactly_as_the_pixels_do(seed: int) -> None:
    images, draws = pictures(), drawn(6, seed)
    mixed = mix_pairs(images, smoothed_one_hot(torch.arange(6), 10, 0.0), CUTMIX, draws)
    for i, pasted in enumerate(pasted_share(mixed, images)):
        rows, columns = pasted.any(dim=1), pasted.any(dim=0)
        assert torch.equal(pasted, rows[:, None] & columns[None, :])  # a box
        assert mixed.targets[i, i].item() == pytest.approx(1 - pasted.float().mean().item(), abs=1e-6)
        assert pasted.float().mean().item() <= 1 - draws[i // 2, 1] + 1e-6  # Beta(1, 1) is uniform


@pytest.mark.parametrize(("settings", "coin", "cuts"), [(BOTH, 0.49, True), (BOTH, 0.51, False), (MIXUP, 0.1, False), (CUTMIX, 0.9, True)])
def test_the_coin_chooses_between_the_two_only_where_both_are_on(settings: MixSettings, coin: float, cuts: bool) -> None:
    images, targets = labelled()
    draws = drawn()
    draws[:, 0], draws[:, 1] = coin, 0.5
    mixed = mix_pairs(images, targets, settings, draws)
    assert bool(torch.logical_or(mixed.images == images, mixed.images == swapped(images)).all()) is cuts


def test_the_two_kinds_live_side_by_side_in_a_batch() -> None:
    images, targets = labelled()
    draws = drawn()
    draws[:, 0], draws[:, 1] = [0.1, 0.9, 0.1], 0.4
    both = mix_pairs(images, targets, BOTH, draws)
    for pair, settings in enumerate((CUTMIX, MIXUP, CUTMIX)):
        alone = mix_pairs(images[2 * pair : 2 * pair + 2], targets[2 * pair : 2 * pair + 2], settings, draws[pair : pair + 1])
        assert torch.equal(both.images[2 * pair : 2 * pair + 2], alone.images)
        assert torch.equal(both.targets[2 * pair : 2 * pair + 2], alone.targets)


@given(seed=st.integers(0, 1000), cut=st.sampled_from([2, 4]))
def test_a_batch_that_is_cut_between_pairs_is_mixed_as_it_is_in_one_piece(seed: int, cut: int) -> None:
    images, targets = labelled()
    draws = drawn(6, seed)
    whole = mix_pairs(images, targets, BOTH, draws)
    first = mix_pairs(images[:cut], targets[:cut], BOTH, draws[: cut // 2])
    second = mix_pairs(images[cut:], targets[cut:], BOTH, draws[cut // 2 :])
    assert torch.equal(whole.images, torch.cat([first.images, second.images]))
    assert torch.equal(whole.targets, torch.cat([first.targets, second.targets]))


def test_the_last_image_of_an_odd_batch_stays_as_it_is() -> None:
    images, targets = labelled(5)
    for settings in (MIXUP, CUTMIX):
        mixed = mix_pairs(images, targets, settings, drawn(5))
        torch.testing.assert_close(mixed.images[4], images[4])
        torch.testing.assert_close(mixed.targets[4], targets[4])
        assert not torch.equal(mixed.images[:4], images[:4])


def test_nothing_is_mixed_where_both_are_off_and_the_inputs_are_never_changed() -> None:
    images, targets = labelled()
    off = mix_pairs(images, targets, NEITHER, drawn())
    assert torch.equal(off.images, images) and torch.equal(off.targets, targets)
    for settings in (MIXUP, CUTMIX):
        before = images.clone(), targets.clone()
        mix_pairs(images, targets, settings, drawn())
        assert torch.equal(images, before[0]) and torch.equal(targets, before[1])


def mixed_by_timm(images: Tensor, monkeypatch: pytest.MonkeyPatch, coin: float, share: float, places: tuple[int, int]) -> Mixed:
    """timm's Mixup of the papers' recipes on one pair, with the numbers that it would draw."""
    left = list(places)
    monkeypatch.setattr(np.random, "rand", lambda: coin)
    monkeypatch.setattr(np.random, "beta", lambda *_: share)
    monkeypatch.setattr(np.random, "randint", lambda *_, **__: left.pop(0))
    mixup = Mixup(mixup_alpha=0.8, cutmix_alpha=1.0, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.1, num_classes=10)
    return Mixed(*mixup(images.clone(), torch.arange(len(images))))


@pytest.mark.parametrize("coin", [0.2, 0.8])
@pytest.mark.parametrize("side", [0, 8, 20, 34, 40])  # even: timm up to 1.0.20 cuts a pixel off odd ones
@pytest.mark.parametrize("places", [(20, 20), (0, 39), (5, 30)])
def test_given_its_draws_a_pair_is_mixed_as_timm_mixes_it(
    coin: float, side: int, places: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images, share = pictures(2, 40), max(0.0, 1 - ((side + 0.5) / 40) ** 2)
    uniform = draw_of(share, 1.0 if coin < 0.5 else 0.8)
    draws = np.array([[coin, uniform, (places[0] + 0.5) / 40, (places[1] + 0.5) / 40]])
    ours = mix_pairs(images, smoothed_one_hot(torch.arange(2), 10, 0.1), BOTH, draws)
    timms = mixed_by_timm(images, monkeypatch, coin, share, places)
    torch.testing.assert_close(ours.images, timms.images, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.targets, timms.targets, rtol=1e-5, atol=1e-6)


def test_a_box_of_an_odd_side_is_cut_whole() -> None:
    draws = np.array([[0.2, 1 - (7.5 / 40) ** 2, 0.5, 0.5]])
    mixed = mix_pairs(pictures(2, 40), smoothed_one_hot(torch.arange(2), 2, 0.0), CUTMIX, draws)
    assert mixed.targets[0, 1].item() == pytest.approx(7 * 7 / 1600)


@pytest.mark.parametrize("settings", [MIXUP, CUTMIX, BOTH])
def test_shares_are_distributed_as_timms_are(settings: MixSettings) -> None:
    images, labels = pictures(2, 32, 1), torch.tensor([0, 1])
    mixup = Mixup(settings.mixup, settings.cutmix, prob=1.0, switch_prob=0.5, mode="batch", label_smoothing=0.0, num_classes=2)
    np.random.seed(0)
    timms = [mixup(images.clone(), labels)[1][0, 0].item() for _ in range(3000)]
    many = pictures(6000, 32, 1)
    targets = smoothed_one_hot(torch.arange(6000) % 2, 2, 0.0)
    ours = mix_pairs(many, targets, settings, drawn(6000)).targets[::2, 0].tolist()
    assert stats.ks_2samp(ours, timms).pvalue > 0.01
