"""`g2sd export` and `g2sd targets`: from a model to the bundle of a device."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import RunFailed, UserError

if TYPE_CHECKING:
    from rich.table import Table

targets_app = typer.Typer(help="List or show the devices that bundles can be made for.", no_args_is_help=True, rich_markup_mode=None)

ModelArg = Annotated[str, typer.Argument(help="Weights (.safetensors), the folder of a stage that made some, or a classifier of timm.")]
TargetOpt = Annotated[str, typer.Option("--target", help="A device as `g2sd targets list` names it, or a target file of your own.")]
OnOpt = Annotated[
    str,
    typer.Option(
        "--on",
        help="Images that every file has to answer like the model: a source; masks or COCO's layout for a task.",
    ),
]
OutOpt = Annotated[Path, typer.Option("--out", help="New folder for the bundle.")]
SplitOpt = Annotated[str, typer.Option("--split", help="Split of these images.")]
CalibrateOnOpt = Annotated[str | None, typer.Option("--calibrate-on", help="Training images for INT8; those of --on by default.")]
CalibrateSplitOpt = Annotated[str, typer.Option("--calibrate-split", help="Split of the training images; never that of the proof.")]
OnlyOpt = Annotated[list[str], typer.Option("--only", help="A candidate of the target, as fp32-onnxruntime; repeatable.")]
MaxImagesOpt = Annotated[int | None, typer.Option("--max-images", min=1, help="Prove it on this many images, spread evenly.")]
CalibrationOpt = Annotated[int | None, typer.Option("--calibration-images", min=8, help="Images for INT8; the target's number by default.")]
TimingOpt = Annotated[
    float | None, typer.Option("--timing-seconds", min=0.01, help="Most time for timing each candidate; fewer seconds, less certainty. 4.")
]
CorruptedOpt = Annotated[bool, typer.Option("--corrupted/--not-corrupted", help="Score the file that ships under corruption, too.")]
MergingOpt = Annotated[int, typer.Option("--token-merging", min=0, help="Patch tokens that each block merges away; 0 for none.")]
IgnoreZeroOpt = Annotated[bool, typer.Option("--ignore-zero", help="Of masks: nothing is asked where they are 0, as in ADE20K.")]
OutputOpt = Annotated[
    Literal["logits", "classes"] | None,
    typer.Option("--output", help="What a segmenter's file gives; classes, or logits where windows slide."),
]
LicenceOpt = Annotated[str, typer.Option("--licence", help="Licence of the model, for the model card and the bill of materials.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@tell_errors
def export(
    model: ModelArg,
    on: OnOpt,
    out: OutOpt,
    target: TargetOpt = "cpu-x86",
    only: OnlyOpt = [],  # noqa: B006 (typer reads the default, nobody changes it)
    split: SplitOpt = "test",
    calibrate_on: CalibrateOnOpt = None,
    calibrate_split: CalibrateSplitOpt = "train",
    max_images: MaxImagesOpt = None,
    calibration_images: CalibrationOpt = None,
    timing_seconds: TimingOpt = None,
    corrupted: CorruptedOpt = True,
    licence: LicenceOpt = "unknown",
    token_merging: MergingOpt = 0,
    output: OutputOpt = None,
    ignore_zero: IgnoreZeroOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Export a model for a device: every number format that may pay is made, proven on real images, timed, and the best one ships.

    The model is a classifier, a segmenter or a detector.
    """
    from g2sd_deploy import export_command, export_dense_command
    from g2sd_deploy.exporting import failure_of
    from g2sd_deploy.predictors.dense_models import dense_place
    from g2sd_deploy.progress import make_progress
    from g2sd_deploy.settings import ExportSettings

    values: dict[str, Any] = {"target": target, "only": only, "max_images": max_images, "calibration_images": calibration_images}
    values |= {"licences": {"model": licence}, "token_merging": token_merging} | ({} if corrupted else {"robustness": None})
    values |= {} if timing_seconds is None else {"timing_seconds": timing_seconds}
    settings = ExportSettings.model_validate(values)
    asked = export_command.Asked(model, on, split, calibrate_on, calibrate_split, out, settings)
    if place := dense_place(model):
        made = export_dense_command.export_dense(asked, place, output, make_progress(), ignore_zero=ignore_zero)
    elif output or ignore_zero:
        raise UserError(f"{'--output' if output else '--ignore-zero'}: is for segmenters, and {model} is none; leave it out")
    else:
        made = export_command.export(asked, make_progress())
    _print(made, as_json)
    if failure := failure_of(made):
        raise RunFailed(failure)


@targets_app.command("list")
@tell_errors
def list_targets(as_json: JsonOpt = False) -> None:
    """List the devices that ship with the package."""
    from g2sd_export.targets import bundled_targets, load_target

    targets = [load_target(path.stem) for path in bundled_targets()]
    if as_json:
        typer.echo(json.dumps({"targets": [target.to_dict() for target in targets]}))
        return
    width = max(len(target.name) for target in targets)
    for target in targets:
        typer.echo(f"{target.name:<{width}}  {target.description}")


@targets_app.command("show")
@tell_errors
def show_target(target: Annotated[str, typer.Argument(help="A device that ships with the package, or a file.")]) -> None:
    """Print a target file, as a start for one of your own."""
    from g2sd_export.targets import find_target, load_target

    load_target(target)
    typer.echo(find_target(target).read_text(encoding="utf-8"), nl=False)


def _print(made: dict[str, Any], as_json: bool) -> None:
    from rich.console import Console

    if as_json:
        Console(soft_wrap=True).out(json.dumps(made), highlight=False)
        return
    console = Console()
    console.print(candidates_table(made))
    for one in made["candidates"]:
        console.out(f"{one['name']}: {made['reasons'][one['name']]}", highlight=False)
    if "token_merging" in made:
        from g2sd_deploy.token_merging import told

        console.out(told(made["token_merging"]), highlight=False)
    for text in made["remarks"].values():
        console.out(text, highlight=False)
    console.out(f"bundle: {made['bundle']} ({made['verdict'].replace('_', ' ')}), default {made['default']}", highlight=False)


def candidates_table(made: dict[str, Any]) -> "Table":
    """Every candidate with its figures; bold is what ships."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    parity = made["parity"]
    columns = _COLUMNS[made.get("task", "classification")]
    reference, score = parity.get(columns.reference), columns.headings[0]  # a task that was not run has no scores
    images = f"{parity['num_images']} images, float {score} {reference:.2%}" if reference is not None else ""
    table = Table(title=f"{made['target']}: {images}" if images else made["target"], title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for name in ("candidate", "verdict", *columns.headings, "p50 ms", "MiB"):
        table.add_column(name, justify="left" if name in ("candidate", "verdict") else "right", no_wrap=True)
    for one in made["candidates"]:
        table.add_row(*_cells(one, made, columns), style="bold" if one["chosen"] else "")
    return table


@dataclass(frozen=True)
class _Columns:
    """What a candidate is judged by.

    Attributes:
        reference: Key of the torch model's score in the proof.
        headings: Of the score, of what is lost of it, and of what answers otherwise.
        score: Key of a candidate's score.
        changed: Key of what answers otherwise.
        changed_format: How that is written.
    """

    reference: str
    headings: tuple[str, str, str]
    score: str
    changed: str
    changed_format: str


_COLUMNS = {
    "classification": _Columns("top1_reference", ("top-1", "lost, pp", "flips"), "top1", "flipped", "d"),
    "segmentation": _Columns("miou_reference", ("mIoU", "lost, pp", "changed"), "miou_candidate", "changed_share", ".3%"),
    "detection": _Columns("ap_reference", ("box AP", "lost, pp", "unmatched"), "ap_candidate", "unmatched_share", ".3%"),
}


def _cells(one: dict[str, Any], made: dict[str, Any], columns: _Columns) -> list[str]:
    latency, score, changed = made["latency"].get(one["name"]), one.get(columns.score), one.get(columns.changed)
    return [
        one["name"],
        one["verdict"].replace("_", " "),
        "-" if score is None else f"{score:.2%}",
        "-" if one["drop_points"] is None else f"{one['drop_points']:+.2f}",
        "-" if changed is None else format(changed, columns.changed_format),
        "-" if latency is None else f"{latency['p50_ms']:.2f}",
        "-" if one["file_bytes"] is None else f"{one['file_bytes'] / 2**20:.1f}",
    ]
