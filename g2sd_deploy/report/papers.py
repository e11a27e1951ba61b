"""What the paper behind a recipe states, to be shown beside what a run reached."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

from g2sd_deploy.report.summary import RunSummary

IMAGENET_VAL = "imagenet-val"
NUM_IMAGENET_CLASSES = 1000
_NUM_PAPER_CLASSES = {"segmentation": 150, "detection": 80}  # ADE20K's challenge, COCO's objects


@dataclass(frozen=True)
class PaperRow:
    """One row of a paper's tables.

    Attributes:
        row: How the source names the row.
        source: Where it was read, in words.
        values: Fraction by model ("student", "teacher") and by way to score: top-1, but for imagenet-c the source's error; of a task
            by measure.
    """

    row: str
    source: str
    values: Mapping[str, Mapping[str, float]]

    def value(self, model: str, scoring: str) -> float | None:
        """What the source states for a model, None where it states nothing."""
        return self.values.get(model, {}).get(scoring)

    def states(self, scoring: str) -> bool:
        """Does the source state anything for this way to score?"""
        return any(scoring in stated for stated in self.values.values())


def paper_row(run: RunSummary) -> PaperRow | None:
    """The row that a run's recipe is to reproduce: one of ours by its name, with a student of the paper's shape.

    Args:
        run: The run; a recipe under the same name that trains a student of another width or depth has no row.
    """
    stated = _stated().get(run.recipe)
    shape = run.resolved.get("student")
    if stated is None or not isinstance(shape, Mapping):
        return None
    row, wanted = stated
    return row if all(shape.get(key) == size for key, size in wanted.items()) else None


def is_imagenet(run: RunSummary) -> bool:
    """May the run's own test set stand beside numbers of ImageNet's validation images?"""
    return run.data is not None and run.data.num_classes == NUM_IMAGENET_CLASSES


def task_row(run: RunSummary) -> PaperRow | None:
    """The paper's row of a run with a task, where its data has the classes of the paper's set; else None."""
    fits = run.task is not None and run.data is not None and run.data.num_classes == _NUM_PAPER_CLASSES[run.task]
    return paper_row(run) if fits else None


def paper_words(paper: PaperRow) -> str:
    """What the paper's numbers are and where they stand."""
    return (
        f"Paper: what {paper.source} states in the row {paper.row}; its images, training and teacher may differ from these in ways "
        "that it does not state."
    )


@cache
def _stated() -> Mapping[str, tuple[PaperRow, Mapping[str, int]]]:
    from ruamel.yaml import YAML

    written = YAML(typ="safe").load(files(__package__).joinpath("papers.yaml").read_text(encoding="utf-8"))
    return {
        name: (PaperRow(entry["row"], written["sources"][entry["source"]], _fractions(entry)), entry["shape"])
        for name, entry in written["recipes"].items()
    }


def _fractions(entry: Mapping[str, Mapping[str, float]]) -> Mapping[str, Mapping[str, float]]:
    return {
        model: {scoring: percent / 100 for scoring, percent in entry[model].items()} for model in ("student", "teacher") if model in entry
    }
