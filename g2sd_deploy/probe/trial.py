"""The trial: run a shortened recipe in a folder of its own, and read off what its stages took."""

import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from g2sd_deploy import pipeline, planning
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.environment import machine
from g2sd_deploy.errors import Stopped, UserError
from g2sd_deploy.planning import Step
from g2sd_deploy.probe import estimates
from g2sd_deploy.probe.estimates import Estimate
from g2sd_deploy.probe.sizing import (
    MIN_STEPS,
    PROFILE_SECONDS,
    Extent,
    decoded_bytes,
    evaluation_factors,
    export_factor,
    extent_of,
    training_of,
    trial_recipe,
)
from g2sd_deploy.probe.watching import Watch, Watched
from g2sd_deploy.progress import Progress
from g2sd_deploy.runtime import CheckpointEvery, Runtime, Trial
from g2sd_deploy.settings import EvaluateSettings, QuantiseSettings, Recipe, TrainSettings

_ROOM_BYTES = 2 << 30
"""Beside its images a trial writes a few networks."""


@dataclass(frozen=True)
class Probe:
    """What a run will take.

    Attributes:
        estimates: One for each stage.
        device: What computes: `cpu` or `cuda`.
        device_name: As people call it.
        processes: How many processes.
        seconds: What the trial took.
        free_bytes: Free room where the run will be written.
    """

    estimates: list[Estimate]
    device: str
    device_name: str
    processes: int
    seconds: float
    free_bytes: int


def probe(
    recipe: Recipe,
    run_folder: Path,
    *,
    runtime: Runtime,
    progress: Progress,
    minutes: float,
    until: str | None = None,
    force: str | None = None,
) -> Probe:
    """Begin every stage that a run would do, and tell what all of it would take.

    With several processes all of them take part, and all are told. Nothing is written into the run's folder.

    Args:
        minutes: Time for the steps of all trainings together; shared evenly among them.

    Raises:
        UserError, RunFailed: What `pipeline.run` raises: it is the same work.
        Stopped: A signal asked the trial to end.
    """
    start = time.perf_counter()
    ranks = runtime.ranks
    steps: list[Step] = ranks.from_main(lambda: planning.plan(recipe, run_folder, until=until, force=force))
    running = [step.stage.name for step in steps if step.runs]
    nearest = next(folder for folder in run_folder.absolute().parents if folder.is_dir())
    found: list[Estimate] = []
    if running:
        extent = ranks.from_main(lambda: _counted(recipe))
        with _trial_folder(runtime, nearest, recipe, extent) as folder:
            watch = Watch(progress, runtime.device)
            trainings = training_of(recipe).keys() & set(running)
            trial = Trial(60 * minutes / max(1, len(trainings)), MIN_STEPS, decoded_bytes(recipe, extent.train, 0)[0])
            pipeline.run(
                trial_recipe(recipe, extent, set(running)),
                folder,
                runtime=replace(runtime, checkpoint_every=CheckpointEvery(None, None), trackers=(), trial=trial),
                progress=watch,
                command="g2sd plan --probe",
                until=running[-1],
            )
            found = ranks.from_main(lambda: _estimates(recipe, extent, steps, folder, watch, runtime))
    else:
        found = [Estimate(step.stage.name, runs=False, reason=step.reason) for step in steps]
    return Probe(found, runtime.device.type, _name_of(runtime), ranks.num, time.perf_counter() - start, shutil.disk_usage(nearest).free)


def _counted(recipe: Recipe) -> Extent:
    """Open the source as the data stage does, and count its images."""
    from g2sd_deploy.data.dense.sources import dense_source_of
    from g2sd_deploy.data.sources import source_of

    data = recipe.data
    source: Any = source_of(data) if recipe.task is None else dense_source_of(data, recipe.task.kind)
    train, test = source.samples(data.train_split, data.max_train_images), source.samples(data.test_split, data.max_test_images)
    return extent_of(recipe, len(train), len(test), machine()["num_cpus"])


@contextmanager
def _trial_folder(runtime: Runtime, parent: Path, recipe: Recipe, extent: Extent) -> Iterator[Path]:
    """A new folder beside the run's, on the same disk and seen by the same machines; removed in the end.

    Raises:
        UserError: There is no room for it.
        Stopped: A signal asked the trial to end.
    """
    ranks = runtime.ranks
    folder = Path(ranks.from_main(lambda: _make_folder(parent, sum(decoded_bytes(recipe, extent.trial_train, extent.trial_test)))))
    try:
        yield folder
    except Stopped as stopped:
        stopped.message = "the probe was stopped; nothing is kept"
        raise
    except KeyboardInterrupt:
        raise Stopped(signal.SIGINT, "the probe was stopped; nothing is kept") from None
    finally:
        if ranks.is_main:
            shutil.rmtree(folder, ignore_errors=True)


def _make_folder(parent: Path, image_bytes: int) -> str:
    free, needed = shutil.disk_usage(parent).free, image_bytes + _ROOM_BYTES
    if free < needed:
        raise UserError(
            f"{parent}: {free / 2**30:.1f} GiB are free, and the probe needs {needed / 2**30:.1f} GiB there for a while; make room, or "
            "give an --out on another disk"
        )
    try:
        return tempfile.mkdtemp(prefix=".g2sd-probe-", dir=parent)
    except OSError as error:
        raise UserError(f"{parent}: cannot be written ({error.strerror}); give an --out in a folder you may write to") from None


def _name_of(runtime: Runtime) -> str:
    if runtime.device.type == "cuda":
        import torch

        return torch.cuda.get_device_name(runtime.device)
    return str(machine()["cpu"])


def _estimates(recipe: Recipe, extent: Extent, steps: Sequence[Step], folder: Path, watch: Watch, runtime: Runtime) -> list[Estimate]:
    """One for each stage: what its trial took, extended."""
    rows = []
    for step in steps:
        name, artifact = step.stage.name, read_artifact(folder / step.stage.name)
        if not step.runs or artifact is None:
            rows.append(Estimate(name, runs=False, reason=step.reason))
            continue
        row = Estimate(name, runs=True, reason=step.reason, processes=runtime.ranks.num, peak_mib=watch.stages[name].peak_mib)
        settings = training_of(recipe).get(name)
        if settings is None:
            rows.append(_other(row, recipe, extent, artifact, watch.stages[name]))
        else:
            row = _training(row, settings, extent, artifact, watch.stages[name])
            rows.append(replace(row, peak_mib=row.peak_mib + _images_on_gpu_mib(recipe, settings, extent, runtime)))
    return rows


def _training(row: Estimate, settings: TrainSettings, extent: Extent, artifact: Artifact, watched: Watched) -> Estimate:
    from g2sd_deploy.training.checkpoints import NUM_KEPT
    from g2sd_deploy.training.schedule import num_steps_of

    figures = artifact.metrics
    tried, steps = figures["num_steps"], num_steps_of(settings.epochs, settings.batch_size, settings.num_trained(extent.train))
    step_ms = estimates.step_ms_of(figures)
    seconds = estimates.training_seconds(watched.seconds, tried, steps, step_ms)
    return replace(
        row,
        seconds=estimates.stretched_seconds(seconds, _around_training(settings, extent, watched)),
        steps=steps,
        steps_tried=tried,
        step_ms=step_ms,
        images_per_s=1000 * settings.batch_size / step_ms,
        waits=estimates.waits_of(figures),
        disk_bytes=estimates.full_bytes(_sizes(artifact), {"history": steps / tried}),
        checkpoint_bytes=NUM_KEPT * figures["state_bytes"],
    )


def _around_training(settings: TrainSettings, extent: Extent, watched: Watched) -> list[tuple[float, float]]:
    """What the quantise stage looks at before and after it trains: its time in the trial, and how many times longer the run needs."""
    if not isinstance(settings, QuantiseSettings):
        return []
    of_run, of_trial = (settings.num_looked_at(num) for num in (extent.train, extent.trial_train))
    calibration, *scored = (watched.series[place] for place in (0, 1, 2, -1))
    factors = [run / trial for run, trial in zip(of_run, of_trial, strict=True)]
    return [(calibration.seconds, factors[0]), *((one.seconds, factors[1]) for one in scored)]


def _other(row: Estimate, recipe: Recipe, extent: Extent, artifact: Artifact, watched: Watched) -> Estimate:
    """A stage that does not train: what goes over the images grows with them."""
    series = watched.series
    settled = [one.settled_seconds for one in series]
    more_train, more_test = extent.train / extent.trial_train, extent.test / extent.trial_test
    match row.stage:
        case "data":  # decoding begins on all cores at once, so its first report comes late
            factors = [more_train, more_test][-len(series) :]
            seconds = estimates.stretched_seconds(watched.seconds, list(zip((one.seconds for one in series), factors, strict=True)))
        case "evaluate" if recipe.task is not None:  # each network counts the images anew, and more than once at the end
            scored = series[-1].points[-1][0] - series[0].points[0][0]
            seconds = estimates.stretched_seconds(watched.seconds, [(scored, more_test)])
        case "evaluate":
            assert recipe.evaluate is not None
            factors = evaluation_factors(recipe.evaluate, extent, _images_of_sets(recipe.evaluate))
            seconds = estimates.stretched_seconds(watched.seconds, list(zip(settled, factors, strict=True)))
        case "export":
            assert recipe.export is not None
            factors = [export_factor(one.note, recipe, extent) for one in series]
            seconds = estimates.stretched_seconds(watched.seconds, list(zip(settled, factors, strict=True)))
        case "profile":
            assert recipe.profile is not None
            num = sum(one["verdict"] != "not_run" for one in artifact.metrics["rows"])
            seconds = estimates.profile_seconds(watched.seconds, num, PROFILE_SECONDS, recipe.profile.seconds)
        case _:
            seconds = watched.seconds
    grows = {"train_": more_train, "test_": more_test, "predictions-": more_test}
    return replace(row, seconds=seconds, disk_bytes=estimates.full_bytes(_sizes(artifact), grows))


def _images_of_sets(settings: EvaluateSettings) -> int:
    """Images of the other sets that are scored; a trial passes them over."""
    if not settings.sets:
        return 0
    from g2sd_deploy.data.testsets import Options, open_all
    from g2sd_deploy.data.testsets.catalogue import data_folder
    from g2sd_deploy.zoo.places import places

    return sum(len(test.samples) for test in open_all(settings.sets, options=Options(), home=data_folder(places())))


def _sizes(artifact: Artifact) -> dict[str, int]:
    return {name: described["bytes"] for name, described in artifact.files.items()}


def _images_on_gpu_mib(recipe: Recipe, settings: TrainSettings, extent: Extent, runtime: Runtime) -> float:
    """Memory of the training images that a run keeps on the GPU, beyond those of the trial."""
    from g2sd_deploy.training.feed import fits_on_gpu

    whole, tried = (decoded_bytes(recipe, num, 0)[0] for num in (extent.train, extent.trial_train))
    return 0.0 if settings.augment.policy is not None or not fits_on_gpu(whole, runtime.device) else (whole - tried) / 2**20


def as_json(found: Probe) -> dict[str, Any]:
    """Plain values, for `--json`."""
    rows = [
        {name: value for name, value in vars(one).items() if name != "processes"} | {"hours": round(one.hours, 6)}
        for one in found.estimates
    ]
    described = {name: value for name, value in vars(found).items() if name != "estimates"}
    return {**described, "stages": rows, "totals": vars(estimates.totals_of(found.estimates))}
