"""How a model wants its images: what it says itself, what lies beside it and what a person asks for must agree, and nothing is guessed."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_export.edge.image_input import Layout
    from g2sd_export.edge.preprocess import Preprocessing

_KEYS = ("image_px", "resize_px", "num_channels", "mean", "std", "interpolation")
_TOLERANCE = 1e-6


@dataclass(frozen=True)
class AskedPreprocessing:
    """What a person says on the command line; None where nothing is said.

    Attributes:
        mean: Per channel, in units of pixel / 255.
        std: Per channel, in units of pixel / 255.
        image_px: Side of the square network input.
        resize_px: Short side before the centre crop.
        interpolation: bicubic or bilinear.
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    image_px: int | None = None
    resize_px: int | None = None
    interpolation: str | None = None


@dataclass(frozen=True)
class Said:
    """What one place says about the preprocessing.

    Attributes:
        place: Where it is said, for people: "its metadata".
        values: Some of the keys of `Preprocessing.to_dict()`.
    """

    place: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Sidecar:
    """The JSON file beside a model that does not describe itself.

    Attributes:
        path: The file; it may be absent, and then says nothing.
        preprocessing: Some or all of `Preprocessing.to_dict()`.
        class_names: One per logit.
        output: Name of the output that holds the logits.
        layout: Order of the input's dimensions.
        sha256: Of the model that it describes.
    """

    path: Path
    preprocessing: Mapping[str, Any]
    class_names: tuple[str, ...] | None = None
    output: str | None = None
    layout: "Layout | None" = None
    sha256: str | None = None

    def said(self) -> Said:
        """Its part of the preprocessing."""
        return Said(str(self.path), self.preprocessing)

    def check(self, sha256: str) -> None:
        """Raise UserError where it describes another file."""
        if self.sha256 not in (None, sha256):
            raise UserError(f"{self.path}: describes a model of sha256 {self.sha256}, and the one beside it has {sha256}; make both again")


def settle(name: str, said: Sequence[Said], asked: AskedPreprocessing | None, *, sidecar: Path | None = None) -> "Preprocessing":
    """One preprocessing from everything that is said about it.

    Args:
        name: Of the model, for errors.
        said: By the model itself, the most reliable place first.
        asked: By a person; may repeat and complete what is said, not change it.
        sidecar: File in which a person may say what is missing, where the model is a file.

    Raises:
        UserError: Two places differ, something is said by nobody, or a value lies outside its range.
    """
    from g2sd_export.edge.preprocess import Preprocessing

    values: dict[str, Any] = {}
    told_by: dict[str, str] = {}
    for place in said:
        for key, value in place.values.items():
            if key not in values:
                values[key], told_by[key] = value, place.place
            elif not _same(values[key], value):
                raise UserError(
                    f"{name}: {told_by[key]} says {key} {_shown(values[key])}, and {place.place} says {_shown(value)}; correct one of them"
                )
    for key, value in _asked_values(asked).items():
        if key in values and not _same(values[key], value):
            option = _option(key)
            raise UserError(
                f"{name}: {option} {_shown(value)} is asked for, but {told_by[key]} says {_shown(values[key])}; drop {option}: "
                "how images are prepared belongs to the model"
            )
        values.setdefault(key, list(value) if isinstance(value, tuple) else value)
    if "num_channels" not in values and isinstance(values.get("mean"), list | tuple):
        values["num_channels"] = len(values["mean"])
    if missing := [key for key in _KEYS if key not in values and (key != "num_channels" or "mean" in values)]:
        written = f", or write them into {sidecar} as " + '{"preprocessing": {...}}' if sidecar is not None else ""
        options = " ".join(_option(key) for key in missing)
        raise UserError(f"{name}: nothing says its {', '.join(missing)}, and they are not guessed; give {options}{written}")
    try:
        return Preprocessing.from_dict(values)
    except UserError as error:
        raise UserError(f"{name}: {error}") from None


def read_sidecar(model: Path) -> Sidecar:
    """FILE.json beside FILE.onnx or FILE.engine.

    Raises:
        UserError: It cannot be read, or holds a key or value that is not known.
    """
    path = model.with_suffix(".json")
    if not path.is_file():
        return Sidecar(path, {})
    try:
        content = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); it describes {model.name}, so write it again or move it away") from None
    known = [field.name for field in fields(Sidecar) if field.name != "path"]
    if not isinstance(content, dict) or set(content) - set(known):
        found = ", ".join(sorted(set(content) - set(known))) if isinstance(content, dict) else type(content).__name__
        raise UserError(f"{path}: holds {found}; a file beside {model.name} describes it with some of {', '.join(known)}; move others away")
    return _checked(Sidecar(path, content.pop("preprocessing", {}), _names(path, content.pop("class_names", None)), **content))


def said_by_json(place: str, content: str) -> Said:
    """A preprocessing that is stored as JSON text.

    Raises:
        UserError: It is no JSON object of the known keys.
    """
    try:
        values = json.loads(content)
    except ValueError:
        values = None
    if not isinstance(values, dict) or set(values) - set(_KEYS):
        raise UserError(f"{place} says of the preprocessing {content:.80}; wanted a JSON object with some of {', '.join(_KEYS)}")
    return Said(place, values)


def check_class_names(name: str, class_names: Sequence[str] | None, num_classes: int) -> None:
    """Raise UserError unless there is one name per logit, or none at all."""
    if class_names is not None and len(class_names) != num_classes:
        raise UserError(f"{name}: gives {num_classes} logits, but {len(class_names)} class names are stored with it; correct the names")


def _checked(sidecar: Sidecar) -> Sidecar:
    from g2sd_export.edge.image_input import Layout

    layouts = get_args(Layout)
    if sidecar.layout not in (None, *layouts):
        raise UserError(f"{sidecar.path}: layout is {sidecar.layout!r}; it must be {' or '.join(layouts)}")
    for key in ("output", "sha256"):
        if not isinstance(getattr(sidecar, key), str | None):
            raise UserError(f"{sidecar.path}: {key} is {getattr(sidecar, key)!r}; it must be a text")
    said_by_json(str(sidecar.path), json.dumps(sidecar.preprocessing))
    return sidecar


def _names(path: Path, names: Any) -> tuple[str, ...] | None:
    if names is None:
        return None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: class_names is {str(names)!r:.80}; it must be a list of texts, one per logit")
    return tuple(names)


def _asked_values(asked: AskedPreprocessing | None) -> dict[str, Any]:
    return {} if asked is None else {key: value for key, value in asdict(asked).items() if value is not None}


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(_same(*pair) for pair in zip(one, other, strict=True))
    if isinstance(one, int | float) and isinstance(other, int | float):
        return math.isclose(one, other, rel_tol=0, abs_tol=_TOLERANCE)
    return bool(one == other)


def _shown(value: Any) -> str:
    return ",".join(f"{number:g}" for number in value) if isinstance(value, list | tuple) else str(value)


def _option(key: str) -> str:
    return "--" + key.replace("_", "-")
