"""The accuracy gate on real pairs of models: how often it fails what is as good, and how often it finds what is worse.

The population is the run's test images, on which every model's true accuracy is known exactly; a repetition draws as many images from it
as a check would have, with replacement, and asks the gate's own test.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np

from g2sd_deploy.gates.statistics import Sureness, detectable_drop, drop_p
from gating.models import BITS, SIGMAS, damaged, exported, images_of, retrained, right_of, rounded, student_of

TARGETS_POINTS = (0.25, 0.5, 1.0, 2.0)
_NEAR = 0.15  # of a target: how far a pair's true drop may lie from it
_FEWEST_PAIRS = 3


@dataclass(frozen=True)
class Pair:
    """Two models on the same images.

    Attributes:
        kind: How the second came from the first.
        before: Whether the first was right, by image.
        after: The same of the second.
    """

    kind: str
    before: np.ndarray
    after: np.ndarray

    @property
    def drop(self) -> float:
        """True drop, a share."""
        return float(self.before.mean() - self.after.mean())

    @property
    def changed(self) -> float:
        """Share of images that change sides."""
        return float((self.before != self.after).mean())


def answers(run: Path, cache: Path, *, num_noises: int, seeds: int, epochs: float, say: Callable[[str], None]) -> dict[str, np.ndarray]:
    """What every model got right, by name; kept in a file, so that an interrupted study goes on.

    Args:
        run: A finished run of the quickstart.
        cache: The file.
        num_noises: Noisy copies at each strength.
        seeds: Retrained models.
        epochs: Length of each retraining.
        say: Told what was done.
    """
    found: dict[str, np.ndarray] = dict(np.load(cache)) if cache.is_file() else {}

    def keep(name: str, make: Callable[[], np.ndarray]) -> None:
        if name not in found:
            found[name] = make()
            np.savez_compressed(cache, **found)
            say(f"{name}: {100 * found[name].mean():.2f} %")

    test, student = images_of(run, "test"), student_of(run)
    keep("student", lambda: right_of(student, test))
    if "exported/fp32-onnxruntime" not in found:
        for name, right in exported(run, threads=1):
            keep(f"exported/{name}", lambda right=right: right)
    train = images_of(run, "train")
    for seed in range(seeds):
        keep(f"retrained/{seed}", lambda seed=seed: right_of(retrained(run, train, seed=seed, epochs=epochs), test))
    for bits in BITS:
        keep(f"rounded/{bits}", lambda bits=bits: right_of(rounded(student, bits=bits), test))
    for seed in range(num_noises):
        for sigma in SIGMAS:
            keep(f"noise/{sigma}/{seed}", lambda sigma=sigma, seed=seed: right_of(damaged(student, sigma=sigma, seed=seed), test))
    return found


def pairs_of(found: dict[str, np.ndarray]) -> list[Pair]:
    """All pairs: the student with each of its descendants, and every two retrained models both ways round."""
    student = found["student"]
    again = {name: right for name, right in found.items() if name.startswith("retrained/")}
    pairs = [Pair(name.partition("/")[0], student, right) for name, right in found.items() if "/" in name and name not in again]
    return pairs + [Pair("retrained", again[one], again[other]) for one, other in permutations(again, 2)]


def study(pairs: list[Pair], *, num_images: int, repetitions: int, alpha: float) -> dict[str, Any]:
    """Count false alarms and finds.

    Args:
        pairs: The models.
        num_images: Images of a check.
        repetitions: Checks of each case.
        alpha: The gate's level.
    """
    rng = np.random.default_rng(0)

    def rate(cases: list[Pair], *, swapped: bool = False) -> dict[str, Any]:
        return _rate(cases, rng, num_images, repetitions, alpha, swapped=swapped)

    kinds = sorted({pair.kind for pair in pairs})
    no_drop = {kind: [pair for pair in pairs if pair.kind == kind and pair.drop <= 0] for kind in kinds}
    everything = {kind: [pair for pair in pairs if pair.kind == kind] for kind in kinds}
    found = [
        {"kind": kind, "target_points": target, **rate(near)}
        for kind in (*kinds, "any")
        for target in TARGETS_POINTS
        if len(near := _near(pairs, kind, target)) >= _FEWEST_PAIRS
    ]
    return {
        "num_images": num_images,
        "population": len(pairs[0].before),
        "false_alarms": [{"kind": kind, **rate(cases)} for kind, cases in no_drop.items() if cases],
        "false_alarms_swapped": [{"kind": kind, **rate(cases, swapped=True)} for kind, cases in everything.items()],
        "found": found,
        "found_by_change": list(_by_change(pairs, rate)),
    }


def _near(pairs: Iterable[Pair], kind: str, target: float) -> list[Pair]:
    return [pair for pair in pairs if kind in (pair.kind, "any") and abs(100 * pair.drop - target) <= _NEAR * target]


def _by_change(pairs: list[Pair], rate: Callable[[list[Pair]], dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """Drops near a point, by how many images change sides."""
    for low, high in ((0, 2), (2, 3), (3, 4), (4, 6), (6, 100)):
        for target in TARGETS_POINTS:
            cases = [pair for pair in _near(pairs, "any", target) if low <= 100 * pair.changed < high]
            if len(cases) >= _FEWEST_PAIRS:
                yield {"changed_percent": [low, high], "target_points": target, **rate(cases)}


def _rate(cases: list[Pair], rng: np.random.Generator, num: int, repetitions: int, alpha: float, *, swapped: bool) -> dict[str, Any]:
    """Share of checks that fail: of a pair drawn at random, on images drawn at random."""
    failed, drops, changes = 0, [], []
    for _ in range(repetitions):
        pair = cases[rng.integers(len(cases))]
        picks = rng.integers(0, len(pair.before), num)
        before, after = pair.before[picks], pair.after[picks]
        if swapped:  # of each image, which model is the baseline is a coin's choice: as many change sides, and none is better
            coin = rng.random(num) < 0.5
            before, after = np.where(coin, after, before), np.where(coin, before, after)
        failed += drop_p(int((before & ~after).sum()), int((after & ~before).sum()), num) <= alpha
        drops.append(0.0 if swapped else pair.drop)
        changes.append(pair.changed)
    changed = float(np.mean(changes))
    return {
        "num_pairs": len(cases),
        "repetitions": repetitions,
        "failed": failed,
        "share": failed / repetitions,
        "mean_drop_points": 100 * float(np.mean(drops)),
        "changed_percent_mean": 100 * changed,
        "detectable_points": 100 * detectable_drop(num, round(changed, 4), tolerance=0.0, sureness=Sureness(alpha)),
    }
