"""The work of `g2sd export` where the model answers for pixels or objects."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.export_command import Asked, bundle_at, calibrating_on, check_out

if TYPE_CHECKING:
    from g2sd_deploy.data.dense.annotations import DenseSamples
    from g2sd_deploy.models.dense.network_file import DenseFile
    from g2sd_deploy.progress import Progress
    from g2sd_export.dense.onnx_file import PixelOutput
    from g2sd_export.edge.dense.task import DenseTask
    from g2sd_export.targets import Target


@dataclass(frozen=True)
class _Model:
    """A model of a task by the name that it was asked for."""

    name: str
    file: "DenseFile"

    @property
    def task(self) -> "DenseTask":
        return self.file.task

    @property
    def class_names(self) -> tuple[str, ...]:
        return self.file.class_names


def export_dense(asked: Asked, place: Path, output: "PixelOutput | None", progress: "Progress", *, ignore_zero: bool) -> dict[str, Any]:
    """Export a segmenter or a detector; the bundle is written even where its proof fails, and then marked failed.

    Args:
        asked: What a person asks for.
        place: Where the model lies, as `dense_place` found it.
        output: What a segmenter's file gives; None takes logits where windows slide, else classes.
        progress: Told how far it is.
        ignore_zero: As `DataSettings.ignore_zero`.

    Returns:
        ``bundle`` and what a recipe's export stage records; ``failure_of`` tells whether the proof failed.

    Raises:
        UserError: Bad input, an option of classifiers, or ``out`` exists and is not empty.
    """
    from g2sd_deploy.artifact import sha256_of
    from g2sd_deploy.dense_set import set_for
    from g2sd_deploy.exporting import figures, images_of, timings
    from g2sd_deploy.exporting_dense import DenseJob
    from g2sd_deploy.exporting_dense import export_dense as export
    from g2sd_deploy.predictors.dense_models import read_dense
    from g2sd_export.targets import load_target

    _check(asked, place, output)
    target = load_target(asked.settings.target).narrowed(asked.settings.only, asked.settings.max_quantisers)
    check_out(asked.out)
    model = _Model(asked.model, read_dense(place))
    if output is not None and model.task.kind == "detection":
        raise UserError(f"--output {output}: is for segmenters, and {asked.model} is a detector; leave it out")
    if output == "classes" and model.task.inference == "slide":
        raise UserError(f"--output classes: {asked.model} averages the answers of sliding windows, which needs logits; leave it out")
    train, train_source = _training(asked, target, model, ignore_zero=ignore_zero)
    job = DenseJob(
        name=asked.out.name,
        file=model.file,
        weights_sha256=sha256_of(place),
        samples=set_for(model, asked.on, ignore_zero=ignore_zero).samples(asked.split, None),
        target=target,
        settings=asked.settings,
        output=output,
        train=train,
        train_source=train_source,
        test_source=images_of(asked.on, asked.split),
        provenance={"model": Path(asked.model).name},
    )
    with bundle_at(asked.out) as scratch:
        progress.begin("export")
        exported = export(job, scratch=scratch, folder=asked.out, tick=progress.update)
        made = {"bundle": str(asked.out), "task": model.task.kind, **figures(exported), **timings(exported)}
    progress.end()
    return made


def _training(asked: Asked, target: "Target", model: _Model, *, ignore_zero: bool) -> "tuple[DenseSamples | None, str]":
    """Training images with their truth, where a candidate needs some.

    Raises:
        UserError: They would be those of the proof, have other classes, or there is no such split.
    """
    from g2sd_deploy.dense_set import set_for
    from g2sd_deploy.exporting import images_of
    from g2sd_export.dense.exam import calibrates

    if not calibrates(target, model.task):
        return None, ""
    on = calibrating_on(asked)
    source = set_for(model, on, ignore_zero=ignore_zero, option="--calibrate-on")
    return source.samples(asked.calibrate_split, None), images_of(on, asked.calibrate_split)


def _check(asked: Asked, place: Path, output: "PixelOutput | None") -> None:
    """Refuse a bundle, and options that only classifiers have.

    Raises:
        UserError: One is given.
    """
    if place.is_dir():
        raise UserError(
            f"{asked.model}: is a bundle, which has been exported already; give the weights it was made from: a .safetensors file, or the "
            "folder of its stage"
        )
    settings = asked.settings
    given = {
        "--token-merging": settings.token_merging > 0,
        "--not-corrupted": settings.robustness is None,
    }
    if wrong := [option for option, is_given in given.items() if is_given]:
        raise UserError(f"{wrong[0]}: for classifiers only, and {asked.model} is a segmenter or detector; leave it out")
