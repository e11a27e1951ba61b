"""AdamW parameter groups: what is decayed, and how fast each layer learns."""

import re

from torch import nn
from torch.optim import AdamW

from g2sd_deploy.settings import TrainSettings

_BLOCK = re.compile(r"encoder\.blocks\.(\d+)\.")
_EMBEDDINGS = ("encoder.patch_embed.", "encoder.cls_token", "encoder.pos_embed")


def layer_scale(name: str, depth: int, decay: float) -> float:
    """Learning-rate factor of a classifier's parameter under layer decay.

    Embeddings are layer 0, block i is layer i + 1; norm, heads and distillation token learn at the full rate.
    Source: facebookresearch/mae@efb2a80, util/lr_decay.py.
    """
    if name.startswith(_EMBEDDINGS):
        layer = 0
    elif found := _BLOCK.match(name):
        layer = int(found[1]) + 1
    else:
        layer = depth + 1
    return float(decay ** (depth + 1 - layer))


def build_optimizer(
    model: nn.Module,
    settings: TrainSettings,
    *,
    depth: int = 0,
    layer_decay: float = 1.0,
    no_decay: tuple[str, ...] = (),
    prefix: str = "",
) -> AdamW:
    """AdamW with one group per learning rate and weight decay; each group carries its `lr_scale`.

    Args:
        model: Parameters that do not require a gradient are left out.
        settings: Betas and weight decay; vectors and biases are not decayed.
        depth: Encoder blocks; needed with layer decay.
        layer_decay: Factor between neighbouring layers; 1 gives every layer the same rate.
        no_decay: Last part of the names of further parameters that are not decayed.
        prefix: Start of the names under which the network with the encoder lies in `model`.

    Raises:
        ValueError: Layer decay is asked for, and no parameter is in a block of an encoder: it would silently do nothing.
    """
    named = [(name.removeprefix(prefix), parameter) for name, parameter in model.named_parameters()]
    if layer_decay != 1.0 and not any(_BLOCK.match(name) for name, _ in named):
        raise ValueError(f"layer_decay is {layer_decay}, but no name of a parameter starts with {prefix}encoder.blocks.")
    groups: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        if not parameter.requires_grad:
            continue
        scale = 1.0 if layer_decay == 1.0 else layer_scale(name, depth, layer_decay)
        decayed = parameter.ndim > 1 and name.rpartition(".")[2] not in no_decay
        groups.setdefault((scale, settings.weight_decay if decayed else 0.0), []).append(parameter)
    described = [{"params": params, "lr_scale": scale, "weight_decay": decay} for (scale, decay), params in groups.items()]
    return AdamW(described, lr=0.0, betas=settings.betas, fused=True)
