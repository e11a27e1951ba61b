"""`g2sd data`: prepare a data set for training, and verify one; the commands of test sets are in `cli_testsets`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from g2sd_deploy import cli_output
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.cli_scenes import write_scenes
from g2sd_deploy.cli_testsets import check_set, list_sets, pull_sets
from g2sd_deploy.errors import EXIT_FAILED, UserError

if TYPE_CHECKING:
    from g2sd_deploy.data.images import Skipped
    from g2sd_deploy.data.verifying import Tick, Verified

data_app = typer.Typer(
    help="Prepare and verify data sets for training; fetch and check public test sets.", no_args_is_help=True, rich_markup_mode=None
)

SourceName = Literal["idx", "folder", "shards", "huggingface", "numpy", "masks", "coco"]
SrcArg = Annotated[str, typer.Argument(metavar="SRC", help="Data set: SPLIT/CLASS/IMAGE folders, shards, or another source of a recipe.")]
SourceOpt = Annotated[SourceName | None, typer.Option("--source", help="Kind of SRC, as data.source; guessed from its files by default.")]
SplitsOpt = Annotated[str | None, typer.Option("--splits", help="Comma-separated splits; all by default.")]
WorkersOpt = Annotated[int | None, typer.Option("--workers", min=1, help="Processes; one per CPU core by default.")]
JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
IgnoreZeroOpt = Annotated[bool, typer.Option("--ignore-zero", help="Masks ask nothing where they are 0, as data.ignore_zero.")]

_PER_SHARD = 1000
_MOST_SKIPPED = 100


@data_app.command("prepare")
@tell_errors
def prepare_data(
    src: SrcArg,
    dst: Annotated[Path, typer.Argument(metavar="DST", help="New or empty folder, or one that the same command left unfinished.")],
    short_side: Annotated[
        int | None,
        typer.Option("--short-side", min=16, help="Shrink larger images to this short side, in pixels; all sizes are kept by default."),
    ] = None,
    shards: Annotated[bool, typer.Option("--shards", help="Write tar shards (webdataset); class folders by default.")] = False,
    images_per_shard: Annotated[int | None, typer.Option("--images-per-shard", min=1, help="Images of a shard; 1000 by default.")] = None,
    quality: Annotated[int, typer.Option("--quality", min=1, max=100, help="JPEG quality of images that are shrunk.")] = 95,
    splits: SplitsOpt = None,
    max_bad: Annotated[int, typer.Option("--max-bad", min=0, help="Bad images that may be left out; more make the command fail.")] = 0,
    workers: WorkersOpt = None,
    source: SourceOpt = None,
) -> None:
    """Shrink, re-encode and shard a data set; stopped at any moment, the same command goes on. Prints the manifest's path.

    The bytes do not depend on the number of workers. Images that are small enough are copied as they are; EXIF orientation is ignored,
    as in training. Training images are stored in an order that mixes the classes.
    """
    if images_per_shard is not None and not shards:
        raise UserError("--images-per-shard is given without --shards; add --shards, or leave it out")
    from g2sd_deploy.data import preparing
    from g2sd_deploy.data.encoding import Encoding
    from g2sd_deploy.data.sources import guess_kind, open_source
    from g2sd_deploy.data.splits import chosen_splits
    from g2sd_export.edge.runner import available_cpus

    name = _check_apart(src, dst)
    _refuse_dense(src, source)
    kind = source or guess_kind(src)
    chosen = chosen_splits(kind, src, splits)
    options = preparing.Options(Encoding(short_side, quality), shards, images_per_shard or _PER_SHARD, chosen)
    opened = open_source(kind, src, splits=chosen)
    try:
        with (
            cli_output.progress_of_images("prepare") as tick,
            cli_output.interrupted("what is prepared is kept, and the same command goes on from there"),
        ):
            outcome = preparing.prepare(opened, name, dst, options, workers=workers or available_cpus(), max_bad=max_bad, tick=tick)
    except preparing.TooManyBad as bad:
        _print_skipped(bad.skipped)
        raise
    _print_skipped(outcome.skipped)
    counts = ", ".join(f"{num:,} of {split}" for split, num in outcome.num.items())
    left_out = f", {len(outcome.skipped):,} left out" if outcome.skipped else ""
    typer.echo(f"{'prepared' if outcome.fresh else 'is prepared already'}: {counts}{left_out}", err=True)
    typer.echo(str(outcome.manifest))


@data_app.command("verify")
@tell_errors
def verify_data(
    src: SrcArg,
    splits: SplitsOpt = None,
    workers: WorkersOpt = None,
    source: SourceOpt = None,
    ignore_zero: IgnoreZeroOpt = False,
    as_json: JsonOpt = False,
) -> None:
    """Decode every image and list what training would trip over; exit status 1 if there is anything.

    Of a data set with masks or COCO's annotations the truth of every image is looked at, too.
    """
    from g2sd_export.edge.runner import available_cpus

    with cli_output.progress_of_images("verify") as tick, cli_output.interrupted("run it again for its findings"):
        verified = _verified(src, source, splits, ignore_zero=ignore_zero, workers=workers or available_cpus(), tick=tick)
    if as_json:
        cli_output.print_json(verified.findings, num=verified.num)
    else:
        counts = ", ".join(f"{num:,} of {split}" for split, num in verified.num.items())
        verdict = "training would trip over the errors" if verified.count("error") else "nothing that training would trip over"
        cli_output.print_findings(verified.findings, counts, verdict)
    if verified.count("error"):
        raise typer.Exit(EXIT_FAILED)


def _verified(src: str, source: str | None, splits: str | None, *, ignore_zero: bool, workers: int, tick: "Tick") -> "Verified":
    """What is found in images, and in their truth where they have one for a task."""
    from g2sd_deploy.data.dense.folders import dense_kind_of, open_dense_folder
    from g2sd_deploy.data.splits import chosen_splits

    if kind := dense_kind_of(src, source):
        from g2sd_deploy.data.dense.checking import verify_dense

        opened = open_dense_folder(kind, src, ignore_zero=ignore_zero)
        return verify_dense(opened, chosen_splits(kind, src, splits), workers=workers, tick=tick)
    from g2sd_deploy.data.sources import guess_kind
    from g2sd_deploy.data.verifying import verify

    kind = source or guess_kind(src)
    if ignore_zero:
        raise UserError(f"--ignore-zero: is for masks, and {src} is read as source {kind}; leave it out, or give --source masks")
    return verify(kind, src, chosen_splits(kind, src, splits), workers=workers, tick=tick)


def _refuse_dense(src: str, source: str | None) -> None:
    """Refuse images with a truth of their own size.

    Raises:
        UserError: They are.
    """
    from g2sd_deploy.data.dense.folders import dense_kind_of

    if kind := dense_kind_of(src, source):
        raise UserError(
            f"{src}: is a data set of a task (source {kind}), whose boxes and masks belong to images of that size, so they are not "
            f"prepared: name the folder in a recipe as it is (data.root, with data.source {kind})"
        )


def _check_apart(src: str, dst: Path) -> str:
    """Refuse folders that lie in one another; returns the source's name."""
    from g2sd_deploy.data.sources import expand
    from g2sd_deploy.data.sources.base import is_remote

    if is_remote(src) or ":" in src:
        return src.rstrip("/").rpartition("/")[2]
    source, target = expand(src).resolve(), dst.resolve()
    if source.is_relative_to(target) or target.is_relative_to(source):
        inside = "the same folder" if source == target else f"{'SRC' if source.is_relative_to(target) else 'DST'} lies inside the other"
        raise UserError(f"SRC {src} and DST {dst}: {inside}; give a DST beside SRC")
    if dst.exists() and not dst.is_dir():
        raise UserError(f"{dst}: is a file; give a new folder")
    return source.name


def _print_skipped(skipped: "list[Skipped]") -> None:
    """Images that were left out, as a table on stderr."""
    if not skipped:
        return
    table = cli_output.new_table("left out", "reason")
    for one in skipped[:_MOST_SKIPPED]:
        table.add_row(*cli_output.texts(cli_output.shown(one.name), one.reason))
    if len(skipped) > _MOST_SKIPPED:
        table.add_row(f"and {len(skipped) - _MOST_SKIPPED:,} more", "in the manifest once it is written")
    cli_output.console(stderr=True).print(table)


data_app.command("sets")(list_sets)
data_app.command("pull")(pull_sets)
data_app.command("check")(check_set)
data_app.command("scenes")(write_scenes)
