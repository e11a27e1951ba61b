"""Casting a frozen network once against autocast, which casts it every time."""

from collections.abc import Callable
from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.models.frozen import cast_frozen
from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import Classifier, EncoderSpec

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4)


def randomised(model: nn.Module) -> nn.Module:
    for parameter in model.requires_grad_(False).parameters():
        parameter.normal_(std=0.3)
    return model.eval()


def hidden_states(model: nn.Module, images: Tensor) -> Tensor:
    assert isinstance(model, MaskedAutoencoder)
    mask = mask_from_noise(torch.rand(len(images), 9, generator=torch.Generator().manual_seed(3)), 0.5)
    return model.hidden_states(images, mask, 2)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], Callable[[nn.Module, Tensor], Tensor]]] = {
    "masked": (lambda: MaskedAutoencoder(SPEC, DecoderSpec(8, 3, 2)), hidden_states),
    "classifier, mean": (lambda: Classifier(SPEC, 5, pooling="mean"), lambda model, images: model(images)),
    "classifier, token": (lambda: Classifier(SPEC, 5, pooling="cls", token="deit"), lambda model, images: model(images)),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("network", NETWORKS)
def test_a_network_that_was_cast_computes_the_same_bits_as_autocast(network: str, dtype: torch.dtype) -> None:
    make, compute = NETWORKS[network]
    model, images = randomised(make()), torch.randn(3, 3, 12, 12)
    cast = deepcopy(model)
    cast_frozen(cast, dtype)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        assert torch.equal(compute(cast, images), compute(model, images))
    with torch.no_grad():
        assert not torch.equal(compute(model, images), compute(deepcopy(model).to(dtype), images.to(dtype)).float())


def test_matrices_take_half_the_memory_and_norms_and_tokens_stay_as_they_are() -> None:
    model = randomised(Classifier(SPEC, 5, pooling="mean"))
    cast_frozen(model, torch.bfloat16)
    for name, parameter in model.named_parameters():
        part = name.split(".")
        kept = part[-1] in ("cls_token", "pos_embed") or any(word.startswith("norm") for word in part)
        assert parameter.dtype == (torch.float32 if kept else torch.bfloat16), name


def test_float32_changes_nothing_and_a_trained_weight_is_refused() -> None:
    model = Classifier(SPEC, 5, pooling="mean")
    cast_frozen(model, torch.float32)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    model.requires_grad_(False)
    model.head.bias.requires_grad_(True)
    with pytest.raises(ValueError, match=r"head\.bias is trained; only a frozen network can be cast for good"):
        cast_frozen(model, torch.bfloat16)
