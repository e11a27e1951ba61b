"""Files of a run that hold a JSON object on each line, with the stage that wrote it."""

import json
from pathlib import Path


def lines_of_others(path: Path, stage: str) -> list[str]:
    """Lines of all stages but one, which begins anew; without what a killed process left half written, which it may have been.

    Args:
        path: The file; it may be missing.
        stage: Whose lines are left out.
    """
    found = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [line for line in found if not _is_of(line, stage)]


def _is_of(line: str, stage: str) -> bool:
    try:
        found = json.loads(line)
    except ValueError:
        return True
    return not isinstance(found, dict) or found.get("stage") == stage
