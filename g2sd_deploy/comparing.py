"""What `g2sd report RUN RUN...` does: read the runs, pair their students, render one page."""

from collections.abc import Sequence
from pathlib import Path

from g2sd_deploy.errors import UserError
from g2sd_deploy.pairing import pair_students
from g2sd_deploy.report import Rendered, read_run, render_comparison


def compare_runs(folders: Sequence[Path]) -> Rendered:
    """Several runs side by side.

    Args:
        folders: Run folders, at least two, in the order to show them.

    Raises:
        UserError: One is given twice or is no run folder, or a file does not hold what its stage writes.
    """
    places = [folder.resolve() for folder in folders]
    for number, (place, folder) in enumerate(zip(places, folders, strict=True)):
        if place in places[:number]:
            raise UserError(f"{folder}: is given twice; give each run once")
    runs = [read_run(folder) for folder in folders]
    return render_comparison(runs, [str(place) for place in places], pair_students(folders, runs))
