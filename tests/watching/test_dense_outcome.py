"""What is said of a finished evaluation of a task."""

import pytest

from g2sd_deploy.watching.outcome import outcome_of


@pytest.mark.parametrize(
    ("models", "told"),
    [
        ({"student": {"miou": 0.41}, "teacher": {"miou": 0.5}}, "mIoU teacher 50.00 %, student 41.00 %"),
        ({"student": {"miou": None}, "teacher": {"miou": 0.5}}, "mIoU teacher 50.00 %"),
        (
            {"teacher": {"box": {"ap": 0.4}, "mask": {"ap": 0.3}}, "student": {"box": {"ap": 0.2}}, "baseline": {"box": {"ap": 0.1}}},
            "box AP teacher 40.00 %, student 20.00 %, baseline 10.00 %",
        ),
        ({"student": {"clean": {"top1": 0.9}}}, "top-1 student 90.00 %"),
        ({"student": {"box": {"ap": None}}}, ""),
    ],
)
def test_an_evaluation_is_told_by_the_figure_of_its_task(models: dict[str, object], told: str) -> None:
    assert outcome_of("evaluate", {"models": models}) == told
