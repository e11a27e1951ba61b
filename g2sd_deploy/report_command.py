"""`g2sd report`: the report of a run, or the comparison of several, as files."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy.artifact import MARKER, read_artifact
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_deploy.report import Rendered


def write_report(folders: Sequence[Path], out: Path | None) -> list[Path]:
    """Write the report of one run, or the comparison of several.

    Args:
        folders: Run folders, finished or not; at least one.
        out: Folder to write to; None for the run folder itself or, where several are compared, the current folder.

    Returns:
        What was written: HTML, Markdown and JSON, named `report` or `comparison`.

    Raises:
        UserError: A folder is no run, an artifact in it was changed, or `out` cannot be written.
    """
    for folder in folders:
        _verify(folder)
    if len(folders) == 1:
        from g2sd_deploy.report import read_run, render_report

        return write_rendered(render_report(read_run(folders[0])), out or folders[0], "report")
    from g2sd_deploy.comparing import compare_runs

    return write_rendered(compare_runs(folders), out or Path(), "comparison")


def write_rendered(rendered: "Rendered", out: Path, name: str) -> list[Path]:
    """Write a page under its name as HTML, Markdown and, where it has data of its own, JSON.

    Raises:
        UserError: The folder cannot be written.
    """
    texts = {"html": rendered.html, "md": rendered.markdown, "json": rendered.json}
    written = []
    try:
        out.mkdir(parents=True, exist_ok=True)
        for suffix, text in texts.items():
            if text:
                written.append(out / f"{name}.{suffix}")
                written[-1].write_text(text, encoding="utf-8")
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror}); give a folder you may write to") from None
    return written


def _verify(folder: Path) -> None:
    """Refuse a run with an artifact that is not as its stage wrote it."""
    for marker in sorted(folder.glob(f"*/{MARKER}")):
        artifact = read_artifact(marker.parent)
        if artifact is not None:
            artifact.verify()
