"""Exponential moving average of the weights."""

import torch
from torch import Tensor, nn


class MovingAverage:
    """Average of the trained parameters over the steps; begins with the weights after the first step.

    Source: average = decay * average + (1 - decay) * weights, as timm's ModelEmaV3 and torch's AveragedModel compute it.
    Differs: holds tensors instead of a second network, so that it works on sharded parameters too.

    Args:
        model: Its parameters are averaged; what is not trained stays as it is.
        decay: In (0, 1); None keeps no average.
    """

    def __init__(self, model: nn.Module, decay: float | None) -> None:
        self._decay = decay
        self._parameters = {} if decay is None else {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.values: dict[str, Tensor] = {name: p.detach().clone() for name, p in self._parameters.items()}

    @torch.no_grad()
    def update(self, num_steps: int) -> None:
        """Take in the weights after `num_steps` optimiser steps, counted from 1."""
        if self._decay is None:
            return
        weight = 1.0 if num_steps == 1 else 1.0 - self._decay
        torch._foreach_lerp_(list(self.values.values()), list(self._parameters.values()), weight)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average into the model."""
        for name, parameter in self._parameters.items():
            parameter.copy_(self.values[name])
