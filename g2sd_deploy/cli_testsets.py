"""`g2sd data sets`, `pull` and `check`: public test sets."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy import cli_output
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import EXIT_FAILED, UserError

if TYPE_CHECKING:
    from g2sd_deploy.data.testsets.pulling import Pulled

_MOST_FOLDERS = 2
_MOST_LEFT_OUT = 3

JsonOpt = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of a table.")]


@tell_errors
def list_sets(as_json: JsonOpt = False) -> None:
    """Show the public test sets: images, classes, size, licence, and whether they are here."""
    from g2sd_deploy.data.testsets import listing

    if as_json:
        typer.echo(json.dumps({"sets": listing.rows()}))
        return
    listing.print_table()


@tell_errors
def pull_sets(
    names: Annotated[list[str], typer.Argument(metavar="NAME...", help="Names that `g2sd data sets` shows.")],
    given: Annotated[
        list[Path] | None, typer.Option("--from", metavar="FILE", help="An archive that is here already; may be repeated.")
    ] = None,
    to: Annotated[
        Path | None, typer.Option("--to", metavar="DIR", help="Folder that takes the set's folder; CACHE/data by default.")
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the archives that were fetched.")] = False,
) -> None:
    """Fetch test sets, verify, unpack and count them; stopped at any moment, the same command goes on. Prints their folders.

    A set gets its name once all of it is there. Archives are removed when they are unpacked, unless --keep.
    """
    from g2sd_deploy.data.testsets.catalogue import find_set
    from g2sd_deploy.data.testsets.pulling import Wanted, assign, pull
    from g2sd_deploy.zoo.places import places

    for name, files in assign(names, given or []).items():
        with cli_output.interrupted("what came is kept, and the same command goes on from there"):
            pulled = pull(name, places(), Wanted(to, files, keep), show=cli_output.progress_of_bytes)
        _tell_left_out(name, pulled)
        listed = find_set(name)[1]
        needs = f"; it scores the images of {listed.needs}" if listed.needs else ""
        counts = ", ".join(f"{num:,} of {place}" if place != "." else f"{num:,} images" for place, num in _few(pulled).items())
        what = f"pulled: {counts}" if pulled.fetched else "is here already (`g2sd data check` looks at it)"
        typer.echo(f"{name} {what}; licence: {listed.licence}{needs}", err=True)
        typer.echo(str(pulled.path))


def _few(pulled: "Pulled") -> dict[str, int]:
    """Counts for people: of ImageNet-C's many folders the sum."""
    return dict(pulled.num) if len(pulled.num) <= _MOST_FOLDERS else {".": sum(pulled.num.values())}


def _tell_left_out(name: str, pulled: "Pulled") -> None:
    if pulled.num_left_out:
        first = ", ".join(cli_output.shown(one) for one in pulled.left_out[:_MOST_LEFT_OUT])
        more = f" and {pulled.num_left_out - _MOST_LEFT_OUT:,} more" if pulled.num_left_out > _MOST_LEFT_OUT else ""
        typer.echo(f"{name}: left out of the archives, as they have no place in the set: {first}{more}", err=True)


@tell_errors
def check_set(
    name: Annotated[str, typer.Argument(help="A name that `g2sd data sets` shows.")],
    folder: Annotated[Path | None, typer.Argument(metavar="DIR", help="Its folder; where `g2sd data pull` puts it by default.")] = None,
    decode: Annotated[bool, typer.Option("--decode", help="Decode every image, too.")] = False,
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes; one per CPU core by default.")] = None,
    as_json: JsonOpt = False,
) -> None:
    """Compare a test set with the catalogue: layout, classes, counts, names; exit status 1 if anything is wrong."""
    if workers is not None and not decode:
        raise UserError("--workers is given without --decode; add --decode, or leave it out")
    from g2sd_deploy.data.testsets.catalogue import find_set, home_of
    from g2sd_deploy.data.testsets.checking import check
    from g2sd_deploy.zoo.places import places
    from g2sd_export.edge.runner import available_cpus

    own, listed = find_set(name)
    place = folder.expanduser() if folder is not None else home_of(own, places())
    with cli_output.progress_of_images("check") as tick, cli_output.interrupted("run it again for its findings"):
        checked = check(listed, place, workers=(workers or available_cpus()) if decode else 0, tick=tick)
    if as_json:
        cli_output.print_json(checked.findings, name=own, root=str(checked.root), num=checked.num, decoded=checked.decoded)
    else:
        verdict = f"this is not {own} as it is published" if checked.count("error") else f"this is {own} as the catalogue has it"
        decoded = "decoded" if checked.decoded else "not decoded (--decode)"
        cli_output.print_findings(checked.findings, f"{sum(checked.num.values()):,} images of {checked.root}, {decoded}", verdict)
    if checked.count("error"):
        raise typer.Exit(EXIT_FAILED)
