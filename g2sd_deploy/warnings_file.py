"""Warnings of a run on disk while it goes on, for those who watch it from elsewhere; finished stages keep theirs in the artifact."""

import json
from contextlib import suppress
from pathlib import Path

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.progress import Progress
from g2sd_deploy.stage_lines import lines_of_others

WARNINGS_FILE = "warnings.jsonl"


class KeptWarnings:
    """Passes everything on, and appends each warning to a file: one JSON object of stage and text on a line.

    Args:
        progress: Who is told.
        path: The file; made when there is something to write. A stage that begins removes what it warned of before.
    """

    def __init__(self, progress: Progress, path: Path) -> None:
        self._progress, self._path, self._stage = progress, path, ""

    def begin(self, title: str) -> None:
        self._stage = title
        if self._path.is_file():
            lines = lines_of_others(self._path, self._stage)
            with suppress(OSError):  # a full disk is told of where it matters
                write_text_whole(self._path, "".join(f"{line}\n" for line in lines))
        self._progress.begin(title)

    def update(self, done: int, total: int, note: str = "") -> None:
        self._progress.update(done, total, note)

    def end(self, note: str = "") -> None:
        self._progress.end(note)

    def tell(self, text: str) -> None:
        self._progress.tell(text)

    def warn(self, text: str) -> None:
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:  # the person hears of it in any case
            file.write(json.dumps({"stage": self._stage, "warning": text}) + "\n")
        self._progress.warn(text)

    def abort(self) -> None:
        self._progress.abort()
