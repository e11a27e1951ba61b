"""Weight files of encoders, masked models, generic students and classifiers: written and read."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Pooling, Token
from g2sd_deploy.models.weight_file import description_of, expect_kind, fill, listed, read_weights, save_weights
from g2sd_export.edge.preprocess import Preprocessing


@dataclass(frozen=True)
class ClassifierFile:
    """A classifier with all that is needed to use it on an image."""

    model: Classifier
    preprocessing: Preprocessing
    class_names: tuple[str, ...]


def save_masked(path: Path, model: MaskedAutoencoder, dtype: torch.dtype = torch.float32) -> None:
    """Write encoder, decoder and pixel head."""
    encoder, decoder = dataclasses.asdict(model.encoder.spec), dataclasses.asdict(model.decoder.spec)
    save_weights(path, model.state_dict(), {"kind": "masked", "encoder": encoder, "decoder": decoder}, dtype)


def save_generic(path: Path, model: GenericStudent) -> None:
    """Write a generically distilled student: encoder, decoder and feature head."""
    teacher_width = model.feature_head[-1].out_features
    encoder, decoder = dataclasses.asdict(model.encoder.spec), dataclasses.asdict(model.decoder.spec)
    save_weights(
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
    save_weights(path, model.state_dict(), described, dtype)


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Write an encoder by itself."""
    bare = {f"encoder.{name}": value for name, value in encoder.state_dict().items()}
    save_weights(path, bare, {"kind": "encoder", "encoder": dataclasses.asdict(encoder.spec)}, torch.float32)


def load_encoder(path: Path) -> Encoder:
    """Read the encoder of any weight file of ours, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = read_weights(path)
    if described.get("kind") == "detector":
        raise UserError(
            f"{path}: the encoder of a detector has neither class token nor final norm, so it is no plain encoder; name the student "
            "that it was started from"
        )
    with description_of(path):
        encoder, kind = Encoder(EncoderSpec(**described["encoder"])), described["kind"]
    own = {name.removeprefix("encoder."): value for name, value in weights.items() if kind == "encoder" or name.startswith("encoder.")}
    if kind == "segmenter" and (more := sorted(set(own) - set(encoder.state_dict()))):
        raise UserError(
            f"{path}: the encoder of this {kind} does not work without its relative positions or layer scales, and a plain encoder has "
            f"none ({listed('it has', more)}); name the student that it was started from"
        )
    return fill(path, encoder, own)


def load_masked(path: Path) -> MaskedAutoencoder:
    """Read a masked model, float32, in evaluation mode.

    Raises:
        UserError: Missing or damaged file, no decoder, or weights of another shape.
    """
    described, weights = read_weights(path)
    if not any(name.startswith("decoder.") for name in weights):
        raise UserError(
            f"{path}: holds no decoder weights (decoder.*), and generic distillation learns from the teacher's decoder; "
            "set teacher.masked to the masked model with its decoder, not to an encoder or a classifier"
        )
    expect_kind(path, described, "masked")
    with description_of(path):
        model = MaskedAutoencoder(EncoderSpec(**described["encoder"]), DecoderSpec(**described["decoder"]))
    return fill(path, model, weights)


def load_generic(path: Path) -> GenericStudent:
    """Read a generically distilled student, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = read_weights(path)
    expect_kind(path, described, "generic")
    with description_of(path):
        model = GenericStudent(EncoderSpec(**described["encoder"]), DecoderSpec(**described["decoder"]), described["teacher_width"])
    return fill(path, model, weights)


def load_classifier(path: Path) -> ClassifierFile:
    """Read a classifier, float32, in evaluation mode; raises as `load_masked` does."""
    described, weights = read_weights(path)
    expect_kind(path, described, "classifier")
    with description_of(path):
        names = tuple(described["class_names"])
        pooling: Pooling = described["pooling"]
        token: Token = described["token"]
        model = Classifier(EncoderSpec(**described["encoder"]), len(names), pooling=pooling, token=token)
        preprocessing = Preprocessing.from_dict(described["preprocessing"])
    return ClassifierFile(fill(path, model, weights), preprocessing, names)
