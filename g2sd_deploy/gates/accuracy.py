"""The accuracy gate: a paired test on stored answers where the images are the same, else one of two proportions, which sees less."""

from dataclasses import dataclass

from g2sd_deploy.gates.outcome import Gate, not_run, p_text, percent, points
from g2sd_deploy.gates.packing import unpacked
from g2sd_deploy.gates.settings import AccuracyGate
from g2sd_deploy.gates.snapshot import Answers, Model, SetFigures, Snapshot
from g2sd_deploy.gates.statistics import Sureness, Tested, paired_test, unpaired_test

CLEAN = "clean"


@dataclass(frozen=True)
class Counts:
    """What became of the answers of a baseline's model.

    Attributes:
        num_images: Images that both answered.
        lost: Right in the baseline and wrong in the run.
        gained: The other way round.
        note: How the counts were found, if not by looking at both models' answers.
    """

    num_images: int
    lost: int
    gained: int
    note: str = ""

    def __add__(self, other: "Counts") -> "Counts":
        """Counts after another change of answers: the balance is exact, and at most so many images changed sides."""
        return Counts(self.num_images, self.lost + other.lost, self.gained + other.gained, self.note or other.note)


def accuracy_gates(name: str, before: Snapshot, after: Snapshot, settings: AccuracyGate, sureness: Sureness) -> list[Gate]:
    """A gate for every set that the baseline's or the run's model was scored on.

    Args:
        name: The model.
        before: The baseline.
        after: The run.
        settings: What is tolerated.
        sureness: Level and power.
    """
    known, found = before.models.get(name, Model()), after.models.get(name, Model())
    sets = known.sets | found.sets
    if not sets:
        return []
    return [_gate(name, scoring, before, after, settings, sureness) for scoring in sets]


def _gate(name: str, scoring: str, before: Snapshot, after: Snapshot, settings: AccuracyGate, sureness: Sureness) -> Gate:
    subject = f"{name} {scoring}"
    known, found = (one.models.get(name, Model()).sets.get(scoring) for one in (before, after))
    if known is None or found is None:
        return not_run("accuracy", subject, f"the {'baseline' if known is None else 'run'} has no accuracy of {name} on {scoring}")
    counts = changed_answers(name, scoring, before, after)
    tolerance = settings.max_drop_points / 100
    if isinstance(counts, Counts):
        tested = paired_test(counts.lost, counts.gained, counts.num_images, tolerance=tolerance, sureness=sureness)
        how = f"{counts.lost} lost and {counts.gained} gained of {counts.num_images:,} images{counts.note}"
    else:
        tested = unpaired_test(_hits(known), _hits(found), tolerance=tolerance, sureness=sureness)
        how = f"not paired ({counts}), {known.num_images:,} and {found.num_images:,} images"
    failed = tested.p <= sureness.alpha
    said = drop_in_words(tested, failed, settings.max_drop_points)
    reason = f"{percent(known.top1)} → {percent(found.top1)}, {said}; {how}; {found_surely(tested, sureness)}"
    paired = isinstance(counts, Counts)
    shares = {"top1": found.top1, "baseline_top1": known.top1, "top1_interval": found.top1_interval}
    figures = shares | figures_of(tested) | {"num_images": found.num_images, "paired": paired}
    if isinstance(counts, Counts):
        figures |= {"lost": counts.lost, "gained": counts.gained}
    caveat = "" if failed else too_sure(tested, tolerance, settings.must_find_points / 100)
    return Gate("accuracy", subject, "failed" if failed else "passed", reason, figures, caveat)


def drop_in_words(tested: Tested, failed: bool, tolerated: float) -> str:
    """The change, what is tolerated of it and how sure it is.

    Args:
        tested: What the sample showed.
        failed: Whether the gate fails.
        tolerated: Drop that is accepted, in points.
    """
    change = f"{points(abs(tested.value))} points {'lost' if tested.value > 0 else 'gained'}" if tested.value else "no change"
    against = f", {tolerated:g} tolerated" if tolerated else ""
    bound = f", at least {points(tested.bound)} points for sure" if failed else ""
    return f"{change}{against}, p {p_text(tested.p)}{bound}"


def found_surely(tested: Tested, sureness: Sureness) -> str:
    """The smallest drop that such a sample shows, in words."""
    return f"a true drop of {points(tested.detectable)} points is found in {100 * sureness.power:g} of 100 checks"


def too_sure(tested: Tested, tolerance: float, must_find: float) -> str:
    """What a gate asks for that its sample cannot give; empty where it can.

    Args:
        tested: What the sample showed.
        tolerance: Drop that is accepted.
        must_find: Drop that has to be found.
    """
    margin = tested.detectable - tolerance
    if tested.detectable > must_find:
        return f"more certainty is asked for than the sample gives, for drops of {points(must_find)} points are to be found"
    if 0 < tolerance < margin:
        return f"the tolerance of {points(tolerance)} points is finer than the sample, which tells drops {points(margin)} points apart"
    return ""


def figures_of(tested: Tested) -> dict[str, float]:
    """A test for programs."""
    return {
        "drop_points": 100 * tested.value,
        "drop_at_least_points": 100 * tested.bound,
        "p": tested.p,
        "detectable_points": 100 * tested.detectable,
    }


def _hits(figures: SetFigures) -> tuple[int, int]:
    return round(figures.top1 * figures.num_images), figures.num_images


def changed_answers(name: str, scoring: str, before: Snapshot, after: Snapshot) -> Counts | str:
    """Images that changed sides between two models of one name; why they cannot be counted where they cannot.

    The exported file's answers are not stored. Its export counted what it lost and gained against the student on the same images, so its
    balance against the baseline's file is exact, and the number of images that changed sides is known from above.

    Args:
        name: The model.
        scoring: The set.
        before: The baseline.
        after: The run.
    """
    known, found = before.models[name], after.models[name]
    if known.changes is None or found.changes is None:
        return _compared(_answers(known, scoring), _answers(found, scoring))
    of = found.changes.of
    if scoring != CLEAN or of != known.changes.of or of not in before.models or of not in after.models:
        return "no answers are stored"
    counts = _compared(_answers(before.models[of], scoring), _answers(after.models[of], scoring))
    if isinstance(counts, str):
        return counts
    if not known.changes.num_images == found.changes.num_images == counts.num_images:
        return f"the file was not proven on all of the images that {of} answered"
    undone = Counts(counts.num_images, known.changes.gained, known.changes.lost)
    done = Counts(counts.num_images, found.changes.lost, found.changes.gained)
    exact = not (undone.lost + undone.gained + done.lost + done.gained)
    note = f", as {of}" if exact else f" at most, by way of {of}"
    return Counts(counts.num_images, counts.lost, counts.gained, note) + undone + done


def _answers(model: Model, scoring: str) -> Answers | None:
    return next((one for one in model.answers if one.set == scoring and not one.variant), None)


def _compared(before: Answers | None, after: Answers | None) -> Counts | str:
    if before is None or after is None:
        return "no answers are stored"
    if before.images != after.images:
        return "the images are not the same"
    was, now = unpacked(before), unpacked(after)
    return Counts(before.num_images, int((was & ~now).sum()), int((now & ~was).sum()))
