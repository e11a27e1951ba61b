"""Every test runs the packages with their shape annotations checked, and torch on one thread."""

import http.server
import socketserver
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

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
    "g2sd_deploy.data.dense.annotations",
    "g2sd_deploy.data.dense.augment",
    "g2sd_deploy.data.dense.coco",
    "g2sd_deploy.data.dense.coco_file",
    "g2sd_deploy.data.dense.geometry",
    "g2sd_deploy.data.dense.huggingface",
    "g2sd_deploy.data.dense.json_stream",
    "g2sd_deploy.data.dense.label_maps",
    "g2sd_deploy.data.dense.mask_folder",
    "g2sd_deploy.data.dense.masks",
    "g2sd_deploy.data.dense.photometric",
    "g2sd_deploy.data.dense.reading",
    "g2sd_deploy.data.dense.segments",
    "g2sd_deploy.data.dense.targets",
    "g2sd_deploy.data.encoding",
    "g2sd_deploy.data.erasing",
    "g2sd_deploy.data.fashion_mnist",
    "g2sd_deploy.data.idx",
    "g2sd_deploy.data.images",
    "g2sd_deploy.data.mixing",
    "g2sd_deploy.data.pixels",
    "g2sd_deploy.data.rand_augment",
    "g2sd_deploy.data.resample",
    "g2sd_deploy.data.scenes",
    "g2sd_deploy.data.sources.listing",
    "g2sd_deploy.data.sources.tar_index",
    "g2sd_deploy.data.testsets.class_folders",
    "g2sd_deploy.data.testsets.label_spaces",
    "g2sd_deploy.data.testsets.protocols",
    "g2sd_deploy.data.testsets.real_labels",
    "g2sd_deploy.data.testsets.scorings",
    "g2sd_deploy.evaluation",
    "g2sd_deploy.methods",
    "g2sd_deploy.models",
    "g2sd_deploy.randomness",
    "g2sd_deploy.training",
    "g2sd_export.bundle",
    "g2sd_export.onnx_file",
    "g2sd_export.answers",
    "g2sd_export.class_order",
    "g2sd_export.device_tolerance",
    "g2sd_export.paired",
    "g2sd_export.proof",
)

_early = [name for name in sys.modules if name.startswith(CHECKED)]
assert not _early, f"imported before the hook that checks shapes: {_early}"
install_import_hook(CHECKED, "beartype.beartype")
torch.set_num_threads(1)
settings.register_profile("repeatable", derandomize=True, deadline=None, database=None)
settings.load_profile("repeatable")


@pytest.fixture(scope="session", autouse=True)
def _own_store_of_devices(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What tests measure stays out of the user's history."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("G2SD_DEVICES", str(tmp_path_factory.mktemp("devices")))
        yield


@pytest.fixture(autouse=True)
def fixed_weights() -> None:
    """Weights that a test initialises are the same at every run and in every order."""
    torch.manual_seed(0)


class _Quiet(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """A client that hangs up is what the tests with a server are about."""


@contextmanager
def _serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    with _Quiet(("127.0.0.1", 0), handler) as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join(5)


@pytest.fixture(scope="session")
def serving() -> Callable[..., AbstractContextManager[str]]:
    """Runs a server with the given handler in a thread of its own; gives its address."""
    return _serving


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
