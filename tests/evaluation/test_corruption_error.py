"""Corruption errors against numbers worked out by hand, and AlexNet's against its errors at each severity."""

import numpy as np
import pytest
from torchvision.models import AlexNet_Weights

from g2sd_deploy.data.corruptions import MEAN_CORRUPTIONS, names
from g2sd_deploy.evaluation.corruption_error import (
    ALEXNET_CLEAN_ERROR,
    ALEXNET_ERRORS,
    CLEAN,
    EXTRA_CORRUPTIONS,
    SEVERITIES,
    CorruptionErrors,
    corruption_summary,
)

# Measured by others at each severity, from a second public source that lists them by corruption.
ALEXNET_BY_SEVERITY = {
    "gaussian_noise": (0.69528, 0.82542, 0.93554, 0.98138, 0.99452),
    "shot_noise": (0.71224, 0.85108, 0.93574, 0.98182, 0.99146),
    "impulse_noise": (0.78374, 0.89808, 0.94870, 0.98720, 0.99548),
    "defocus_blur": (0.65624, 0.73202, 0.85036, 0.91364, 0.94714),
    "glass_blur": (0.64308, 0.75054, 0.88806, 0.91622, 0.93344),
    "motion_blur": (0.58430, 0.70048, 0.82108, 0.89750, 0.92638),
    "zoom_blur": (0.70008, 0.76992, 0.80784, 0.84198, 0.87198),
    "snow": (0.71726, 0.88392, 0.86468, 0.91870, 0.94952),
    "frost": (0.61390, 0.79734, 0.88790, 0.89942, 0.93430),
    "fog": (0.67474, 0.76050, 0.84378, 0.87260, 0.94500),
    "brightness": (0.45140, 0.48502, 0.54048, 0.62166, 0.72440),
    "contrast": (0.64548, 0.76150, 0.88874, 0.97760, 0.99270),
    "elastic_transform": (0.52596, 0.70116, 0.55686, 0.64076, 0.80554),
    "pixelate": (0.52218, 0.54620, 0.73728, 0.87092, 0.91262),
    "jpeg_compression": (0.51002, 0.54718, 0.57294, 0.65458, 0.74778),
}
ALL_CASES = [(name, severity) for name in ALEXNET_ERRORS for severity in SEVERITIES]


def errors_of(by_name: dict[str, float]) -> dict[str, dict[int, float]]:
    return {name: dict.fromkeys(SEVERITIES, error) for name, error in by_name.items()}


def test_alexnet_is_as_bad_as_itself() -> None:
    alexnet = {name: dict(zip(SEVERITIES, errors, strict=True)) for name, errors in ALEXNET_BY_SEVERITY.items()}
    for name, errors in ALEXNET_BY_SEVERITY.items():
        assert ALEXNET_ERRORS[name] == pytest.approx(sum(errors) / 5, abs=5e-7), name
    got = corruption_summary(alexnet, alexnet=True, clean_error=ALEXNET_CLEAN_ERROR)
    assert got["mean_error"] == pytest.approx(0.788993, abs=5e-7)
    assert got["mce"] == pytest.approx(1, abs=1e-6) and got["relative_mce"] == pytest.approx(1, abs=1e-5)


def test_alexnets_clean_error_is_that_of_torchvisions_weights() -> None:
    accuracy = AlexNet_Weights.IMAGENET1K_V1.meta["_metrics"]["ImageNet-1K"]["acc@1"]
    assert pytest.approx(1 - accuracy / 100, abs=1e-9) == ALEXNET_CLEAN_ERROR


def test_errors_are_weighed_by_corruption_and_not_pooled() -> None:
    errors = errors_of(dict.fromkeys(ALEXNET_ERRORS, 0.6))
    errors["fog"] = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4, 5: 0.5}
    got = corruption_summary(errors, alexnet=True, clean_error=0.25)
    divided = [(0.3 if name == "fog" else 0.6) / error for name, error in ALEXNET_ERRORS.items()]
    assert got["mean_error"] == pytest.approx((14 * 0.6 + 0.3) / 15)
    assert got["mce"] == pytest.approx(sum(divided) / 15)
    added = [((0.3 if name == "fog" else 0.6) - 0.25) / (error - 0.43478) for name, error in ALEXNET_ERRORS.items()]
    assert got["relative_mce"] == pytest.approx(sum(added) / 15)


def test_the_order_of_the_corruptions_does_not_matter() -> None:
    errors = {name: {s: errors[s - 1] / 2 for s in (5, 3, 1, 2, 4)} for name, errors in reversed(ALEXNET_BY_SEVERITY.items())}
    assert corruption_summary(errors, alexnet=True)["mce"] == pytest.approx(0.5, abs=1e-6)


def test_extra_corruptions_count_in_no_mean() -> None:
    errors = errors_of(ALEXNET_ERRORS)
    assert len(EXTRA_CORRUPTIONS) == 4
    assert (tuple(ALEXNET_ERRORS), EXTRA_CORRUPTIONS, SEVERITIES) == (MEAN_CORRUPTIONS, names.EXTRA_CORRUPTIONS, names.SEVERITIES)
    with_extra = errors | errors_of(dict.fromkeys(EXTRA_CORRUPTIONS, 0.0))
    assert corruption_summary(with_extra, alexnet=True) == corruption_summary(errors, alexnet=True)
    assert corruption_summary(errors_of({"spatter": 0.5}), alexnet=True) == {"mean_error": None, "mce": None, "relative_mce": None}


@pytest.mark.parametrize("gone", ["corruption", "severity", "alexnet", "clean"])
def test_what_cannot_be_known_is_none(gone: str) -> None:
    errors = errors_of(ALEXNET_ERRORS)
    if gone == "corruption":
        del errors["fog"]
    if gone == "severity":
        del errors["fog"][3]
    got = corruption_summary(errors, alexnet=gone != "alexnet", clean_error=None if gone == "clean" else 0.2)
    assert got["mean_error"] is not None and got["relative_mce"] is None
    assert (got["mce"] is None) == (gone != "clean")


def added_up(correct: np.ndarray, clean: np.ndarray, cases: list[tuple[str, int]]) -> CorruptionErrors:
    errors = CorruptionErrors([*cases, CLEAN], alexnet=True)
    names = [f"n01440764/{i}.JPEG" for i in range(correct.shape[1])]
    for case, values in zip(cases, correct, strict=True):
        for half in (slice(7, None), slice(7)):
            errors.add(case, values[half], names[half])
    errors.add(CLEAN, clean, names)
    return errors


def test_added_up_answers_give_the_summary_of_their_errors() -> None:
    random = np.random.default_rng(0)
    correct, clean = random.random((75, 40)) < random.random(40), random.random(40) < 0.8
    errors = added_up(correct, clean, ALL_CASES)
    by_name: dict[str, dict[int, float]] = {}
    for (name, severity), values in zip(ALL_CASES, correct, strict=True):
        by_name.setdefault(name, {})[severity] = float((~values).mean())
        assert errors.error((name, severity)) == pytest.approx(by_name[name][severity])
    got = errors.summary()
    wanted = corruption_summary(by_name, alexnet=True, clean_error=float((~clean).mean()))
    assert {name: got[name] for name in wanted} == pytest.approx(wanted, rel=1e-9)


def test_intervals_are_those_of_the_images_own_sums() -> None:
    random = np.random.default_rng(1)
    correct, clean = random.random((75, 40)) < random.random(40), random.random(40) < 0.8
    intervals = added_up(correct, clean, ALL_CASES).summary()["intervals"]
    divisors = np.array([ALEXNET_ERRORS[name] for name, _ in ALL_CASES])[:, np.newaxis]
    for name, own in {
        "mean_error": (~correct).mean(axis=0),
        "mce": (~correct / divisors).mean(axis=0),
        "relative_mce": ((~correct * 1.0 - ~clean) / (divisors - 0.43478)).mean(axis=0),
    }.items():
        half = 2.022690920036762 * own.std(ddof=1) / np.sqrt(40)  # t of 39 degrees of freedom
        assert intervals[name] == pytest.approx([own.mean() - half, own.mean() + half], rel=1e-9), name


def test_few_corruptions_have_a_mean_error_with_an_interval_and_nothing_else() -> None:
    cases = [("fog", 1), ("fog", 5), ("snow", 3)]
    got = added_up(np.array([[True] * 20, [False] * 20, [True, False] * 10]), np.ones(20, dtype=bool), cases).summary()
    assert got["mean_error"] == pytest.approx((0.5 + 0.5) / 2)
    low, high = got["intervals"]["mean_error"]
    assert 0 <= low < 0.5 < high <= 1
    assert got["mce"] is got["relative_mce"] is got["intervals"]["mce"] is got["intervals"]["relative_mce"] is None


def test_a_case_without_images_is_no_perfect_case() -> None:
    errors = CorruptionErrors([("fog", 1), ("snow", 1)], alexnet=False)
    errors.add(("fog", 1), np.array([True, False]), range(2))
    with pytest.raises(ValueError, match=r"no image of \('snow', 1\)"):
        errors.summary()
