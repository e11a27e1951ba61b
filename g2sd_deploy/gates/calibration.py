"""The calibration gate: expected calibration error, by the intervals of both sides."""

import math

from g2sd_deploy.gates.outcome import Gate, not_run, p_text
from g2sd_deploy.gates.robustness import error_of
from g2sd_deploy.gates.settings import EceGate
from g2sd_deploy.gates.snapshot import Model
from g2sd_deploy.gates.statistics import Sureness, normal_test


def ece_gates(name: str, before: Model, after: Model, settings: EceGate, sureness: Sureness) -> list[Gate]:
    """A gate for every set on which the baseline's or the run's model has an ECE.

    The two errors are taken as independent. On the same images they are not, and the difference is then known better than is assumed:
    the gate raises fewer false alarms than its level and finds less.

    Args:
        name: Of the model.
        before: As it is in the baseline.
        after: As it is in the run.
        settings: What is tolerated.
        sureness: Level and power.
    """
    sets = [scoring for scoring, figures in (before.sets | after.sets).items() if figures.ece is not None]
    return [_gate(name, scoring, before, after, settings, sureness) for scoring in sets]


def _gate(name: str, scoring: str, before: Model, after: Model, settings: EceGate, sureness: Sureness) -> Gate:
    subject, known, found = f"{name} {scoring}", before.sets.get(scoring), after.sets.get(scoring)
    if known is None or known.ece is None or found is None or found.ece is None:
        lacks = "baseline" if known is None or known.ece is None else "run"
        return not_run("ece", subject, f"the {lacks} has no ECE of {name} on {scoring}")
    if known.ece_interval is None or found.ece_interval is None:
        return not_run("ece", subject, "there is no interval, so no rise can be told from chance")
    error = math.hypot(error_of(known.ece_interval), error_of(found.ece_interval))
    tested = normal_test(found.ece - known.ece, error, settings.max_rise, sureness)
    failed = tested.p <= sureness.alpha
    low, high = found.ece_interval
    finds = f"a true rise of {tested.detectable:.4f} is found in {100 * sureness.power:g} of 100 checks"
    reason = (
        f"{known.ece:.4f} → {found.ece:.4f} (95 % interval {low:.4f} to {high:.4f}), rise {tested.value:+.4f}, "
        f"{settings.max_rise:g} tolerated, p {p_text(tested.p)}; {finds}"
    )
    figures = {"ece": found.ece, "ece_interval": [low, high], "baseline_ece": known.ece, "rise": tested.value, "p": tested.p}
    return Gate("ece", subject, "failed" if failed else "passed", reason, figures | {"detectable_rise": tested.detectable})
