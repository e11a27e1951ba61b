"""Several models on several sets of images: runs the passes and turns what they find into figures."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from g2sd_deploy.data.corruptions import corruption_note
from g2sd_deploy.data.images import Skipped, picks_of
from g2sd_deploy.data.testsets import LabelSpace, Scoring, TestSet
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.evaluation.metrics import full_scores
from g2sd_deploy.evaluation.occlusion import Order
from g2sd_deploy.evaluation.outcomes import Outcomes, concatenate
from g2sd_deploy.evaluation.predictions import PredictionWriter
from g2sd_deploy.evaluation.running import Case, Pass, Passed, Salience, run_pass
from g2sd_deploy.evaluation.tallies import CorruptionTallies, Tally
from g2sd_deploy.evaluation.variants import Clean, Corrupted, Occluded, Variant
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.settings import CorruptionSettings, EvaluateSettings, OcclusionSettings
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Runner, describe

Tick = Callable[[int, int, str], None]
_BYTES_PER_MIB = 2**20
_MOST_SKIPPED = 20
_PATCH_PX, _FEWEST_PATCHES = 16, 4
_CLEAN_OF_IMAGENET_C = "imagenet-val"


@dataclass(frozen=True)
class Competitor:
    """A model that takes part.

    Attributes:
        runner: Its predictions; safe to be called by several threads.
        space: What its logits mean.
        num_parameters: Weights in it; None where its file does not tell.
        model_bytes: Size of the file that holds it.
        digest: SHA-256 of what it was opened from.
    """

    runner: Runner
    space: LabelSpace
    num_parameters: int | None
    model_bytes: int
    digest: str

    def described(self) -> dict[str, Any]:
        """What stands beside every figure of the model."""
        return {
            "num_parameters": self.num_parameters,
            "model_mib": self.model_bytes / _BYTES_PER_MIB,
            "runtime": describe(self.runner),
            "preprocessing": self.runner.preprocessing.to_dict(),
            "digest": self.digest,
        }


@dataclass(frozen=True)
class Teacher:
    """The model that the others are compared with.

    Attributes:
        name: Its name among the competitors.
        salience: How important the patches of an image are to it; None where its file does not let one look inside.
        fit: The preprocessing of the images that `salience` takes.
        grid: Patches along one side of an image.
    """

    name: str
    salience: Salience | None = None
    fit: Preprocessing | None = None
    grid: int | None = None


@dataclass(frozen=True)
class Scored:
    """Figures by scoring: of each model, and of the images."""

    models: dict[str, dict[str, dict[str, Any]]]
    about: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluator:
    """What all passes of an evaluation share.

    Attributes:
        competitors: The models by name.
        seed: Of corruptions, of the order in which patches are removed, and of resampled intervals.
        batch_size: Images of a forward pass; None chooses.
        workers: Threads; they change no figure.
        tick: Told (done, total, note), in images.
        teacher: Whom the others are compared with.
        max_bad: Images of a set that may be unusable.
        ranks: The processes that share the work.
        writer: Where every answer is kept.
    """

    competitors: Mapping[str, Competitor]
    seed: int
    batch_size: int | None
    workers: int
    tick: Tick
    teacher: Teacher | None = None
    max_bad: int = 0
    ranks: Ranks = field(default_factory=Ranks)
    writer: PredictionWriter | None = None

    def described(self) -> dict[str, dict[str, Any]]:
        """The models, without figures."""
        return {name: competitor.described() for name, competitor in self.competitors.items()}

    def score(self, tests: Sequence[TestSet]) -> Scored:
        """Full scores of every model on the clean images of some sets; the folders of ImageNet-C are summed up as one.

        Raises:
            UserError: A set has classes that a model lacks, or lies where it cannot be read.
            RunFailed: Too many images are unusable, or a model's logits are no numbers.
        """
        scored = Scored({name: {} for name in self.competitors})
        spaces = [competitor.space for competitor in self.competitors.values()]
        for test in (test for test in tests if test.corruption is None):
            self._score_clean(test.without_repeats(spaces), scored)
        if stored := [test for test in tests if test.corruption is not None]:
            self._score_stored(stored, scored)
        return scored

    def corrupted(self, test: TestSet, asked: CorruptionSettings) -> dict[str, dict[str, Any]]:
        """Each model's brief scores under regenerated corruptions, and their mean, of the set's first scoring."""
        cases = [(name, severity) for name in asked.names for severity in asked.severities]
        variants = {Corrupted(*case, self.seed).name: case for case in cases}
        tallies = {model: CorruptionTallies(cases, alexnet=False) for model in self.competitors}
        for chunk in self._chunks(test, [Corrupted(*case, self.seed) for case in cases], asked.max_images, note="corrupted"):
            for found, outcomes in chunk.outcomes.items():
                tallies[found.model].add(variants[found.variant], outcomes, chunk.index[found.scoring].tolist())
        scores = {}
        for model, tally in tallies.items():
            mean, interval = tally.mean_top1()
            scores[model] = {"corruptions": tally.corruptions(), "mean_corruption_top1": mean, "mean_corruption_interval": interval}
        return scores

    def occluded(self, test: TestSet, asked: OcclusionSettings) -> tuple[dict[str, dict[str, Any]], dict[str, Any]]:
        """Each model's accuracy by order and share of removed patches, of the set's first scoring, and what is common to all.

        Without a teacher that one can look into, patches are removed at random only.
        """
        grid = self._grid()
        salient: tuple[Order, ...] = ("salient_first", "salient_last") if self.teacher and self.teacher.salience else ()
        orders: tuple[Order, ...] = ("random", *salient)
        variants = [Occluded(order, share, grid, self.seed) for order in orders for share in asked.shares]
        tallies = {model: {variant.name: Tally() for variant in variants} for model in self.competitors}
        for chunk in self._chunks(test, variants, asked.max_images, note="occluded"):
            for found, outcomes in chunk.outcomes.items():
                tallies[found.model][found.variant].add(outcomes)
        curves: dict[str, dict[str, Any]] = {
            model: {str(order): _curve([of[Occluded(order, share, grid, self.seed).name] for share in asked.shares]) for order in orders}
            for model, of in tallies.items()
        }
        num_images = next(iter(next(iter(tallies.values())).values())).num
        salience = self.teacher.name if salient and self.teacher else None
        shared = {"grid": grid, "num_images": num_images, "seed": self.seed, "salience": salience, "fill": "mean colour of the model"}
        return curves, {"shares": list(asked.shares), **shared}

    def stressed(self, test: TestSet, settings: EvaluateSettings, models: dict[str, dict[str, Any]]) -> dict[str, Any]:
        """Add what is asked for of corruptions and occlusion to the models' figures; returns what is common to all models."""
        common: dict[str, Any] = {}
        if settings.corruptions is not None:
            for name, scores in self.corrupted(test, settings.corruptions).items():
                models[name] |= scores
            image_px = next(iter(self.competitors.values())).runner.preprocessing.image_px
            common["num_corruption_images"] = min(settings.corruptions.max_images, len(test.samples))
            common["corruption_note"] = corruption_note(image_px)
        if settings.occlusion is not None:
            curves, common["occlusion"] = self.occluded(test, settings.occlusion)
            for name, curve in curves.items():
                models[name]["occlusion"] = curve
        return common

    def _grid(self) -> int:
        """The teacher's patches; where nothing tells them, patches of about 16 px that cut every model's input evenly, at least 4 x 4."""
        if self.teacher is not None and self.teacher.grid is not None:
            return self.teacher.grid
        sides = [competitor.runner.preprocessing.image_px for competitor in self.competitors.values()]
        side = math.gcd(*sides)
        return max(grid for grid in range(1, max(_FEWEST_PATCHES, max(sides) // _PATCH_PX) + 1) if side % grid == 0)

    def _score_clean(self, test: TestSet, scored: Scored) -> None:
        parts: dict[Case, list[Outcomes]] = {}
        skipped: list[Skipped] = []
        for chunk in self._chunks(test, [Clean()]):
            skipped += chunk.skipped
            for case, outcomes in chunk.outcomes.items():
                parts.setdefault(case, []).append(outcomes)
        for scoring in test.scorings:
            num = 0
            for name, competitor in self.competitors.items():
                outcomes = concatenate(parts.pop(Case(scoring.name, "", name)))
                num = len(outcomes)
                num_classes = scoring.aligned(competitor.space).num_classes
                scored.models[name][scoring.name] = full_scores(outcomes, num_classes=num_classes, seed=self.seed)
            scored.about[scoring.name] = self._about(scoring, num, skipped)

    def _score_stored(self, tests: Sequence[TestSet], scored: Scored) -> None:
        """The corruptions that ImageNet-C stores, one folder after the other."""
        cases = [test.corruption for test in tests if test.corruption is not None]
        tallies = {model: CorruptionTallies(cases, alexnet=True) for model in self.competitors}
        skipped: list[Skipped] = []
        for test, case in zip(tests, cases, strict=True):
            for chunk in self._chunks(test, [Clean()], variant="{}/{}".format(*case)):
                skipped += chunk.skipped
                for found, outcomes in chunk.outcomes.items():
                    tallies[found.model].add(case, outcomes, chunk.index[found.scoring].tolist())
        scoring = tests[0].scorings[0]
        for name, tally in tallies.items():
            clean = scored.models[name].get(_CLEAN_OF_IMAGENET_C)
            summary = tally.summary(None if clean is None else 1 - clean["top1"])
            scored.models[name][scoring.name] = summary | {"corruptions": tally.corruptions()}
        scored.about[scoring.name] = self._about(scoring, len(tests[0].samples), skipped)

    def _chunks(
        self, test: TestSet, variants: Sequence[Variant], max_images: int | None = None, *, note: str = "", variant: str = ""
    ) -> Iterator[Passed]:
        """A pass over a set; every answer is written down on the way.

        Args:
            test: The set.
            variants: What is done to its images; of other variants than clean, the first scoring alone.
            max_images: Images to look at, spread evenly.
            note: For the progress.
            variant: What the whole set is a variant of, as it is written down.

        Raises:
            RunFailed: As `run_pass`, or nothing is left to be scored.
        """
        titled = f"{test.name}, {note}" if note else test.name
        asked = self._pass(test, variants, max_images)
        num = dict.fromkeys(asked.views, 0)
        for chunk in run_pass(asked, workers=self.workers, tick=lambda done, total: self.tick(done, total, titled), ranks=self.ranks):
            if self.writer is not None:
                self.writer.add(chunk, test.samples, variant=variant)
            for scoring, index in chunk.index.items():
                num[scoring] += len(index)
            yield chunk
        if empty := next((scoring for scoring, scored in num.items() if not scored), None):
            raise self.ranks.told_once(RunFailed(f"{empty}: none of the {len(test.samples)} images can be scored"))

    def _pass(self, test: TestSet, variants: Sequence[Variant], max_images: int | None) -> Pass:
        scorings = test.scorings if max_images is None else test.scorings[:1]
        views = {
            scoring.name: {name: scoring.aligned(competitor.space) for name, competitor in self.competitors.items()} for scoring in scorings
        }
        teacher = self.teacher
        looks = teacher is not None and any(isinstance(variant, Occluded) and variant.order != "random" for variant in variants)
        return Pass(
            test.samples,
            {name: competitor.runner for name, competitor in self.competitors.items()},
            views,
            picks=picks_of(len(test.samples), max_images),
            as_stored=test.as_stored,
            variants=variants,
            teacher=teacher.name if teacher else None,
            salience=teacher.salience if teacher and looks else None,
            salience_fit=teacher.fit if teacher and looks else None,
            batch_size=self.batch_size,
            max_bad=self.max_bad,
        )

    def _about(self, scoring: Scoring, num_images: int, skipped: Sequence[Skipped]) -> dict[str, Any]:
        """What stands beside the scores; what was taken for granted of a model, too."""
        taken = {name: scoring.aligned(competitor.space).note for name, competitor in self.competitors.items()}
        notes = [scoring.note, *(f"{name}: {note}" for name, note in taken.items() if note)]
        return {
            "note": "; ".join(notes),
            "num_images": num_images,
            "num_classes": len(scoring.class_names),
            "class_names": list(scoring.class_names),
            "num_skipped": len(skipped),
            "skipped": [{"name": bad.name, "reason": bad.reason} for bad in skipped[:_MOST_SKIPPED]],
        }


def _curve(tallies: Sequence[Tally]) -> dict[str, list[Any]]:
    """Accuracy at each share, and relative to that of whole images."""
    top1 = [tally.hits / tally.num for tally in tallies]
    return {
        "top1": top1,
        "interval": [tally.top1_interval() for tally in tallies],
        "relative": [value / top1[0] if top1[0] else None for value in top1],
    }
