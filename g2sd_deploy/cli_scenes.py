"""`g2sd data scenes`: write scenes of garments as files, for other tools and to look at."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from g2sd_deploy import cli_output
from g2sd_deploy.cli_errors import tell_errors
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_deploy.data.scenes.source import SceneSource


@tell_errors
def write_scenes(
    dst: Annotated[Path, typer.Argument(metavar="DST", help="New or empty folder.")],
    num_train: Annotated[int, typer.Option("--num-train", help="Training scenes.")] = 2000,
    num_test: Annotated[int, typer.Option("--num-test", help="Test scenes.")] = 500,
    image_px: Annotated[int, typer.Option("--image-px", help="Side of a scene in pixels, 32 to 1024.")] = 64,
    max_garments: Annotated[int, typer.Option("--max-garments", help="Most garments of a scene, 1 to 20.")] = 5,
    smallest: Annotated[float, typer.Option("--smallest", help="Smallest side of a garment's picture over the scene's, 0.2 to 0.7.")] = 0.3,
    largest: Annotated[float, typer.Option("--largest", help="Largest side of a garment's picture over the scene's, 0.2 to 0.7.")] = 0.65,
    max_turn_deg: Annotated[float, typer.Option("--max-turn-deg", help="Most degrees by which a garment is turned, 0 to 180.")] = 40.0,
    min_visible: Annotated[float, typer.Option("--min-visible", help="Garments of which less than this share shows are left out.")] = 0.3,
    seed: Annotated[int, typer.Option("--seed", help="Another seed gives other scenes.")] = 0,
    preview: Annotated[
        Path | None, typer.Option("--preview", metavar="FILE", help="Draw the first scenes with their truth, as PNG.")
    ] = None,
) -> None:
    """Write scenes of Fashion-MNIST garments with boxes, masks and maps of classes, as COCO and as masks. Prints the folder.

    The same options give the same scenes. A recipe needs no files for them: data.source scenes composes them as it goes.
    """
    from g2sd_deploy.data.scenes.preview import draw_preview
    from g2sd_deploy.data.scenes.settings import SceneSpec
    from g2sd_deploy.data.scenes.source import SceneSource
    from g2sd_deploy.data.scenes.writing import write_scenes as write

    spec = SceneSpec(image_px, max_garments, seed, smallest, largest, max_turn_deg, min_visible)
    source = SceneSource(spec, num_train, num_test)
    if preview is not None and not preview.parent.is_dir():
        raise UserError(f"--preview {preview}: there is no folder {preview.parent}; make it, or give another file")
    with cli_output.progress_of_images("scenes") as tick, cli_output.interrupted("nothing was written; give the same command again"):
        write(source, dst, tick=tick)
    if preview is not None:
        draw_preview(source.samples("train", None), preview)
    typer.echo(_told(source, dst), err=True)
    typer.echo(str(dst))


def _told(source: "SceneSource", dst: Path) -> str:
    """What lies where, and the lines of a recipe that read it."""
    from g2sd_deploy.data.scenes.writing import COCO, MASKS

    px = source.spec.image_px
    return "\n".join(
        [
            f"wrote {source.num_train:,} training and {source.num_test:,} test scenes of {px} x {px} pixels",
            f"  {dst / COCO}: train/ and test/ with annotations/instances_train.json and instances_test.json (10 garments, masks)",
            f"    in a recipe for detection:    data: {{source: coco, root: {dst / COCO}, train_split: train, test_split: test, ...}}",
            f"  {dst / MASKS}: images/ and annotations/, each with train/ and test/ (0 background, 1 to 10 garments; 255 never occurs)",
            f"    in a recipe for segmentation: data: {{source: masks, root: {dst / MASKS}, train_split: train, test_split: test, ...}}",
        ]
    )
