"""The processes of one run: who is which, and how they agree. One process needs none of it and loads none of it."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from g2sd_deploy.errors import RunFailed, Stopped, UserError

if TYPE_CHECKING:
    import torch

T = TypeVar("T")
E = TypeVar("E", bound=BaseException)
_FOREVER = timedelta(days=365)
"""How long the others wait for a stage that the first process does alone; a process that dies ends them all sooner (torchrun)."""
_LOST_SIGNS = ("timed out", "timeout", "connection closed by peer", "connection reset", "connection refused", "broken pipe")


@contextmanager
def lost_rank_told() -> Iterator[None]:
    """Turn what torch.distributed raises about a process that does not answer into one sentence.

    Raises:
        RunFailed: Another process hung or died.
    """
    try:
        yield
    except RuntimeError as error:
        if not any(sign in str(error).lower() for sign in _LOST_SIGNS):
            raise
        raise RunFailed(
            f"another process of this run did not answer ({str(error).splitlines()[0][:160]}): it hung, died or lost its network; see "
            "what it wrote, raise --rank-timeout if its steps are only slow, and run the same command again: it goes on from the last "
            "checkpoint"
        ) from None


@dataclass(frozen=True)
class Ranks:
    """The processes that work on one run together.

    Attributes:
        rank: This process, from 0; 0 decides, writes and speaks.
        num: Processes of the run, on all machines.
        local_rank: This process among those of its machine.
        groups: Where these processes meet: `waiting` for long work of the first one, and at the `steps` of training, which all do at once.
    """

    rank: int = 0
    num: int = 1
    local_rank: int = 0
    groups: dict[str, Any] = field(default_factory=dict, compare=False)

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    def from_main(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, in every process; the others wait for it.

        Raises:
            UserError, RunFailed, Stopped: It was raised there; it is raised everywhere, and only the first process tells it.
            RunFailed: Another process died.
        """
        if self.num == 1:
            return work()
        import torch.distributed as dist

        box: list[Any] = [None, None]
        if self.is_main:
            try:
                box[0] = work()
            except (UserError, RunFailed, Stopped) as error:
                box[1] = error
        try:
            with lost_rank_told():
                dist.broadcast_object_list(box, src=0, group=self.groups["waiting"])
        except RunFailed:  # the others are gone; what happened here is the reason
            if box[1] is None:
                raise
        if box[1] is not None:
            raise self.told_once(box[1])
        return cast("T", box[0])

    def told_once(self, error: E) -> E:
        """Mark an error that every process raises, so that only the first one tells it."""
        error.told = not self.is_main  # type: ignore[attr-defined]
        return error

    def leave(self) -> None:
        """End the meeting; the process can go on alone."""
        if self.num > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def gather(self, value: T) -> list[T]:
        """The value of each process, in every process.

        Raises:
            RunFailed: One does not answer.
        """
        if self.num == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.num
        with lost_rank_told():
            dist.all_gather_object(found, value, group=self.groups["steps"])
        return found

    def vote(self) -> "Vote":
        return Vote(self.groups.get("steps"))


class Vote:
    """What any process asked for, known to all of them one step later, so that no step waits for it.

    Every process has to call `cast` at every step.
    """

    def __init__(self, group: Any) -> None:
        self._group = group
        self._pending: tuple[Any, torch.Tensor] | None = None

    def cast(self, *wishes: bool) -> list[bool]:
        """Hand in this step's wishes; returns what was wished for at the step before (at this one where a process is alone)."""
        if self._group is None:
            return list(wishes)
        import torch
        import torch.distributed as dist

        before = self._pending
        box = torch.tensor(wishes, dtype=torch.int32)
        self._pending = dist.all_reduce(box, op=dist.ReduceOp.MAX, group=self._group, async_op=True), box
        if before is None:
            return [False] * len(wishes)
        before[0].wait()
        return [bool(value) for value in before[1].tolist()]

    def close(self) -> None:
        """Wait for what is under way, so that no process leaves the others in the middle of it."""
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None


def join_ranks(*, on_cpu: bool, timeout_s: float) -> Ranks:
    """Meet the other processes that torchrun, accelerate launch or Slurm's srun started; a process started by itself is alone.

    Args:
        on_cpu: Compute on the CPU even where there is a GPU.
        timeout_s: How long a training step waits for a process that does not answer.

    Raises:
        UserError: The environment names several processes, but they cannot meet.
    """
    num = int(os.environ.get("WORLD_SIZE", "1"))
    if num == 1:
        return Ranks()
    import torch.distributed as dist
    from accelerate import PartialState

    timeout = timedelta(seconds=timeout_s)
    try:
        # NCCL ends a process without a word where it waits too long, so let gloo, which raises, be the first
        state = PartialState(cpu=on_cpu, timeout=timeout if on_cpu else 2 * timeout)
        groups = {"waiting": dist.new_group(backend="gloo", timeout=_FOREVER), "steps": dist.new_group(backend="gloo", timeout=timeout)}
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"the {num} processes of this run cannot meet ({reason}); start them with torchrun or accelerate launch, and check "
            "MASTER_ADDR, MASTER_PORT and the network between the machines"
        ) from None
    return Ranks(state.process_index, state.num_processes, state.local_process_index, groups)
