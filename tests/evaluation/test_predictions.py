"""Files of predictions, read by another library too."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest

from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.outcomes import outcomes_of
from g2sd_deploy.evaluation.predictions import PredictionWriter, columns_of, predictions_file, read_predictions
from g2sd_deploy.evaluation.running import Case, Passed

NUM = 7


def samples() -> ImageSet:
    return ImageSet(np.zeros((20, 4, 4, 1), np.uint8), np.zeros(20, np.int64))


def logits(num_classes: int = 6) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(NUM, num_classes)).astype(np.float32)


def passed(model: str = "m", scoring: str = "set", variant: str = "", **options: Any) -> Passed:
    outcomes = outcomes_of(options.get("logits", logits()), np.arange(NUM) % 3, right=options.get("right"))
    return Passed({Case(scoring, variant, model): outcomes}, {scoring: np.arange(3, 3 + NUM)}, ())


def written(folder: Path, *parts: tuple[Passed, str]) -> Path:
    with PredictionWriter(folder, ("m",)) as writer:
        for part, variant in parts:
            writer.add(part, samples(), variant=variant)
    return folder / predictions_file("m")


def test_a_file_holds_every_answer_in_order_and_pandas_reads_it(tmp_path: Path) -> None:
    frame = pandas.read_parquet(written(tmp_path, (passed(), "")))
    expected = logits().astype(np.float64)
    probs = np.exp(expected) / np.exp(expected).sum(axis=1, keepdims=True)
    labels = np.arange(NUM) % 3
    assert frame["image"].tolist() == [f"image {i}" for i in range(3, 3 + NUM)] and frame["index"].tolist() == list(range(3, 3 + NUM))
    assert frame["label"].tolist() == labels.tolist()
    assert np.stack(frame["top5"]).tolist() == np.argsort(-expected, axis=1)[:, :5].tolist()
    np.testing.assert_allclose(frame["label_logit"], expected[np.arange(NUM), labels], rtol=1e-6)
    np.testing.assert_allclose(frame["label_prob"], probs[np.arange(NUM), labels], rtol=1e-6)
    np.testing.assert_allclose(frame["top1_prob"], probs.max(axis=1), rtol=1e-6)
    assert frame["correct"].tolist() == (expected.argmax(axis=1) == labels).tolist()
    assert set(frame["set"]) == {"set"} and set(frame["variant"]) == {""}


def test_scorings_and_variants_are_told_apart(tmp_path: Path) -> None:
    file = written(tmp_path, (passed(), ""), (passed(variant="fog/3"), ""), (passed(scoring="imagenet-c"), "snow/5"))
    assert len(read_predictions(file)) == 3 * NUM
    for scoring, variant in (("set", ""), ("set", "fog/3"), ("imagenet-c", "snow/5")):
        assert columns_of(file, scoring, variant)["index"].tolist() == list(range(3, 3 + NUM))
    with pytest.raises(UserError, match=r"holds no predictions of 'set' 'fog/4'; it has those of imagenet-c, set"):
        columns_of(file, "set", "fog/4")


def test_columns_about_the_label_are_empty_where_several_classes_are_right(tmp_path: Path) -> None:
    right = np.zeros((NUM, 6), bool)
    right[:, :2] = True
    frame = pandas.read_parquet(written(tmp_path, (passed(right=right), "")))
    assert frame["label"].isna().all() and frame["label_logit"].isna().all() and frame["label_prob"].isna().all()
    assert frame["correct"].tolist() == (logits().argmax(axis=1) < 2).tolist()


def test_a_set_of_few_classes_has_as_many_answers(tmp_path: Path) -> None:
    file = written(tmp_path, (passed(logits=logits(3)), ""))
    assert columns_of(file, "set")["top5"].shape == (NUM, 3)


def test_the_same_answers_give_the_same_bytes(tmp_path: Path) -> None:
    files = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        files.append(written(tmp_path / name, (passed(), ""), (passed(variant="fog/3"), "")).read_bytes())
    assert files[0] == files[1]


@pytest.mark.parametrize("content", [b"", b"PAR1 cut off", None])
def test_what_is_no_file_of_predictions_is_named(content: bytes | None, tmp_path: Path) -> None:
    file = tmp_path / "predictions-m.parquet"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=r"predictions-m\.parquet: no predictions can be read from it"):
        read_predictions(file)


def test_another_table_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.parquet"
    pandas.DataFrame({"image": ["a"]}).to_parquet(file)
    with pytest.raises(UserError, match="lacks the columns set, variant, index, "):
        read_predictions(file)
