"""Self-describing weight files: safetensors whose metadata holds the model's shape, so that no file is loaded into another model."""

import dataclasses
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.foreign import Kind
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Pooling, Token
from g2sd_export.edge.preprocess import Preprocessing

_KEY = "g2sd_deploy"
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class ClassifierFile:
    """A classifier with all that is needed to use it on an image."""

    model: Classifier
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def save_masked(path: Path, model: MaskedAutoencoder, dtype: torch.dtype = torch.float32) -> None:
    """Write encoder, decoder and pixel head."""
    encoder, decoder = dataclasses.asdict(model.encoder.spec), dataclasses.asdict(model.decoder.spec)
    _save(path, model.state_dict(), {"kind": "masked", "encoder": encoder, "decoder": decoder}, dtype)


def save_generic(path: Path, model: GenericStudent) -> None:
    """Write a generically distilled student: encoder, decoder and feature head."""
    teacher_width = model.feature_head[-1].out_features
    encoder, decoder = dataclasses.asdict(model.encoder.spec), dataclasses.asdict(model.decoder.spec)
    _save(
        path, model.state_dict(), {"kind": "generic", "encoder": encoder, "decoder": decoder, "teacher_width": teacher_width}, torch.float32
    )


def save_classifier(path: Path, file: ClassifierFile, dtype: torch.dtype = torch.float32) -> None:
    """Write a classifier with its preprocessing and class names."""
    model = file.model
    described = {
        "kind": "classifier",
        "encoder": dataclasses.asdict(model.encoder.spec),
        "pooling": model.pooling,
        "token": model.token,
        "preprocessing": file.preprocessing.to_dict(),
        "class_names": list(file.class_names),
    }
    _save(path, model.state_dict(), described, dtype)


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write an encoder by itself."""
    bare = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    _save(path, bare, {"kind": "encoder", "encoder": dataclasses.asdict(encoder.spec)}, torch.float32)


def load_encoder(path: Path) -> Encoder:
    """Read the encoder of any weight file of ours, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = _read(path)
    with _description_of(path):
        encoder, alone = Encoder(EncoderSpec(**described["encoder"])), described["kind"] == "encoder"
    own = {name.removeprefix("encoder."): value for name, value in weights.items() if alone or name.startswith("encoder.")}
    return _fill(path, encoder, own)


def load_masked(path: Path) -> MaskedAutoencoder:
    """Read a masked model, float32, in evaluation mode.

    Raises:
        UserError: Missing or damaged file, no decoder, or weights of another shape.
    """
    described, weights = _read(path)
    if not any(name.startswith("decoder.") for name in weights):
        raise UserError(
            f"{path}: holds no decoder weights (decoder.*), and generic distillation learns from the teacher's decoder; "
            "set teacher.masked to the masked model with its decoder, not to an encoder or a classifier"
        )
    _expect_kind(path, described, "masked")
    with _description_of(path):
        model = MaskedAutoencoder(EncoderSpec(**described["encoder"]), DecoderSpec(**described["decoder"]))
    return _fill(path, model, weights)


def load_generic(path: Path) -> GenericStudent:
    """Read a generically distilled student, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = _read(path)
    _expect_kind(path, described, "generic")
    with _description_of(path):
        model = GenericStudent(EncoderSpec(**described["encoder"]), DecoderSpec(**described["decoder"]), described["teacher_width"])
    return _fill(path, model, weights)


def load_classifier(path: Path) -> ClassifierFile:
    """Read a classifier, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = _read(path)
    _expect_kind(path, described, "classifier")
    with _description_of(path):
        names = tuple(described["class_names"])
        pooling: Pooling = described["pooling"]
        token: Token = described["token"]
        model = Classifier(EncoderSpec(**described["encoder"]), len(names), pooling=pooling, token=token)
        preprocessing = Preprocessing.from_dict(described["preprocessing"])
    return ClassifierFile(_fill(path, model, weights), preprocessing, names)


def held_kind(path: Path) -> Kind | None:
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
    if kind not in get_args(Kind):
        raise UserError(f"{path}: holds a {kind} model, which this version does not know")
    return cast("Kind", kind)


def _save(path: Path, state: Mapping[str, Tensor], described: dict[str, Any], dtype: torch.dtype) -> None:
    weights = {name: value.detach().to("cpu", dtype).contiguous() for name, value in state.items()}
    path.write_bytes(save(weights, metadata={_KEY: json.dumps(described, sort_keys=True)}))


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
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
    with _description_of(path):
        described: dict[str, Any] = dict(json.loads(metadata[_KEY]))
    return described, weights


def _expect_kind(path: Path, described: dict[str, Any], kind: Kind) -> None:
    with _description_of(path):
        held = described["kind"]
    if held != kind:
        raise UserError(f"{path}: holds {'an' if held == 'encoder' else 'a'} {held} model; wanted a {kind} model here")


@contextmanager
def _description_of(path: Path) -> Iterator[None]:
    """What goes wrong while reading a description is the file's fault: say so."""
    try:
        yield
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise UserError(f"{path}: its description of the model does not fit this version ({reason}); make the file again") from None


def misfit_of(wanted: Mapping[str, Tensor], weights: Mapping[str, Tensor], others: Iterable[str] = ()) -> str:
    """What keeps weights from being those of a model; empty where nothing does.

    Args:
        wanted: The model's own.
        weights: Those that it is to take.
        others: Names of what else lies beside them.
    """
    missing, unknown = sorted(set(wanted) - set(weights)), sorted({*weights, *others} - set(wanted))
    if missing or unknown:
        return "; ".join(_listed(word, names) for word, names in (("missing", missing), ("unknown", unknown)) if names)
    shapes = ((name, list(weights[name].shape), list(value.shape)) for name, value in wanted.items())
    return next((f"{name} has shape {found} in place of {own}" for name, found, own in shapes if found != own), "")


def _fill(path: Path, model: Model, weights: dict[str, Tensor]) -> Model:
    """Load every weight, or say which do not fit."""
    if misfit := misfit_of(model.state_dict(), weights):
        raise UserError(f"{path}: its weights are not those of the model it describes: {misfit}")
    model.load_state_dict(weights)
    return model.eval()


def _listed(word: str, names: list[str]) -> str:
    return f"{word} {names[0]}" + (f" and {len(names) - 1} more" if names[1:] else "")
