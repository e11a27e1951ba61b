"""Where the rows of a training's history go while it runs: metrics.jsonl always, TensorBoard, W&B and MLflow where asked for."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.tracking import GeneralTracker, MLflowTracker, TensorBoardTracker, WandBTracker

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.runtime import Tracker
from g2sd_deploy.stage_lines import lines_of_others
from g2sd_deploy.training.record import Row

METRICS_FILE = "metrics.jsonl"
TRACKING_FOLDER = "tracking"


class MetricsFile:
    """`metrics.jsonl` of a run: one JSON object per logged step of every stage, in the order of the stages.

    Args:
        path: The file; made where it is missing.
        stage: Whose rows are written; older rows of it are replaced.
        num_steps: Steps of the whole stage, told in each row for who watches.
    """

    def __init__(self, path: Path, stage: str, num_steps: int) -> None:
        self._path, self._stage, self._num_steps = path, stage, num_steps

    def begin(self, history: Sequence[Row]) -> None:
        """Keep the rows of other stages, and of this one those that a checkpoint holds, without the time and speed of then."""
        others = lines_of_others(self._path, self._stage)
        own = [json.dumps(self._told(row)) for row in history]
        write_text_whole(self._path, "".join(f"{line}\n" for line in [*others, *own]))

    def add(self, row: Row, images_per_s: float) -> None:
        now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({**self._told(row), "images_per_s": round(images_per_s, 1), "time": now}) + "\n")

    def _told(self, row: Row) -> dict[str, int | float | str]:
        return {"stage": self._stage, **row, "num_steps": self._num_steps}


class Trackers:
    """The trackers of one stage, each with a run of its own, for every stage counts its steps from 0.

    Args:
        names: Which.
        run_folder: The run's folder; files of TensorBoard go to its folder `tracking`.
        project: Name of the recipe.
        stage: Name of the stage.
        identity: The same where a training goes on from a checkpoint.
        config: Settings to show.
    """

    def __init__(
        self, names: Sequence[Tracker], run_folder: Path, *, project: str, stage: str, identity: str, config: Mapping[str, Any]
    ) -> None:
        self._names, self._run_folder, self._project = names, run_folder, project
        self._stage, self._identity, self._config = stage, identity, config
        self._open: list[GeneralTracker] = []

    def begin(self, first_step: int) -> None:
        """Open them; `first_step` steps are known from an earlier attempt."""
        PartialState()  # accelerate's trackers ask it which process they are in
        self._open = [self._opened(name, first_step) for name in self._names]
        for tracker in self._open:
            tracker.start()
            tracker.store_init_configuration(_flat(self._config))

    def add(self, row: Row, images_per_s: float) -> None:
        values = {name: value for name, value in row.items() if name != "step"} | {"images_per_s": images_per_s}
        for tracker in self._open:
            tracker.log(values, step=int(row["step"]))

    def finish(self) -> None:
        for tracker in self._open:
            tracker.finish()

    def _opened(self, name: Tracker, first_step: int) -> GeneralTracker:
        match name:
            case "tensorboard":
                folder = self._run_folder / TRACKING_FOLDER
                folder.mkdir(exist_ok=True)
                return TensorBoardTracker(self._stage, folder, purge_step=first_step)
            case "wandb":
                return WandBTracker(self._project, name=self._stage, id=self._identity[:16], resume="allow", dir=str(self._run_folder))
            case "mlflow":
                return MLflowTracker(self._project, run_name=self._stage)


def _flat(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` as `{"a.b": 1}`; what is no number or text is shown as JSON."""
    flat: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[f"{prefix}{name}"] = value if isinstance(value, str | int | float | bool) else json.dumps(value)
    return flat
