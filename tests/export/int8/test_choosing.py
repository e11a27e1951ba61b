"""INT8 only if it wins, and the reason is said."""

import math
from pathlib import Path

import pytest

from g2sd_export.int8.choosing import Score, choose, rescued
from g2sd_export.int8.quantise import Quantised, Source
from g2sd_export.int8.sensitivity import Sensitivity
from g2sd_export.onnx_file import OnnxInfo


def made(method: str, **changes: object) -> Quantised:
    return Quantised(method, "cpu", OnnxInfo(Path(f"{method}.onnx"), "0" * 64, 1, 20, 10), **changes)  # type: ignore[arg-type]


FILES = [made("nncf"), made("ort-entropy"), made("ort-smooth")]


def scored(**scores: Score) -> dict[str, Score]:
    return {name.replace("_", "-"): score for name, score in scores.items()}


def test_the_fastest_inside_the_budget_wins_and_a_tie_goes_to_the_more_accurate() -> None:
    scores = scored(nncf=Score(0.2, 10.0), ort_entropy=Score(0.1, 10.2), ort_smooth=Score(0.0, 12.0))
    choice = choose(FILES, lambda file: scores[file.method], float_latency_ms=20)
    assert choice.accepted is FILES[1]
    assert choice.reason == "ort-entropy takes 10.2 ms, float 20 ms, and loses 0.10 points of top-1"


def test_a_file_outside_the_budget_does_not_win_however_fast() -> None:
    scores = scored(nncf=Score(0.31, 1.0), ort_entropy=Score(math.nan, 1.0), ort_smooth=Score(0.3, 12.0))
    assert choose(FILES, lambda file: scores[file.method], float_latency_ms=20).accepted is FILES[2]


def test_float_is_taken_if_nothing_keeps_the_budget() -> None:
    scores = scored(nncf=Score(1.5, 1.0), ort_entropy=Score(math.nan, 1.0), ort_smooth=Score(0.9, 1.0))
    choice = choose(FILES, lambda file: scores[file.method], float_latency_ms=20)
    assert choice.accepted is None
    assert choice.reason == "INT8 is not used: the best of 3, ort-smooth, loses 0.90 points of top-1, and the budget is 0.3"


@pytest.mark.parametrize("latency", [20.0, 19.5, 30.0])
def test_float_is_taken_if_int8_is_not_faster(latency: float) -> None:
    choice = choose(FILES[:1], lambda file: Score(0.0, latency), float_latency_ms=20)
    assert choice.accepted is None and f"not faster (nncf takes {latency:.3g} ms, float 20 ms)" in choice.reason


def test_without_a_clock_accuracy_decides_and_flips_break_the_tie() -> None:
    scores = scored(nncf=Score(0.1, None, 0.02), ort_entropy=Score(0.1, None, 0.01), ort_smooth=Score(0.2))
    assert choose(FILES, lambda file: scores[file.method]).accepted is FILES[1]


def test_methods_without_a_file_are_named() -> None:
    gone = Quantised("modelopt", "cpu", None, why_not="its package is not installed (x)")
    choice = choose([gone, FILES[0]], lambda file: Score(0.0))
    assert choice.accepted is FILES[0] and choice.to_dict()["missing"] == {"modelopt": "its package is not installed (x)"}
    nothing = choose([gone], lambda file: Score(0.0))
    assert nothing.accepted is None and "no file was made (modelopt: its package" in nothing.reason


def test_layers_are_kept_in_float_until_the_budget_is_met(source: Source, tmp_path: Path) -> None:
    order = [Sensitivity(group, 1.0 / (at + 1), 0.0) for at, group in enumerate(source.groups)]

    def score(file: Quantised) -> Score:
        return Score(1.0 / len(file.kept))

    arguments = {"scheme": "cpu", "order": order, "most": 5}
    tried = rescued(source, source.images, "ort-minmax", score, folder=tmp_path, budget_points=0.3, **arguments)  # type: ignore[arg-type]
    assert [len(file.kept) for file in tried] == [1, 2, 4] and tried[-1].kept == tuple(source.groups[:4])
    hopeless = rescued(source, source.images, "ort-minmax", score, folder=tmp_path, budget_points=0.0, **arguments)  # type: ignore[arg-type]
    assert [len(file.kept) for file in hopeless] == [1, 2, 4, 5]
