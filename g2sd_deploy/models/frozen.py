"""Frozen networks in the number format that autocast would give them."""

import torch
from torch import nn

from g2sd_deploy.models.vit import PatchEmbed


def cast_frozen(model: nn.Module, dtype: torch.dtype) -> None:
    """Cast the weights of linear layers once, in place, where autocast would cast them again at every forward pass.

    Within a step autocast keeps the copies of weights that are trained; those of frozen ones it makes anew. What is computed is the same
    to the bit, and the weights take half of the memory. From here on the model can be run under autocast of this type alone.

    Args:
        model: Ours, without gradients.
        dtype: Autocast's number format. float32: nothing is done.

    Raises:
        ValueError: A weight of the model is trained.
    """
    if dtype == torch.float32:
        return
    trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
    if trained:
        raise ValueError(f"{trained[0]} is trained; only a frozen network can be cast for good")
    for module in model.modules():
        if isinstance(module, nn.Linear | PatchEmbed):
            module.to(dtype)
