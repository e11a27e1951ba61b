"""`g2sd export`: a classifier that a person names, turned into a bundle for a target."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.settings import ExportSettings

if TYPE_CHECKING:
    from g2sd_deploy.data.images import ImageSet, Samples
    from g2sd_deploy.exporting import Source
    from g2sd_deploy.predictors import Predictor
    from g2sd_deploy.progress import Progress
    from g2sd_export.targets import Target


@dataclass(frozen=True)
class Asked:
    """What a person asks for.

    Attributes:
        model: A model of ours, a stage's folder, or a name of timm.
        on: Where the images of the proof come from.
        split: Their split.
        calibrate_on: Where training images come from; None takes ``on``.
        calibrate_split: Their split.
        out: The bundle; must not exist, or be empty.
        settings: As in a recipe.
    """

    model: str
    on: str
    split: str
    calibrate_on: str | None
    calibrate_split: str
    out: Path
    settings: ExportSettings


def export(asked: Asked, progress: "Progress") -> dict[str, Any]:
    """Export a classifier; the bundle is written even where its proof fails, and then marked failed.

    Returns:
        ``bundle`` and what a recipe's export stage records; ``failure_of`` tells whether the proof failed.

    Raises:
        UserError: Bad input, or ``out`` exists and is not empty.
    """
    import torch

    from g2sd_deploy.evaluation.torch_runner import TorchRunner
    from g2sd_deploy.exporting import Job, export_bundle, figures, images_of, timings
    from g2sd_deploy.standing import standing
    from g2sd_export.edge.runner import available_cpus
    from g2sd_export.targets import load_target

    target = load_target(asked.settings.target).narrowed(asked.settings.only, asked.settings.max_quantisers)
    check_out(asked.out)
    source = _source(asked.model)
    test = _images(asked.on, asked.split, source)
    train, name = _training(asked, target, source)
    job = Job(
        name=asked.out.name,
        source=source,
        test=test,
        target=target,
        settings=asked.settings,
        train=train,
        train_source=name,
        test_source=images_of(asked.on, asked.split),
        provenance={"model": Path(asked.model).name},
    )
    reference = TorchRunner(job.asked.module, source.preprocessing, device=torch.device("cpu"))
    with bundle_at(asked.out) as scratch:
        progress.begin("export")
        exported = export_bundle(job, reference, scratch=scratch, folder=asked.out, tick=progress.update)
        scores = standing(job, exported.shipment, workers=available_cpus(), seed=0, tick=progress.update)
        made = {"bundle": str(asked.out), **figures(exported), "standing": scores, **timings(exported)}
    progress.end()
    return made


def check_out(out: Path) -> None:
    """Refuse a place that is taken.

    Raises:
        UserError: It is.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"--out {out}: exists and is not empty; give a new folder for the bundle")


@contextmanager
def bundle_at(out: Path) -> Iterator[Path]:
    """A folder for files on the way to a bundle.

    Raises:
        UserError: The bundle cannot be written.
    """
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="g2sd-export.") as scratch:
            yield Path(scratch)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give a folder you may write to") from None


def _source(name: str) -> "Source":
    import torch

    from g2sd_deploy.exporting import Source
    from g2sd_deploy.predictors import open_predictor

    predictor = open_predictor(name, torch.device("cpu"))
    if predictor.module is None:
        raise UserError(
            f"{name}: is a {predictor.kind}, which has been exported already; give the classifier it was made from: a .safetensors file, "
            "the folder of its stage, or a name of timm"
        )
    return Source(predictor.module(), predictor.preprocessing, _names_of(predictor), predictor.digest)


def _names_of(predictor: "Predictor") -> tuple[str, ...]:
    return predictor.class_names or tuple(str(number) for number in range(predictor.num_classes))


def _images(on: str, split: str, source: "Source") -> "ImageSet":
    from g2sd_deploy.data.decoding import decode_set

    samples = _samples("--on", on, split, source)
    return decode_set(samples, source.preprocessing, lambda done, total: None)


def _samples(option: str, on: str, split: str, source: "Source") -> "Samples":
    from g2sd_deploy.data.sources import guess_kind, open_source

    opened = open_source(guess_kind(on), on, splits=(split,))
    if opened.class_names != source.class_names:
        raise UserError(
            f"{option} {on}: its {len(opened.class_names)} classes ({', '.join(opened.class_names[:3])}, ...) are not the model's "
            f"{len(source.class_names)} ({', '.join(source.class_names[:3])}, ...)"
        )
    return opened.samples(split, None)


def _training(asked: Asked, target: "Target", source: "Source") -> "tuple[Samples | None, str]":
    """Training images, where a candidate needs some.

    Raises:
        UserError: They would be those of the proof, or there is no such split.
    """
    from g2sd_deploy.exporting import images_of

    if not target.calibrates:
        return None, ""
    on = calibrating_on(asked)
    return _samples("--calibrate-on", on, asked.calibrate_split, source), images_of(on, asked.calibrate_split)


def calibrating_on(asked: Asked) -> str:
    """Where training images come from.

    Raises:
        UserError: They would be those of the proof.
    """
    on = asked.calibrate_on or asked.on
    if (on, asked.calibrate_split) == (asked.on, asked.split):
        raise UserError(
            f"--calibrate-split {asked.calibrate_split}: INT8 would be calibrated on the images that judge it; "
            "give another split, or other images with --calibrate-on"
        )
    return on
