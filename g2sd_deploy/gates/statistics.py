"""Is a drop more than chance explains, and which drop would have been found: the tests behind the gates.

Every test is one-sided: a gate asks whether something got worse, by more than a tolerance. A gate that fails at level 5 % raises a false
alarm in at most 5 of 100 checks of a model that is exactly as far below its baseline as is tolerated, and in fewer of a better one.
"""

import math
from dataclasses import dataclass
from functools import cache
from statistics import NormalDist

from g2sd_export.paired import drop_score

NORMAL = NormalDist()
_BISECTIONS = 40
_TAIL = 1e-9  # of the number of images that change sides: what is left out of a sum over it


@dataclass(frozen=True)
class Sureness:
    """How sure a gate is.

    Attributes:
        alpha: Highest probability of failing what is no worse than tolerated.
        power: Probability with which what is told as detectable is found.
    """

    alpha: float = 0.05
    power: float = 0.95

    @property
    def quantiles(self) -> float:
        """Standard errors between the tolerance and what is found with `power`, where errors are normal."""
        return NORMAL.inv_cdf(1 - self.alpha) + NORMAL.inv_cdf(self.power)


@dataclass(frozen=True)
class Tested:
    """A test's answer.

    Attributes:
        value: How much worse, in the unit of what was tested.
        bound: Lower end of the values that the test does not reject; with the level's certainty it is at least as bad as this.
        p: Probability of so much if no more than the tolerance were true.
        detectable: The smallest true value that such a sample shows with the power asked for.
    """

    value: float
    bound: float
    p: float
    detectable: float


def lost_p(lost: int, gained: int) -> float:
    """One-sided mid-p of McNemar's test: would a fair coin give so many lost among the images that changed sides?

    What was found counts half, what is worse counts whole. The exact test counts both whole, and so fails less often than its level says;
    of drops of one point it finds about one in a hundred less.

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right.

    Returns:
        0 to 1; a half where none changed sides. Computed in whole numbers.

    Source: Fagerland, Lydersen and Laake 2013, doi:10.1186/1471-2288-13-91, who recommend it over the exact test.
    """
    changed = lost + gained
    ways, worse = 1, 0
    for chosen in range(gained):
        worse += ways
        ways = ways * (changed - chosen) // (chosen + 1)
    return (2 * worse + ways) / (1 << (changed + 1))


def drop_p(lost: int, gained: int, num: int, tolerance: float = 0.0) -> float:
    """One-sided p that no more than a tolerated share of the images was lost on balance.

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right.
        num: Images that both answered.
        tolerance: A share; at 0 the test is McNemar's with mid-p, above it Tango's score test.

    Source: Tango 1998, as in `g2sd_export.paired`.
    """
    if tolerance == 0:
        return lost_p(lost, gained)
    return 1 - NORMAL.cdf(drop_score(lost, gained, num, tolerance))


def paired_test(lost: int, gained: int, num: int, *, tolerance: float, sureness: Sureness) -> Tested:
    """The drop in accuracy between two models that answered the same images.

    Args:
        lost: Images that were right and are wrong.
        gained: Images that were wrong and are right.
        num: Images that both answered, at least 1.
        tolerance: Drop, a share of the images, that is accepted.
        sureness: Level and power.
    """
    return Tested(
        value=(lost - gained) / num,
        bound=_lower_bound(lost, gained, num, sureness.alpha),
        p=drop_p(lost, gained, num, tolerance),
        detectable=detectable_drop(num, (lost + gained) / num, tolerance=tolerance, sureness=sureness),
    )


def _lower_bound(lost: int, gained: int, num: int, alpha: float) -> float:
    wanted, inside, outside = NORMAL.inv_cdf(1 - alpha), (lost - gained) / num, -1.0
    for _ in range(_BISECTIONS):
        middle = (inside + outside) / 2
        inside, outside = (middle, outside) if drop_score(lost, gained, num, middle) <= wanted else (inside, middle)
    return (inside + outside) / 2


@cache
def detectable_drop(num: int, changed: float, *, tolerance: float, sureness: Sureness) -> float:
    """The smallest true drop that a paired test on this many images finds with the power asked for.

    Args:
        num: Images.
        changed: Share of images that change sides; where it is smaller than a drop, the drop is all that changes.
        tolerance: Drop that is accepted.
        sureness: Level and power.

    Returns:
        A share above the tolerance; 1 where no drop is found so surely. The sum over all ways that it can turn out is exact.
    """
    low, high = tolerance, 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        found = _power(num, middle, max(changed, middle), tolerance, sureness.alpha) >= sureness.power
        low, high = (low, middle) if found else (middle, high)
    return high


def _power(num: int, drop: float, changed: float, tolerance: float, alpha: float) -> float:
    """Probability that the test rejects: over the number of images that change sides, and over how many of them are lost."""
    import numpy as np
    from scipy.stats import binom

    first, last = (int(binom.ppf(tail, num, changed)) for tail in (_TAIL, 1 - _TAIL))
    numbers = np.arange(first, last + 1)
    if tolerance == 0:
        exact = binom.isf(alpha, numbers, 0.5) + 1  # the mid-p test may need one less
        half = binom.sf(exact - 2, numbers, 0.5) - binom.pmf(exact - 1, numbers, 0.5) / 2
        needed = exact - (half <= alpha)
    else:
        needed = np.array([_needed(int(number), num, tolerance, alpha) for number in numbers])
    share_lost = min(1.0, (changed + drop) / (2 * changed))
    return float((binom.pmf(numbers, num, changed) * binom.sf(needed - 1, numbers, share_lost)).sum())


@cache
def _needed(changed: int, num: int, tolerance: float, alpha: float) -> int:
    """How many of the images that changed sides have to be lost for the test to reject; one more than they are if none does."""
    low, high = 0, changed + 1
    while low < high:
        middle = (low + high) // 2
        rejected = drop_p(middle, changed - middle, num, tolerance) <= alpha
        low, high = (low, middle) if rejected else (middle + 1, high)
    return low


def unpaired_test(before: tuple[int, int], after: tuple[int, int], *, tolerance: float, sureness: Sureness) -> Tested:
    """The drop between two accuracies on different images.

    Args:
        before: Right answers and images of the baseline.
        after: The same of the run.
        tolerance: Drop, a share, that is accepted.
        sureness: Level and power.

    Source: Agresti and Caffo 2000, "Simple and effective confidence intervals for proportions and differences of proportions": one right
        and one wrong answer more on each side, so that the variance of a perfect score is not 0.
    """
    (share_before, error_before), (share_after, error_after) = _padded(*before), _padded(*after)
    value = before[0] / before[1] - after[0] / after[1]
    return normal_test(value, math.hypot(error_before, error_after), tolerance, sureness, centre=share_before - share_after)


def _padded(hits: int, num: int) -> tuple[float, float]:
    share = (hits + 1) / (num + 2)
    return share, math.sqrt(share * (1 - share) / (num + 2))


def normal_test(value: float, error: float, tolerance: float, sureness: Sureness, *, centre: float | None = None) -> Tested:
    """A difference whose standard error is known.

    Args:
        value: How much worse.
        error: Standard error; at 0 the value is taken as certain.
        tolerance: How much is accepted.
        sureness: Level and power.
        centre: Where the test is centred, if not at the value.
    """
    at = value if centre is None else centre
    bound = at - NORMAL.inv_cdf(1 - sureness.alpha) * error
    p = 1 - NORMAL.cdf((at - tolerance) / error) if error else float(at <= tolerance)
    return Tested(value, bound, p, tolerance + sureness.quantiles * error)


def student_test(value: float, error: float, freedom: float, tolerance: float, sureness: Sureness) -> Tested:
    """A mean difference whose standard error was estimated.

    Args:
        value: Mean; how much worse.
        error: Its standard error; at 0 the value is taken as certain.
        freedom: Degrees of freedom of the error.
        tolerance: How much is accepted.
        sureness: Level and power.
    """
    from scipy.special import stdtr, stdtrit

    if not error:
        return normal_test(value, 0.0, tolerance, sureness)
    level, sure = (float(stdtrit(freedom, share)) for share in (1 - sureness.alpha, sureness.power))
    p = float(stdtr(freedom, -(value - tolerance) / error))
    return Tested(value, value - level * error, p, tolerance + (level + sure) * error)


def holm(p_values: dict[str, float]) -> dict[str, float]:
    """p of several tests, raised so that the chance of any false alarm among them stays at the level of one.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    adjusted, highest = {}, 0.0
    for place, (name, p) in enumerate(sorted(p_values.items(), key=lambda item: item[1])):
        highest = max(highest, min(1.0, p * (len(p_values) - place)))
        adjusted[name] = highest
    return adjusted
