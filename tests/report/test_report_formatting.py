"""Digits, units and the choices of the charts."""

import subprocess
import sys

import pytest

from g2sd_deploy.report import charts, formatting
from g2sd_deploy.report.summary import LossPoint


@pytest.mark.parametrize(
    ("shown", "wanted"),
    [
        (formatting.percent(0.88321), "88.32 %"),
        (formatting.percent(None), "–"),
        (formatting.points(0.0416), "+4.2"),
        (formatting.points(-0.016), "−1.6"),
        (formatting.count(5000), "5,000"),
        (formatting.millions(481_354), "0.481 M"),
        (formatting.millions(85_800_000), "85.8 M"),
        (formatting.significant(1063.2), "1,063"),
        (formatting.significant(0.0912), "0.0912"),
        (formatting.significant(0), "0"),
        (formatting.significant(9.999), "10.0"),
        (formatting.significant(float("nan")), "nan"),
        (formatting.scientific(3.34e-6), "3.34 × 10⁻⁶"),
        (formatting.scientific(1e-3), "0.001"),
        (formatting.scientific(0.0), "0"),
        (formatting.scientific(float("nan")), "nan"),
        (formatting.milliseconds(0.9131), "0.913 ms"),
        (formatting.times(4.429), "4.4×"),
        (formatting.duration(12.34), "12.3 s"),
        (formatting.duration(99.97), "100 s"),
        (formatting.duration(130.2), "130 s"),
        (formatting.duration(750), "12 min 30 s"),
        (formatting.duration(7380), "2 h 3 min"),
        (formatting.moment("2026-11-21T19:00:00+01:00"), "2026-11-21 18:00 UTC"),
        (formatting.moment("2026-11-21T18:00:00Z"), "2026-11-21 18:00 UTC"),
        (formatting.moment("yesterday"), "yesterday"),
        (formatting.label("gaussian_noise"), "Gaussian noise"),
    ],
)
def test_numbers_read_as_a_person_would_write_them(shown: str, wanted: str) -> None:
    assert shown == wanted


def test_a_long_history_is_thinned_and_loses_only_what_is_not_finite() -> None:
    history = [LossPoint(step, step / 100, float("inf") if step == 7 else 1.0, None) for step in range(10_000)]
    points = charts.drawable(history)
    assert 300 <= len(points) <= charts.MAX_DRAWN_POINTS and points[0].step == 0
    assert all(point.step != 7 for point in points)


def test_a_curve_that_spans_decades_gets_a_log_axis() -> None:
    assert charts.needs_log([0.9, 0.05])
    assert not charts.needs_log([2.3, 0.7])
    assert not charts.needs_log([2.3, 0.0])


def test_a_curve_of_one_step_is_drawn() -> None:
    assert "var(--baseline)" in charts.loss_curve("baseline", [LossPoint(1, 0.0, 2.3, None)])


def test_importing_the_report_loads_neither_matplotlib_nor_jinja2_nor_rich() -> None:
    code = "import sys, g2sd_deploy.report; sys.exit(','.join({'matplotlib', 'jinja2', 'rich', 'numpy', 'torch'} & set(sys.modules)) or 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
