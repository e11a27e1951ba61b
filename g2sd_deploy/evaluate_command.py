"""The work of `g2sd evaluate`: models and sets that a person names, scored side by side."""

import re
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy import __version__, environment
from g2sd_deploy.artifact import Artifact, Identity, Made, commit, read_artifact, unfinished_folder
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.settings import EvaluateSettings

if TYPE_CHECKING:
    from g2sd_deploy.data.testsets import TestSet
    from g2sd_deploy.evaluation.evaluating import Evaluator
    from g2sd_deploy.evaluation.representation import Network
    from g2sd_deploy.predictors import AskedPreprocessing, Predictor
    from g2sd_deploy.progress import Progress
    from g2sd_deploy.runtime import Runtime

_NAMED = re.compile(r"(?P<name>[A-Za-z0-9][A-Za-z0-9_.-]*)=(?P<model>.+)")
_UNFIT = re.compile(r"[^A-Za-z0-9_.-]+")
STAGE = "evaluate"


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        models: `MODEL` or `NAME=MODEL`.
        sets: `NAME`, `NAME=PLACE` or a place.
        settings: Corruptions, occlusion, similarity, and the size of a batch.
        split: Of a place that has splits.
        class_map: File that tells what a set's classes are called by the models.
        restrict: Cut the logits to a set's classes.
        as_stored: Crop images, and do not resize them.
        max_images: Most images of a set.
        teacher: The model that the others are compared with: one of the names, or another model.
        preprocessing: Stated by the person; has to agree with what a model says itself.
        out: Folder for the artifact and the report.
        save_predictions: Keep every answer in `out`.
        seed: Of corruptions, occlusion and resampled intervals.
    """

    models: tuple[str, ...]
    sets: tuple[str, ...]
    settings: EvaluateSettings
    split: str = "test"
    class_map: Path | None = None
    restrict: bool = False
    as_stored: bool = False
    max_images: int | None = None
    teacher: str | None = None
    preprocessing: "AskedPreprocessing | None" = None
    out: Path | None = None
    save_predictions: bool = False
    seed: int = 0


def named_models(models: Sequence[str]) -> dict[str, str]:
    """A short name for each model: the one that is given, or the end of its path.

    Raises:
        UserError: Two models are given one name.
    """
    found: dict[str, str] = {}
    for text in models:
        given = _NAMED.fullmatch(text) if not Path(text).exists() else None
        name, model = (given["name"], given["model"]) if given else (_short(text), text)
        if name in found and given is None:
            name = _UNFIT.sub("-", text).strip("-")
        if name in found:
            raise UserError(f"{text}: there are two models of the name {name}; give one as NAME=MODEL")
        found[name] = model
    return found


def _short(model: str) -> str:
    last = Path(model.partition("@")[0].removeprefix("timm:")).name
    return _UNFIT.sub("-", last).strip("-") or "model"


def evaluate(request: Request, runtime: "Runtime", progress: "Progress") -> dict[str, Any]:
    """Open models and sets, run what is asked for, and keep it in `out` where one is given.

    Returns:
        Figures as in the artifact's metrics.

    Raises:
        UserError: A model or a set cannot be opened, or they do not fit together.
        RunFailed: An image or a model's answer cannot be used.
    """
    try:
        _check(request)
        work = _open(request, runtime, progress)
        work.check()
        return work.run(None) if request.out is None else _kept(work, request.out)
    except (UserError, RunFailed) as error:
        raise error if hasattr(error, "told") else runtime.ranks.told_once(error) from None


def _open(request: Request, runtime: "Runtime", progress: "Progress") -> "_Work":
    from g2sd_deploy.data.testsets import Options, open_all
    from g2sd_deploy.data.testsets.catalogue import data_folder
    from g2sd_deploy.predictors import open_predictor
    from g2sd_deploy.zoo.places import places

    names, teacher = _with_teacher(named_models(request.models), request.teacher)
    options = Options(request.split, request.class_map, request.restrict, request.max_images, request.as_stored)
    tests = open_all(request.sets, options=options, home=data_folder(places()))
    predictors = {name: open_predictor(model, runtime.device, request.preprocessing) for name, model in names.items()}
    return _Work(request, runtime, progress, predictors, teacher, tests)


@dataclass(frozen=True)
class _Work:
    """Everything opened."""

    request: Request
    runtime: "Runtime"
    progress: "Progress"
    predictors: "dict[str, Predictor]"
    teacher: str | None
    tests: "list[TestSet]"

    def check(self) -> None:
        """Refuse models and sets that do not fit together before anything is computed."""
        from g2sd_deploy.data.testsets import LabelSpace

        for predictor in self.predictors.values():
            space = LabelSpace.of(predictor.class_names, predictor.num_classes)
            for test in self.tests:
                for scoring in test.scorings:
                    scoring.aligned(space)
        settings = self.request.settings
        if self.tests[0].corruption is not None and (settings.corruptions or settings.occlusion or settings.similarity):
            raise UserError(
                f"--on {self.request.sets[0]}: its images are corrupted; give clean ones for corruptions, occlusion and similarity"
            )
        if settings.similarity is not None:
            self._networks()

    def run(self, folder: Path | None) -> dict[str, Any]:
        """Compute all figures; predictions go to the folder, where one is given."""
        from g2sd_deploy.evaluation.predictions import PredictionWriter

        self.progress.begin(STAGE)
        try:
            with ExitStack() as stack:
                keeps = folder is not None and self.request.save_predictions
                writer = stack.enter_context(PredictionWriter(folder, tuple(self.predictors))) if keeps and folder else None
                metrics = self._metrics(self._evaluator(writer))
        except BaseException:
            self.progress.abort()
            raise
        self.progress.end()
        return metrics

    def _metrics(self, evaluator: "Evaluator") -> dict[str, Any]:
        settings = self.request.settings
        scored = evaluator.score(self.tests)
        models = evaluator.described()
        for name, sets in scored.models.items():
            models[name] |= {"model": self.predictors[name].name, "sets": sets}
        metrics: dict[str, Any] = {"models": models, "sets": scored.about}
        metrics |= {"teacher": self.teacher} if self.teacher is not None else {}
        metrics |= evaluator.stressed(self.tests[0], settings, models)
        metrics |= {"similarity": self._similarity()} if settings.similarity is not None else {}
        return metrics

    def _evaluator(self, writer: Any) -> "Evaluator":
        from g2sd_deploy.evaluation.evaluating import Evaluator
        from g2sd_deploy.evaluation.running import GPU_BATCH
        from g2sd_deploy.predictors import competitor_of, teacher_of

        on_cpu, settings = self.runtime.device.type == "cpu", self.request.settings
        teacher = None if self.teacher is None else teacher_of(self.teacher, self.predictors[self.teacher], self.runtime.device)
        return Evaluator(
            {name: competitor_of(one, threads=1 if on_cpu else None) for name, one in self.predictors.items()},
            seed=self.request.seed,
            batch_size=settings.batch_size or (None if on_cpu else GPU_BATCH),
            workers=self.runtime.num_threads,
            tick=self.progress.update,
            teacher=teacher,
            max_bad=settings.max_bad_images,
            ranks=self.runtime.ranks,
            writer=writer,
        )

    def _similarity(self) -> dict[str, Any]:
        from g2sd_deploy.evaluation.representation import Comparison, compare_layers

        settings, networks = self.request.settings.similarity, self._networks()
        assert settings is not None
        return compare_layers(
            networks,
            [Comparison(0, place, "") for place in range(1, len(networks))],
            self.tests[0].samples,
            settings=settings,
            device=self.runtime.device,
            tick=lambda done, total: self.progress.update(done, total, "similarity"),
        )

    def _networks(self) -> "list[Network]":
        """The teacher, then the others."""
        from g2sd_deploy.evaluation.layers import layer_reader
        from g2sd_deploy.evaluation.representation import Network

        assert self.teacher is not None
        networks = []
        for name in (self.teacher, *(name for name in self.predictors if name != self.teacher)):
            predictor = self.predictors[name]
            if predictor.module is None:
                raise UserError(f"{predictor.name}: --similarity looks at layers, and only weights on torch show them; leave it out")
            networks.append(Network(name, "", layer_reader(predictor.module()).to(self.runtime.device), predictor.preprocessing))
        return networks


def _check(request: Request) -> None:
    """Refuse options that would be without effect."""
    settings = request.settings
    if request.save_predictions and request.out is None:
        raise UserError("--save-predictions: needs a folder to keep them in; add --out FOLDER")
    if settings.similarity is not None and request.teacher is None:
        raise UserError("--similarity: compares layers with those of a teacher; add --teacher MODEL")
    for option, asked in (("corruptions", settings.corruptions), ("occlusion", settings.occlusion), ("similarity", settings.similarity)):
        if asked is not None and len(request.sets) > 1:
            raise UserError(f"--{option}: looks at one set, and {len(request.sets)} are given; give one --on")


def _with_teacher(names: dict[str, str], teacher: str | None) -> tuple[dict[str, str], str | None]:
    """The teacher by its name; where it is none of the models, it takes part as another one, in front."""
    if teacher is None:
        return names, None
    for name, model in names.items():
        if teacher in (name, model):
            return names, name
    ((name, model),) = named_models([teacher]).items()
    if name in names:
        raise UserError(f"--teacher {teacher}: another model has the name {name}; give it as NAME=MODEL")
    return {name: model, **names}, name


def _kept(work: _Work, out: Path) -> dict[str, Any]:
    """The figures of an artifact at `out`: those that are there, where they are of the same models, sets and options, else new ones."""
    identity = _identity(work)
    ranks = work.runtime.ranks
    there = ranks.from_main(lambda: _there(out, identity))
    if there is not None:
        work.progress.tell(f"{out}: is up to date; nothing was run")
        return there.metrics
    start = time.monotonic()
    try:
        with unfinished_folder(out, ranks.rank) as folder:
            metrics = work.run(folder)
            if ranks.is_main:
                _commit(folder, out, identity, metrics, time.monotonic() - start)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give a folder you may write to") from None
    return metrics


def _commit(folder: Path, out: Path, identity: Identity, metrics: dict[str, Any], seconds: float) -> None:
    from g2sd_deploy.report import render_evaluation

    rendered = render_evaluation(metrics, out.name)
    (folder / "report.html").write_text(rendered.html, encoding="utf-8")
    (folder / "report.md").write_text(rendered.markdown, encoding="utf-8")
    commit(folder, out, identity, Made(metrics), tools=environment.tool_versions(), environment=environment.machine(), seconds=seconds)


def _there(out: Path, identity: Identity) -> Artifact | None:
    """The artifact at `out`, if it is the one that would be made.

    Raises:
        UserError: Something else is there.
    """
    found = read_artifact(out) if out.is_dir() else None
    if found is not None and found.key == identity.key:
        found.verify()
        return found
    if out.exists() and not (found is not None and found.stage == STAGE) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is no evaluation; give a new folder")
    return None


def _identity(work: _Work) -> Identity:
    """What the figures are a function of."""
    request = work.request
    config = {
        "settings": request.settings.model_dump(mode="json"),
        "sets": list(request.sets),
        "split": request.split,
        "class_map": request.class_map.read_text(encoding="utf-8") if request.class_map else None,
        "restrict": request.restrict,
        "as_stored": request.as_stored,
        "max_images": request.max_images,
        "teacher": work.teacher,
        "save_predictions": request.save_predictions,
        "seed": request.seed,
        "preprocessing": {name: one.preprocessing.to_dict() for name, one in work.predictors.items()},
    }
    parents = {f"model {name}": one.digest for name, one in work.predictors.items()}
    parents |= {f"set {test.name}": test.fingerprint for test in work.tests}
    return Identity(STAGE, config, parents, __version__)
