"""`g2sd evaluate`: any models on any sets of images, side by side."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from g2sd_deploy.cli_runtime import told
from g2sd_deploy.errors import UserError
from g2sd_deploy.runtime import DeviceName

if TYPE_CHECKING:
    from g2sd_deploy.settings import EvaluateSettings

_ALL_IMAGES = 2**31 - 1
_WIDE = 120
_UNSAID = "For a file that does not say it"
ModelsArg = Annotated[
    list[str],
    typer.Argument(
        metavar="[NAME=]MODEL...",
        help="Stage folder, weights (.safetensors), bundle, ONNX file, TensorRT engine, or a name of timm (NAME or NAME@WEIGHTS).",
    ),
]
OnOpt = Annotated[
    list[str],
    typer.Option(
        "--on",
        metavar="SET",
        help="NAME as `g2sd data sets` lists them, NAME=FOLDER, or any images: a source of a recipe; for segmenters a folder with masks, "
        "for detectors one of COCO's layout.",
    ),
]
TeacherOpt = Annotated[str | None, typer.Option("--teacher", help="The model that the others are compared with.")]
SplitOpt = Annotated[str, typer.Option("--split", help="Split of a set that is none of the known ones.")]
ClassMapOpt = Annotated[Path | None, typer.Option("--class-map", help="File that says which class of the models each class is.")]
RestrictOpt = Annotated[bool, typer.Option("--restrict", help="Cut the logits to the classes of a set that is none of the known ones.")]
AsStoredOpt = Annotated[bool, typer.Option("--as-stored", help="The images were resized when they were stored: only crop them.")]
CorruptionsOpt = Annotated[str, typer.Option("--corruptions", help="Comma-separated corruptions, or `all`; none by default.")]
SeveritiesOpt = Annotated[str, typer.Option("--severities", help="Comma-separated severities, 1 to 5.")]
OcclusionOpt = Annotated[bool, typer.Option("--occlusion", help="Accuracy while patches are removed, at random and by salience.")]
SimilarityOpt = Annotated[bool, typer.Option("--similarity", help="Similarity (CKA) of every layer to each of the teacher's.")]
IgnoreZeroOpt = Annotated[bool, typer.Option("--ignore-zero", help="Masks ask nothing where they are 0, as data.ignore_zero.")]
MaxImagesOpt = Annotated[int | None, typer.Option("--max-images", min=1, help="Use this many images, spread evenly.")]
MaxBadOpt = Annotated[int, typer.Option("--max-bad", min=0, help="Images of a set that may be unusable; they are counted.")]
MeanOpt = Annotated[str | None, typer.Option("--mean", help=f"{_UNSAID}: mean, as 0.5,0.5,0.5.")]
StdOpt = Annotated[str | None, typer.Option("--std", help=f"{_UNSAID}: deviation.")]
ImagePxOpt = Annotated[int | None, typer.Option("--image-px", min=1, help=f"{_UNSAID}: side of the input.")]
ResizePxOpt = Annotated[int | None, typer.Option("--resize-px", min=1, help=f"{_UNSAID}: short side before the centre crop.")]
InterpolationOpt = Annotated[Literal["bicubic", "bilinear"] | None, typer.Option("--interpolation", help=f"{_UNSAID}: filter.")]
BatchSizeOpt = Annotated[int | None, typer.Option("--batch-size", min=1, help="Images of a forward pass; chosen by default.")]
WorkersOpt = Annotated[int | None, typer.Option("--workers", min=1, help="Threads; one per CPU core by default.")]
SeedOpt = Annotated[int, typer.Option("--seed", min=0, help="Of corruptions, of what is occluded, and of resampled intervals.")]
DeviceOpt = Annotated[DeviceName | None, typer.Option("--device", help="Where torch computes; a GPU where there is one, by default.")]
OutOpt = Annotated[Path | None, typer.Option("--out", help="Folder for an artifact with a report; it is not made twice.")]
SaveOpt = Annotated[bool, typer.Option("--save-predictions", help="Keep every answer in --out, one Parquet file per model.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of tables.")]


def evaluate(
    models: ModelsArg,
    on: OnOpt,
    teacher: TeacherOpt = None,
    split: SplitOpt = "test",
    class_map: ClassMapOpt = None,
    restrict: RestrictOpt = False,
    as_stored: AsStoredOpt = False,
    corruptions: CorruptionsOpt = "",
    severities: SeveritiesOpt = "1,2,3,4,5",
    occlusion: OcclusionOpt = False,
    similarity: SimilarityOpt = False,
    ignore_zero: IgnoreZeroOpt = False,
    max_images: MaxImagesOpt = None,
    max_bad: MaxBadOpt = 0,
    mean: MeanOpt = None,
    std: StdOpt = None,
    image_px: ImagePxOpt = None,
    resize_px: ResizePxOpt = None,
    interpolation: InterpolationOpt = None,
    batch_size: BatchSizeOpt = None,
    workers: WorkersOpt = None,
    seed: SeedOpt = 0,
    device: DeviceOpt = None,
    out: OutOpt = None,
    save_predictions: SaveOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Score models on sets of images: accuracy, calibration, agreement with a teacher, robustness, occlusion, similarity of layers.

    All models see an image in one pass, each prepared as the model says. Each figure comes with its 95 % interval. Segmenters are scored by
    mIoU, detectors by average precision.
    """
    from g2sd_deploy import evaluate_command, evaluate_dense_command
    from g2sd_deploy.predictors import AskedPreprocessing
    from g2sd_deploy.runtime import make_runtime

    request = evaluate_command.Request(
        models=tuple(models),
        sets=tuple(on),
        settings=_settings(corruptions, severities, occlusion, similarity, batch_size, max_bad),
        split=split,
        class_map=class_map,
        restrict=restrict,
        as_stored=as_stored,
        max_images=max_images,
        teacher=teacher,
        preprocessing=AskedPreprocessing(_numbers("--mean", mean), _numbers("--std", std), image_px, resize_px, interpolation),
        out=out,
        save_predictions=save_predictions,
        seed=seed,
    )
    runtime = make_runtime(device, workers=workers)
    places = runtime.ranks.from_main(lambda: evaluate_dense_command.dense_places(request))
    if ignore_zero and not places:
        raise UserError("--ignore-zero: is for the masks of segmenters, and none is given; leave it out")
    with told(runtime) as progress:
        if places:
            metrics = evaluate_dense_command.evaluate_dense(request, places, runtime, progress, ignore_zero=ignore_zero)
        else:
            metrics = evaluate_command.evaluate(request, runtime, progress)
    if runtime.ranks.is_main:
        _print(metrics, as_json)


def _settings(
    corruptions: str, severities: str, occlusion: bool, similarity: bool, batch_size: int | None, max_bad: int
) -> "EvaluateSettings":
    """The options as a recipe would say them; images are limited by --max-images alone."""
    from g2sd_deploy.data.corruptions import CORRUPTION_NAMES, corruption_from_name
    from g2sd_deploy.settings import CorruptionSettings, EvaluateSettings, OcclusionSettings, SimilaritySettings

    parts = [part.strip() for part in corruptions.split(",") if part.strip()]
    names = CORRUPTION_NAMES if parts == ["all"] else tuple(corruption_from_name(part) for part in parts)
    levels = [part.strip() for part in severities.split(",")]
    if not all(level in ("1", "2", "3", "4", "5") for level in levels) or len(set(levels)) < len(levels):
        raise UserError(f"--severities {severities}: wanted whole numbers from 1 to 5 with commas between them, each once")
    return EvaluateSettings(
        batch_size=batch_size,
        corruptions=CorruptionSettings(names=names, severities=tuple(map(int, levels)), max_images=_ALL_IMAGES) if names else None,
        occlusion=OcclusionSettings(max_images=_ALL_IMAGES) if occlusion else None,
        similarity=SimilaritySettings() if similarity else None,
        max_bad_images=max_bad,
    )


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"{option} {text}: wanted numbers with commas between them, one per channel, for example 0.5,0.5,0.5") from None


def _print(metrics: "dict[str, object]", as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(metrics))
        return
    from rich.console import Console

    from g2sd_deploy.evaluate_dense_command import dense_tables
    from g2sd_deploy.report import evaluation_tables

    console = Console(width=None if sys.stdout.isatty() else _WIDE)
    for table in dense_tables(metrics) if "task" in metrics else evaluation_tables(metrics):
        console.print(table)
        console.print()
