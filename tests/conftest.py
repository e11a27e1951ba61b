"""Every test runs the packages with their shape annotations checked, and torch on one thread."""

import sys

import pytest
import torch
from hypothesis import settings
from jaxtyping import install_import_hook

# Not `edge`: bundles run it without jaxtyping. Not `data.sources`: checking its Protocol would read the data.
CHECKED = (
    "g2sd_deploy.data.augment",
    "g2sd_deploy.data.corruptions",
    "g2sd_deploy.data.fashion_mnist",
    "g2sd_deploy.data.idx",
    "g2sd_deploy.data.images",
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
