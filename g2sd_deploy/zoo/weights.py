"""Read weights without running anything that a file may carry."""

import argparse
import pickle
import re
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.foreign import ForeignError, unwrap
from g2sd_deploy.zoo.inspection import weight_format


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a file of torch.save or safetensors; the tensors of a large file stay on disk until they are used.

    Returns:
        The weights by name, and what was left out with the reason.

    Raises:
        UserError: No weight file, a damaged one, or a pickle that wants to run code (it is not run).
    """
    form = weight_format(path)
    if form == "safetensors":
        return _load_safetensors(path), {}
    loaded = _load_pickle(path, mapped=form == "zip")
    try:
        return unwrap(loaded)
    except ForeignError as error:
        raise UserError(f"{path}: {error}") from None


def _load_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (an open file is no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch it again") from None


def _load_pickle(path: Path, *, mapped: bool) -> object:
    """Unpickle tensors, plain containers and the `argparse.Namespace` of MAE's scripts; nothing else is created, nothing is called."""
    try:
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's remark that a pickle of another protocol may not be readable; it is, or it is refused
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:
        raise UserError(f"{path}: {_why_refused(str(error))}") from None
    except Exception as error:  # a damaged pickle can make the reader raise anything, an AssertionError for one
        reason = (str(error) or type(error).__name__).partition("\n")[0]
        raise UserError(f"{path}: cannot be read as a file of torch.save ({reason:.120}); it is damaged, fetch it again") from None


def _why_refused(error: str) -> str:
    """One line from torch's long explanation."""
    named = re.search(r"(?:GLOBAL|global)\W+([\w.]+\.\w+)", error)
    if named:
        return (
            f"refused, and nothing of it was run: it is a pickle that asks for {named[1]}, which is not weights; "
            "if you trust its author, save its state dict as safetensors and import that"
        )
    return f"refused, and nothing of it was run: it is no plain file of weights ({error.splitlines()[0]:.120}); fetch it again"
