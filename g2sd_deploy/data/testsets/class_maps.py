"""Text files that say which class of a model a class of a set is."""

from collections import Counter
from pathlib import Path

from g2sd_deploy.errors import UserError

FORM = "`SET CLASS<TAB>MODEL CLASS or logit number` a line"


def read_class_map(path: Path) -> dict[str, str]:
    """Class of the set to class of the model, or to the number of its logit.

    Lines have two columns with a tab between them; without a tab, the first white space divides them. Where every line is one word, it is
    a set's class, and the number of the line, from 0, is its logit: the form of timm's `--class-map`. Empty lines are skipped in the first
    form and refused in the second.

    Args:
        path: UTF-8 text.

    Raises:
        UserError: It cannot be read, has lines of both forms, or names a class twice.
    """
    try:
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = (isinstance(error, OSError) and error.strerror) or "it is no UTF-8 text"
        raise UserError(f"--class-map {path}: cannot be read ({reason}); give a text file with {FORM}") from None
    rows = [_columns(line) for line in lines]
    widths = {len(row) for row in rows}
    if widths == {1}:
        mapped = [(row[0], str(number)) for number, row in enumerate(rows)]
    elif 2 in widths and widths <= {0, 2}:
        mapped = [(row[0], row[1]) for row in rows if row]
    else:
        what = "it is empty" if not rows else "some lines have one column and others not, such as line " + _odd_line(rows)
        raise UserError(f"--class-map {path}: {what}; wanted {FORM}, or one class a line, in the order of the logits")
    if twice := [name for name, times in Counter(name for name, _ in mapped).items() if times > 1]:
        raise UserError(f"--class-map {path}: names the class {twice[0]} twice; keep one of the lines")
    return dict(mapped)


def _odd_line(rows: list[list[str]]) -> str:
    """Number of the first line that is not as the first one is."""
    return str(next(number for number, row in enumerate(rows, 1) if len(row) != len(rows[0])))


def _columns(line: str) -> list[str]:
    """None, one or two columns."""
    return [part.strip() for part in line.strip().split("\t" if "\t" in line.strip() else None, 1)]
