"""How one step is computed on one or many processes: number format, gradients, limits. On Accelerate and torch.distributed."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedDataParallelKwargs
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from g2sd_deploy.errors import UserError
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import TrainSettings
from g2sd_deploy.training.feed import Turn

_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


class Engine:
    """Computes steps for one stage.

    Args:
        runtime: Device, processes, and whether to compile or to shard.
        settings: Number format, and the limit of the gradient.
        partly_used: A step leaves some trained parameters without a gradient; DDP would wait for them.

    Raises:
        UserError: The device has no such number format.
    """

    def __init__(self, runtime: Runtime, settings: TrainSettings, *, partly_used: bool = False) -> None:
        on_cpu = runtime.device.type == "cpu"
        if on_cpu and settings.precision == "fp16":
            raise UserError("precision fp16 needs a GPU (its loss scale does); use bf16 or fp32 on the CPU")
        self.runtime = runtime
        self._clip = settings.clip_grad
        ddp = DistributedDataParallelKwargs(gradient_as_bucket_view=True, find_unused_parameters=partly_used)
        AcceleratorState._reset_state()  # another stage may have had another number format; the processes stay met
        self._accelerator = Accelerator(mixed_precision=_MIXED[settings.precision], cpu=on_cpu, kwargs_handlers=[ddp])

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        """Scale of the loss, in fp16."""
        return cast("torch.amp.GradScaler | None", self._accelerator.scaler)

    def prepare(self, learner: nn.Module, optimizer: Optimizer) -> tuple[nn.Module, Optimizer]:
        """What to call and to step instead of the two: wrapped for the processes, the number format and the compiler.

        `learner` still holds the parameters afterwards; sharded ones are shards of them, and `optimizer` knows those.
        """
        if self.runtime.compiled:
            learner.compile()
        if not self.runtime.sharded:
            return cast("tuple[nn.Module, Optimizer]", self._accelerator.prepare(learner, optimizer))
        before = dict(learner.named_parameters())
        fully_shard(learner)
        after = {id(before[name]): parameter for name, parameter in learner.named_parameters()}
        for group in optimizer.param_groups:
            group["params"] = [after[id(parameter)] for parameter in group["params"]]
        return learner, cast("Optimizer", self._accelerator.prepare(optimizer))

    def add_gradients(self, model: nn.Module, inputs: Any, turn: Turn) -> tuple[dict[str, Tensor], Tensor]:
        """The loss terms of one piece of a step and their sum; its gradients are added to the parameters'.

        Nothing here outlives the call, so that no graph is held once memory did not suffice and a smaller piece is tried.
        """
        with self._exchanging(model, ends_step=turn.ends_step):
            with self._accelerator.autocast():
                terms = model(inputs)
                loss = torch.stack(list(terms.values())).sum()
            self._accelerator.backward(loss * turn.share)
        return {name: term.detach() for name, term in terms.items()}, loss.detach()

    def _exchanging(self, model: nn.Module, *, ends_step: bool) -> AbstractContextManager[Any]:
        """Gradients are exchanged between the processes with the last piece of a step only."""
        if ends_step or self.runtime.ranks.num == 1:
            return nullcontext()
        return self._no_exchange(model) if isinstance(model, FSDPModule) else self._accelerator.no_sync(model)

    @contextmanager
    def _no_exchange(self, model: FSDPModule) -> Iterator[None]:
        model.set_requires_gradient_sync(False)
        try:
            yield
        finally:
            model.set_requires_gradient_sync(True)

    def clip(self, model: nn.Module) -> Tensor | None:
        """Shorten a gradient that is longer than the limit; returns its length before, None where there is no limit."""
        if self._clip is None:
            return None
        self._accelerator.unscale_gradients()
        norm = nn.utils.clip_grad_norm_(model.parameters(), self._clip)
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def finish(self, learner: nn.Module) -> None:
        """Put whole weights into a sharded network, so that it can be saved; it cannot compute any more."""
        if not self.runtime.sharded:
            return
        for module in learner.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                shard = parameter.detach()
                if isinstance(shard, DTensor):
                    setattr(module, name, nn.Parameter(shard.full_tensor(), requires_grad=parameter.requires_grad))

    def mean_over_ranks(self, terms: Mapping[str, Tensor]) -> dict[str, float]:
        """Numbers of this process's share of a step, averaged over all processes."""
        values = torch.stack(list(terms.values()))
        reduced = cast("Tensor", self._accelerator.reduce(values, "mean"))
        return dict(zip(terms, reduced.tolist(), strict=True))
