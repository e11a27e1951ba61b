"""`g2sd teacher`: list, pull, verify and import teachers."""

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.cli_output import progress_of_bytes

teacher_app = typer.Typer(
    help="Public teachers: list, pull, verify, and import files of your own.", no_args_is_help=True, rich_markup_mode=None
)

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]
HeadsOpt = Annotated[int | None, typer.Option("--heads", min=1, help="Attention heads of the encoder; a file does not hold them.")]
DecoderHeadsOpt = Annotated[int | None, typer.Option("--decoder-heads", min=1, help="Attention heads of the decoder.")]


@teacher_app.command("list")
@tell_errors
def list_teachers(as_json: JsonOpt = False) -> None:
    """Show the public teachers: what they hold, what they are good for, their licence, and whether they are here."""
    from g2sd_deploy.zoo import listing

    if as_json:
        typer.echo(json.dumps({"teachers": listing.rows()}))
        return
    listing.print_table()


@teacher_app.command("pull")
@tell_errors
def pull_teachers(names: Annotated[list[str], typer.Argument(help="Names that `g2sd teacher list` shows.")]) -> None:
    """Fetch teachers into the cache; a file gets its name once its size and hash are right. Prints their paths."""
    from g2sd_deploy.zoo.catalog import find_teacher
    from g2sd_deploy.zoo.places import places
    from g2sd_deploy.zoo.pulling import pull

    wanted = [find_teacher(name) for name in names]
    for teacher in wanted:
        with progress_of_bytes(teacher.name) as tick:
            pulled = pull(teacher, places(), tick=tick)
        what = "pulled" if pulled.fetched else "is here already"
        typer.echo(f"{teacher.name} {what}; compared with {', '.join(pulled.checked)}; licence {teacher.listed.licence}", err=True)
        typer.echo(str(pulled.path))


@teacher_app.command("verify")
@tell_errors
def verify_teacher(
    name: Annotated[str, typer.Argument(help="A name of the list (pulled first if it is not here), or a file.")],
    heads: HeadsOpt = None,
    decoder_heads: DecoderHeadsOpt = None,
    as_json: JsonOpt = False,
) -> None:
    """Hash a teacher, open it, account for every key, and say what it can be used for."""
    from g2sd_deploy.zoo import taking_in

    with progress_of_bytes(name) as tick:
        findings = taking_in.verify(name, heads=heads, decoder_heads=decoder_heads, tick=tick)
    if as_json:
        typer.echo(json.dumps(findings))
        return
    for key, value in findings.items():
        shown = "; ".join(value) if isinstance(value, list) else value
        typer.echo(f"{key.replace('_', ' ') + ':':<18}{shown}")


@teacher_app.command("import")
@tell_errors
def import_teacher(
    file: Annotated[Path, typer.Argument(help="A file of torch.save (.pth, .pt, .bin) or .safetensors.")],
    out: Annotated[Path, typer.Option("--out", help="New .safetensors file of g2sd.")],
    kind: Annotated[
        Literal["masked", "encoder", "classifier"] | None, typer.Option("--as", help="What to keep of it; all of it by default.")
    ] = None,
    heads: HeadsOpt = None,
    decoder_heads: DecoderHeadsOpt = None,
    classes: Annotated[str | None, typer.Option("--classes", help="imagenet-1k, or a file with one name a line.")] = None,
    image_px: Annotated[int | None, typer.Option("--image-px", min=1, help="Fit its positions to images of this size.")] = None,
    resize_px: Annotated[int | None, typer.Option("--resize-px", min=1, help="Short side before a classifier's centre crop.")] = None,
    mean: Annotated[str | None, typer.Option("--mean", help="A classifier's mean, as 0.5,0.5,0.5; ImageNet's by default.")] = None,
    std: Annotated[str | None, typer.Option("--std", help="A classifier's deviation; ImageNet's by default.")] = None,
) -> None:
    """Convert a weight file of a known layout; every key is used or dropped for a stated reason."""
    from g2sd_deploy.zoo import taking_in

    asked = taking_in.Asked(kind, heads, decoder_heads, classes, image_px, resize_px, mean, std)
    for line in taking_in.import_file(file, out, asked):
        typer.echo(line, err=True)
    typer.echo(str(out))
