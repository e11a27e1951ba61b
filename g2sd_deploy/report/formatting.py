"""Numbers as text, with the digits a reader can use. None is an en dash everywhere."""

import math
from collections.abc import Sequence
from datetime import UTC, datetime

MISSING = "–"
MIB = 1024 * 1024
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def percent(fraction: float | None, digits: int = 2) -> str:
    """0.8832 -> '88.32 %'; the fraction is in [0, 1]."""
    return MISSING if fraction is None else f"{100 * fraction:.{digits}f} %"


def points(difference: float, digits: int = 1) -> str:
    """A difference of two fractions in percentage points, always signed: 0.031 -> '+3.1'."""
    return f"{100 * difference:+.{digits}f}".replace("-", "−")


def count(value: int | None) -> str:
    """5000 -> '5,000'."""
    return MISSING if value is None else f"{value:,}"


def millions(value: int | None) -> str:
    """Parameters in millions with three significant digits: 555530 -> '0.556 M'."""
    return MISSING if value is None else f"{significant(value / 1e6)} M"


def significant(value: float | None, digits: int = 3) -> str:
    """Plain decimal notation with at least `digits` significant digits; no exponent, no lost integer digits."""
    if value is None:
        return MISSING
    if not math.isfinite(value):
        return str(value)
    if value == 0:
        return "0"
    exponent = int(f"{value:.{digits - 1}e}".partition("e")[2])  # after rounding: 9.999 is 10.0
    return f"{value:,.{min(max(digits - 1 - exponent, 0), 12)}f}"


def scientific(value: float | None) -> str:
    """Errors of any size: 3.34e-06 -> '3.34 × 10⁻⁶', 1e-3 -> '0.001', 0 -> '0'."""
    if value is None:
        return MISSING
    if value == 0 or not 0 < abs(value) < 1e-3:
        return f"{value:.3g}"
    mantissa, exponent = f"{value:.2e}".split("e")
    return f"{mantissa} × 10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def loss(value: float | None) -> str:
    """A loss with four significant digits."""
    return significant(value, 4)


def milliseconds(value: float | None) -> str:
    """1.9312 -> '1.93 ms'."""
    return MISSING if value is None else f"{significant(value)} ms"


def mib(value: float | None) -> str:
    """Mebibytes with three significant digits."""
    return MISSING if value is None else f"{significant(value)} MiB"


def times(value: float | None) -> str:
    """4.634 -> '4.6×'."""
    return MISSING if value is None else f"{value:.1f}×"


def duration(seconds: float | None) -> str:
    """12.34 -> '12.3 s', 130.2 -> '130 s', 750 -> '12 min 30 s', 7380 -> '2 h 3 min'."""
    if seconds is None:
        return MISSING
    if seconds < 600:
        return f"{seconds:.1f} s" if round(seconds, 1) < 100 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def short(digest: str) -> str:
    """The first 12 characters of a digest, enough to compare by eye."""
    return digest[:12] or MISSING


def moment(finished_at: str) -> str:
    """An ISO 8601 time as '2026-11-21 18:00 UTC'; anything else is returned as it came."""
    try:
        when = datetime.fromisoformat(finished_at)
    except ValueError:
        return finished_at
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when.tzinfo else f"{when:%Y-%m-%d %H:%M}"


def percent_range(ends: tuple[float, float], digits: int = 2) -> str:
    """The ends of an interval of fractions, in percent without the sign: (0.8857, 0.9027) -> '88.57–90.27'."""
    return f"{100 * ends[0]:.{digits}f}–{100 * ends[1]:.{digits}f}"


def number_range(ends: tuple[float, float]) -> str:
    """The ends of an interval, to three decimals or, where these say little, three digits: (0.2671, 0.2823) -> '0.267–0.282'."""
    return "–".join(f"{end:.3f}" if abs(end) >= 0.1 else significant(end) for end in ends)


def channels(values: Sequence[float]) -> str:
    """One number per channel, once where all are equal: (0.485, 0.456, 0.406) -> '.485 .456 .406', (0.5, 0.5, 0.5) -> '.5'."""
    shown = [f"{value:.3f}".rstrip("0").rstrip(".").replace("0.", ".", 1) if 0 < value < 1 else f"{value:.4g}" for value in values]
    return shown[0] if len(set(shown)) == 1 else " ".join(shown)


def shortened(text: str, most: int = 30) -> str:
    """Text that fits beside a chart; what is left out is an ellipsis."""
    return text if len(text) <= most else f"{text[: most - 1]}…"


def listed(names: Sequence[str]) -> str:
    """Names as a person lists them: 'a, b and c'."""
    return " and ".join(filter(None, (", ".join(names[:-1]), *names[-1:])))


def label(name: str) -> str:
    """'gaussian_noise' -> 'Gaussian noise'."""
    words = name.replace("_", " ")
    return words[:1].upper() + words[1:]
