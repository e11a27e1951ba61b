"""What every weight file of ours shares: safetensors whose metadata says which model they hold, so that none fits another model."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.foreign import Kind

FileKind = Literal[Kind, "segmenter", "detector"]
"""What a weight file of ours may hold: what foreign weights may be, and what is trained here for dense tasks."""

_KEY = "g2sd_deploy"
Model = TypeVar("Model", bound=nn.Module)


def save_weights(path: Path, state: Mapping[str, Tensor], described: dict[str, Any], dtype: torch.dtype = torch.float32) -> None:
    """Write a model's state dict.

    Args:
        path: The file.
        state: Parameters and buffers by name.
        described: What is needed to build the model again, json-able; `kind` says which model it is.
        dtype: Number format of the weights.
    """
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    path.write_bytes(save(weights, metadata={_KEY: json.dumps(described, sort_keys=True)}))


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The description and the weights, float32, of any weight file of ours.

    Raises:
        UserError: Missing or damaged file, or one that is not ours.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such weight file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 (an open file is no mapping)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a whole safetensors file ({error}); fetch or make the file again") from None
    if _KEY not in metadata:
        raise UserError(f"{path}: does not say what model it holds (no {_KEY} metadata); wanted a file written by g2sd")
    with description_of(path):
        described: dict[str, Any] = dict(json.loads(metadata[_KEY]))
    return described, weights


def expect_kind(path: Path, described: dict[str, Any], kind: FileKind) -> None:
    """Refuse a file that holds another model.

    Raises:
        UserError: It does.
    """
    with description_of(path):
        held = described["kind"]
    if held != kind:
        raise UserError(f"{path}: holds {'an' if held == 'encoder' else 'a'} {held} model; wanted a {kind} model here")


@contextmanager
def description_of(path: Path) -> Iterator[None]:
    """What goes wrong while reading a description is the file's fault: say so."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: its description of the model does not fit this version ({reason}); make the file again") from None


def fill(path: Path, model: Model, weights: dict[str, Tensor]) -> Model:
    """Load every weight, and put the model into evaluation mode.

    Raises:
        UserError: They are not this model's weights; the message names one that does not fit.
    """
    if misfit := misfit_of(model.state_dict(), weights):
        raise UserError(f"{path}: its weights are not those of the model it describes: {misfit}")
    model.load_state_dict(weights)
    return model.eval()


def misfit_of(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], others: Iterable[str] = ()) -> str:
    """What keeps weights from being those of a model; empty where nothing does.

    Args:
        wanted: The model's own.
        weights: Those that it is to take.
        others: Names of what else lies beside them.
    """
    missing, unknown = sorted(set(wanted) - set(weights)), sorted({*weights, *others} - set(wanted))
    if missing or unknown:
        return "; ".join(listed(word, names) for word, names in (("missing", missing), ("unknown", unknown)) if names)
    shapes = ((name, list(weights[name].shape), list(value.shape)) for name, value in wanted.items())
    return next((f"{name} has shape {found} in place of {own}" for name, found, own in shapes if found != own), "")


def held_kind(path: Path) -> FileKind | None:
    """What a weight file of ours holds; None where the file is not ours.

    Raises:
        UserError: There is no such file, or its description is damaged or of another version.
    """
    if not path.is_file():
        raise UserError(f"{path}: there is no such weight file")
    try:
        with safe_open(path, framework="pt") as file:
            described = (file.metadata() or {}).get(_KEY)
    except (SafetensorError, OSError):
        return None
    if described is None:
        return None
    try:
        kind = json.loads(described)["kind"]
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path}: its description of the model is damaged; make the file again") from None
    if kind not in get_args(FileKind):
        raise UserError(f"{path}: holds a {kind} model, which this version does not know")
    return cast("FileKind", kind)


def listed(word: str, names: Sequence[str]) -> str:
    """The first of some names with the number of the others."""
    return f"{word} {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
