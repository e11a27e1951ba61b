"""Every test runs the packages with their shape annotations checked, and torch on one thread."""

import sys
from collections.abc import Callable

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook
from torch import Tensor

# Not `edge`: bundles run it without jaxtyping. Not `data.sources` and what takes its Protocol: checking it would read the data.
CHECKED = (
    "g2sd_deploy.data.array_file",
    "g2sd_deploy.data.augment",
    "g2sd_deploy.data.boxes",
    "g2sd_deploy.data.color_jitter",
    "g2sd_deploy.data.corruptions",
    "g2sd_deploy.data.encoding",
    "g2sd_deploy.data.erasing",
    "g2sd_deploy.data.fashion_mnist",
    "g2sd_deploy.data.idx",
    "g2sd_deploy.data.images",
    "g2sd_deploy.data.mixing",
    "g2sd_deploy.data.pixels",
    "g2sd_deploy.data.rand_augment",
    "g2sd_deploy.data.resample",
    "g2sd_deploy.data.sources.listing",
    "g2sd_deploy.data.sources.tar_index",
    "g2sd_deploy.evaluation",
    "g2sd_deploy.methods",
    "g2sd_deploy.models",
    "g2sd_deploy.randomness",
    "g2sd_deploy.training",
    "g2sd_export.bundle",
    "g2sd_export.onnx_file",
    "g2sd_export.parity",
)

_early = [name for name in sys.modules if name.startswith(CHECKED)]
assert not _early, f"imported before the hook that checks shapes: {_early}"
install_import_hook(CHECKED, "beartype.beartype")
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    """Weights that a test initialises are the same at every run and in every order."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def numeric_gradient() -> Callable[[Callable[[Tensor], float], Tensor], Tensor]:
    """Gradient of a formula by central differences in float64, number by number: it shares nothing with autograd or the loss."""

    def gradient(formula: Callable[[Tensor], float], at: Tensor) -> Tensor:
        at, slopes = at.detach().double(), []
        for place in range(at.numel()):
            step = torch.zeros(at.numel(), dtype=torch.float64)
            step[place] = 1e-5
            slopes.append((formula(at + step.view_as(at)) - formula(at - step.view_as(at))) / 2e-5)
        return torch.tensor(slopes, dtype=torch.float64).view_as(at)

    return gradient
