"""Where and with what a run is computed. None of it is part of a recipe, for it changes no result beyond the order of sums."""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, cast, get_args

from g2sd_deploy.errors import UserError
from g2sd_deploy.ranks import Ranks, join_ranks

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda"]
Tracker = Literal["tensorboard", "wandb", "mlflow"]
_MAX_WORKERS = 16


@dataclass(frozen=True)
class CheckpointEvery:
    """How often training saves; whichever comes first."""

    minutes: float | None = 10.0
    steps: int | None = None


@dataclass(frozen=True)
class Trial:
    """A training that is only begun, to see how fast it is; what it makes is no result.

    Attributes:
        seconds: When this is over the training ends, but not before `min_steps`.
        min_steps: Fewest optimiser steps, if the training has so many.
        image_bytes: What all decoded training images would take, of which the trial has only some.
    """

    seconds: float
    min_steps: int
    image_bytes: int


@dataclass(frozen=True)
class Runtime:
    """How this process computes.

    Attributes:
        device: Where.
        ranks: The processes of the run.
        workers: Processes that decode and augment images for this one; None decides by the machine's cores.
        micro_batch: Most images of one forward pass; a larger share of a batch is accumulated. None takes the share at once.
        compiled: Compile the networks with torch.compile.
        sharded: Share weights, gradients and optimiser state among the processes (FSDP) instead of copying them (DDP).
        checkpoint_every: When training saves.
        trackers: Where metrics are sent, beside metrics.jsonl.
        trial: Training is only begun; None does all of it.
    """

    device: "torch.device"
    ranks: Ranks = field(default_factory=Ranks)
    workers: int | None = None
    micro_batch: int | None = None
    compiled: bool = False
    sharded: bool = False
    checkpoint_every: CheckpointEvery = field(default_factory=CheckpointEvery)
    trackers: tuple[Tracker, ...] = ()
    trial: Trial | None = None

    @property
    def num_workers(self) -> int:
        """Worker processes of this process: those asked for, or the cores that are left when every process of the machine has one."""
        if self.workers is not None:
            return self.workers
        from g2sd_export.edge.runner import available_cpus

        return max(1, min(_MAX_WORKERS, available_cpus() // _local_processes() - 1))

    @property
    def num_threads(self) -> int:
        """Threads of this process that evaluate: as many as workers are asked for, or its share of the cores."""
        if self.workers is not None:
            return max(1, self.workers)
        from g2sd_export.edge.runner import available_cpus

        return max(1, available_cpus() // _local_processes())


def _local_processes() -> int:
    """Processes of the run on this machine."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def choose_device(name: DeviceName | None, local_rank: int = 0) -> "torch.device":
    """The device asked for, or a CUDA GPU where there is one, else the CPU.

    Args:
        name: Kind of device.
        local_rank: Which of the machine's GPUs.

    Raises:
        UserError: `cuda` is asked for and torch cannot use one, or the machine has fewer GPUs than processes.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(f"--device cuda: torch {torch.__version__} ({built}) finds no usable GPU; run `g2sd doctor`, or use --device cpu")
    kind = name or ("cuda" if has_cuda else "cpu")
    if kind == "cpu":
        return torch.device("cpu")
    if local_rank >= torch.cuda.device_count():
        raise UserError(f"there are {torch.cuda.device_count()} GPUs, but a process with local rank {local_rank}; start fewer processes")
    return torch.device("cuda", local_rank)


def make_runtime(
    device: DeviceName | None,
    *,
    workers: int | None = None,
    micro_batch: int | None = None,
    compiled: bool = False,
    sharded: bool = False,
    checkpoint_every: str = "10m",
    track: Sequence[str] = (),
    rank_timeout_s: float = 600.0,
) -> Runtime:
    """The runtime that the command's options ask for; meets the other processes where there are any.

    Raises:
        UserError: An option cannot be had.
    """
    every, trackers = parse_checkpoint_every(checkpoint_every), tuple(_tracker(name) for name in track)
    wanted = choose_device(device)
    ranks = join_ranks(on_cpu=wanted.type == "cpu", timeout_s=rank_timeout_s)
    if sharded and ranks.num == 1:
        raise UserError("--shard shares a model among several processes, but there is one; start them with torchrun, or drop --shard")
    return Runtime(choose_device(device, ranks.local_rank), ranks, workers, micro_batch, compiled, sharded, every, trackers)


def parse_checkpoint_every(text: str) -> CheckpointEvery:
    """`10m` (minutes) or `500` (optimiser steps).

    Raises:
        UserError: It is neither.
    """
    if found := re.fullmatch(r"(\d+(?:\.\d+)?)m", text):
        return CheckpointEvery(minutes=float(found[1]))
    if re.fullmatch(r"[1-9]\d*", text):
        return CheckpointEvery(minutes=None, steps=int(text))
    raise UserError(f"--checkpoint-every {text}: give minutes as 10m, or optimiser steps as 500")


def _tracker(name: str) -> Tracker:
    from importlib.util import find_spec

    if name not in get_args(Tracker):
        raise UserError(f"--track {name}: unknown; wanted one of {', '.join(get_args(Tracker))}")
    if find_spec(name) is None:
        raise UserError(f"--track {name}: the package is not installed; pip install {name}")
    return cast("Tracker", name)
