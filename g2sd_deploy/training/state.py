"""Everything that training changes, as named tensors: weights, their moving average, the optimiser's state, the loss scale.

One format for one process and for many, copied (DDP) or sharded (FSDP): a sharded tensor is gathered to be saved and cut up to be loaded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

_SCALE_KEYS = ("scale", "_growth_tracker")


@dataclass(frozen=True)
class TrainState:
    """What a checkpoint holds.

    Attributes:
        learner: The network that is trained; never the wrapper that DDP puts around it.
        optimizer: Has the learner's parameters.
        average: Moving average of the learner's trained parameters by name; empty without one.
        scaler: Scales the loss where training is in fp16.
    """

    learner: nn.Module
    optimizer: Optimizer
    average: dict[str, Tensor]
    scaler: torch.amp.GradScaler | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Whole tensors on the CPU, by name; with several processes all of them have to ask."""
        named = dict(self._named())
        gathered = {name: value.full_tensor() if isinstance(value, DTensor) else value for name, value in named.items()}
        return {name: value.detach().to("cpu", copy=True).contiguous() for name, value in gathered.items()} | self._scale()

    @property
    def num_bytes(self) -> int:
        """Size of a checkpoint; whole once the optimiser has made a step."""
        return sum(value.numel() * value.element_size() for _, value in self._named())

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Take over what `tensors` gave; the optimiser need not have made a step yet.

        Raises:
            ValueError: The names or shapes are those of another training.
        """
        self._make_optimizer_state(tensors)
        named = dict(self._named())
        wanted = named.keys() | self._scale().keys()
        if wanted != tensors.keys():
            raise ValueError(f"the checkpoint is of another training: {sorted(wanted ^ tensors.keys())[:3]} are in one only")
        with torch.no_grad():
            for name, value in named.items():
                value.copy_(like(tensors[name], value))
        if self.scaler is not None:
            growth = {"_growth_tracker": int(tensors["scaler._growth_tracker"])}
            self.scaler.load_state_dict(self.scaler.state_dict() | {"scale": tensors["scaler.scale"].item()} | growth)

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        frozen = {name for name, parameter in self.learner.named_parameters() if not parameter.requires_grad}
        for name, value in self.learner.state_dict().items():
            if name not in frozen:
                yield f"model.{name}", value
        for name, value in self.average.items():
            yield f"average.{name}", value
        for name, parameter in self.learner.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                yield f"optimizer.{key}.{name}", value

    def _make_optimizer_state(self, tensors: Mapping[str, Tensor]) -> None:
        """An optimiser makes its state in its first step; make it here, by the names that were saved."""
        parameters = dict(self.learner.named_parameters())
        for name, value in tensors.items():
            kind, _, rest = name.partition(".")
            key, _, parameter = rest.partition(".")
            if kind == "optimizer" and parameter in parameters:
                owner = parameters[parameter]
                whole = value.to(owner.device)
                self.optimizer.state[owner][key] = like(whole, owner).clone() if value.shape == owner.shape else whole

    def _scale(self) -> dict[str, Tensor]:
        if self.scaler is None:
            return {}
        found = self.scaler.state_dict()
        return {f"scaler.{key}": torch.tensor(found[key]) for key in _SCALE_KEYS}


def like(whole: Tensor, model: Tensor) -> Tensor:
    """A whole tensor, sharded as `model` is."""
    if not isinstance(model, DTensor):
        return whole
    return distribute_tensor(whole.to(model.device), model.device_mesh, model.placements)
