"""Where work is computed."""

from typing import TYPE_CHECKING, Literal

from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    import torch

DeviceName = Literal["cpu", "cuda"]


def choose_device(name: DeviceName | None) -> "torch.device":
    """The device asked for, or a CUDA GPU where there is one, else the CPU.

    Raises:
        UserError: `cuda` is asked for and torch cannot use one.
    """
    import torch

    has_cuda = torch.cuda.is_available()
    if name == "cuda" and not has_cuda:
        built = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "built without CUDA"
        raise UserError(f"--device cuda: torch {torch.__version__} ({built}) finds no usable GPU; run `g2sd doctor`, or use --device cpu")
    return torch.device(name or ("cuda" if has_cuda else "cpu"))
