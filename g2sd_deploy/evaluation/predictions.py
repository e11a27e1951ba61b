"""What a model answered for every image, as a Parquet file: any later comparison of two models is paired."""

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Int64

from g2sd_deploy.data.images import Samples
from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.outcomes import Outcomes
from g2sd_deploy.evaluation.running import Case, Passed

_TEXT = pa.dictionary(pa.int32(), pa.string())
SCHEMA = pa.schema(
    [
        ("set", _TEXT),
        ("variant", _TEXT),
        ("image", pa.string()),
        ("index", pa.int32()),
        ("label", pa.int32()),
        ("top5", pa.list_(pa.int32())),
        ("label_logit", pa.float32()),
        ("label_prob", pa.float32()),
        ("top1_prob", pa.float32()),
        ("correct", pa.bool_()),
    ]
)
"""`set` is the scoring, `variant` what was done to the image ("" is nothing, "fog/3", "random/0.25"), `image` its name within the set,
`index` its place there; `label` and `top5` are classes of the scoring, by falling logit; the columns of the label are null where several
classes are right."""


def predictions_file(model: str) -> str:
    """Name of a model's file."""
    return f"predictions-{model}.parquet"


class PredictionWriter:
    """Writes the files of several models, a pass after the other, in memory that does not grow with the number of images.

    Args:
        folder: Where the files go.
        models: Names of the models; each gets a file.
    """

    def __init__(self, folder: Path, models: tuple[str, ...]) -> None:
        self._files = {model: folder / predictions_file(model) for model in models}
        self._writers: dict[str, pq.ParquetWriter] = {}
        self._open = ExitStack()

    def __enter__(self) -> "PredictionWriter":
        for model, file in self._files.items():
            self._writers[model] = self._open.enter_context(pq.ParquetWriter(file, SCHEMA, compression="zstd"))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._open.__exit__(kind, error, trace)

    def add(self, passed: Passed, samples: Samples, *, variant: str = "") -> None:
        """Append what a pass found.

        Args:
            passed: Some images of the pass.
            samples: The images, for their names.
            variant: What the whole set is a variant of ("fog/3" for a folder of ImageNet-C).
        """
        names = {scoring: [_text(samples.name(int(i))) for i in index] for scoring, index in passed.index.items()}
        tables: dict[str, list[pa.Table]] = {}
        for case, outcomes in passed.outcomes.items():
            table = _table(case, variant, names[case.scoring], passed.index[case.scoring], outcomes)
            tables.setdefault(case.model, []).append(table)
        for model, parts in tables.items():
            self._writers[model].write_table(pa.concat_tables(parts, promote_options="default").unify_dictionaries())


def read_predictions(file: Path) -> pa.Table:
    """A model's file.

    Raises:
        UserError: It is not there, damaged, or not a file of predictions.
    """
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{file}: no predictions can be read from it ({' '.join(str(error).split())}); evaluate the model again") from None
    if missing := [name for name in SCHEMA.names if name not in table.column_names]:
        raise UserError(f"{file}: lacks the columns {', '.join(missing)}; wanted a file that g2sd evaluate --save-predictions wrote")
    return table


def columns_of(file: Path, scoring: str, variant: str = "") -> Mapping[str, np.ndarray]:
    """Rows of one scoring and variant as arrays by column; `top5` is [N, 5] or narrower.

    Raises:
        UserError: As in `read_predictions`, or there are no such rows.
    """
    import pyarrow.compute as pc

    table = read_predictions(file)
    rows = table.filter(pc.and_(pc.equal(table["set"], scoring), pc.equal(table["variant"], variant)))
    if not len(rows):
        known = ", ".join(sorted({*table["set"].to_pylist()}))
        raise UserError(f"{file}: holds no predictions of {scoring!r} {variant!r}; it has those of {known}")
    found = {name: rows[name].to_numpy() for name in SCHEMA.names if name != "top5"}
    return found | {"top5": np.stack(rows["top5"].to_numpy())}


def _table(case: Case, variant: str, names: list[str], index: Int64[np.ndarray, "num"], outcomes: Outcomes) -> pa.Table:
    one_label = outcomes.label >= 0
    columns = [
        _repeated(case.scoring, len(names)),
        _repeated(case.variant or variant, len(names)),
        pa.array(names),
        pa.array(index.astype(np.int32)),
        pa.array(outcomes.label.astype(np.int32), mask=~one_label),
        _lists(outcomes.top5),
        pa.array(outcomes.label_logit.astype(np.float32), mask=~one_label),
        pa.array(outcomes.label_prob.astype(np.float32), mask=~one_label),
        pa.array(outcomes.top1_prob.astype(np.float32)),
        pa.array(outcomes.rank == 0),
    ]
    return pa.Table.from_arrays(columns, schema=SCHEMA)


def _repeated(text: str, num: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(np.zeros(num, dtype=np.int32), [text])


def _lists(rows: np.ndarray) -> pa.Array:
    num, width = rows.shape
    offsets = np.arange(0, num * width + 1, width, dtype=np.int32)
    return pa.ListArray.from_arrays(offsets, rows.astype(np.int32).ravel())


def _text(name: str) -> str:
    """A file name as text, also where it is none."""
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
