"""The catalogue of public teachers: a YAML file behind a strict model."""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from g2sd_deploy.artifact import digest_of
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import Preprocessing

CATALOGUE = Path(__file__).parent / "teachers.yaml"
Content = Literal["encoder", "masked", "generic", "classifier"]
Use = Literal["g2sd", "dmae", "tinymim", "specific", "mae-evaluation", "fine-tuning"]
_BYTES_PER_PARAMETER = 4
_MLP_RATIO = 4
_DIGITS = Field(pattern=r"^[0-9a-f]+$")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Network(_Model):
    """Shape of a plain ViT."""

    patch_px: PositiveInt
    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class DecoderShape(_Model):
    """Shape of a decoder."""

    width: PositiveInt
    depth: PositiveInt
    heads: PositiveInt


class Listed(_Model):
    """One teacher as the file lists it; its head explains the fields."""

    title: str
    url: str | None = None
    page: str | None = None
    """Web page to fetch the file from by hand, where there is no URL."""
    file: str | None = None
    """File name; null where the page does not say it."""
    bytes: PositiveInt | None = None
    sha256: Annotated[str, _DIGITS, Field(min_length=64, max_length=64)] | None = None
    md5_prefix: Annotated[str, _DIGITS, Field(min_length=4, max_length=32)] | None = None
    licence: str
    layout: Literal["mae", "hf-vit-mae", "timm"]
    content: Content
    network: str
    decoder: str | None = None
    num_classes: PositiveInt | None = None
    classes: Literal["imagenet-1k"] | None = None
    preprocessing: str = "imagenet_224"
    norm_pix: bool | None = None
    top1: float | None = None
    """Reference top-1 on ImageNet-1k's validation set, in percent."""
    use_for: tuple[Use, ...] = Field(strict=False)
    instead: str | None = None
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if (self.url is None) == (self.page is None):
            raise ValueError("give one of url and page")
        if self.url is not None and self.file is None:
            raise ValueError("a url needs file")
        if (self.content in ("masked", "generic")) != (self.decoder is not None):
            raise ValueError(f"content {self.content} and decoder {self.decoder} do not fit")
        if (self.content == "classifier") != (self.num_classes is not None):
            raise ValueError(f"content {self.content} and num_classes {self.num_classes} do not fit")
        return self


class Teacher(_Model):
    """One teacher, with its name and the shapes that it refers to."""

    name: str
    listed: Listed
    network: Network
    decoder: DecoderShape | None
    preprocessing: Preprocessing

    @property
    def digest(self) -> str:
        """Changes when anything that decides what the teacher is changes; titles and notes do not."""
        fixed = self.listed.model_dump(mode="json", exclude={"title", "note", "use_for", "top1", "instead", "licence"})
        shapes = [self.network.model_dump(), self.decoder and self.decoder.model_dump(), self.preprocessing.to_dict()]
        return digest_of([fixed, shapes])

    @property
    def num_parameters(self) -> int:
        """Weights of the model, fixed position tables included; computed from the shapes."""
        pre, net = self.preprocessing, self.network
        patch, tokens = pre.num_channels * net.patch_px**2, (pre.image_px // net.patch_px) ** 2 + 1
        total = patch * net.width + (tokens + 4) * net.width + net.depth * _block_parameters(net.width)
        if self.decoder is not None:
            width = self.decoder.width
            total += net.width * width + (tokens + 4) * width + self.decoder.depth * _block_parameters(width) + (width + 1) * patch
        return total + (net.width + 1) * (self.listed.num_classes or 0)

    @property
    def approximate_bytes(self) -> int:
        """Size of the weights in float32; a file is a little larger."""
        return self.num_parameters * _BYTES_PER_PARAMETER


class _Catalogue(_Model):
    format: Literal[1]
    preprocessing: dict[str, dict[str, object]]
    networks: dict[str, Network]
    decoders: dict[str, DecoderShape]
    teachers: dict[Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]*$")], Listed]


@cache
def teachers(path: Path = CATALOGUE) -> dict[str, Teacher]:
    """Every teacher of the catalogue by name, in the order of the file."""
    from ruamel.yaml import YAML

    read = _Catalogue.model_validate(YAML(typ="safe").load(path))
    preprocessing = {name: Preprocessing.from_dict(values) for name, values in read.preprocessing.items()}
    return {
        name: Teacher(
            name=name,
            listed=listed,
            network=read.networks[listed.network],
            decoder=read.decoders[listed.decoder] if listed.decoder is not None else None,
            preprocessing=preprocessing[listed.preprocessing],
        )
        for name, listed in read.teachers.items()
    }


def find_teacher(name: str) -> Teacher:
    """A teacher by name.

    Raises:
        UserError: There is none; the message names the nearest.
    """
    known = teachers()
    if name in known:
        return known[name]
    near = nearest_name(name)
    raise UserError(f"there is no teacher {name}{f'; did you mean {near}?' if near else ''}; `g2sd teacher list` shows them all")


def nearest_name(name: str) -> str | None:
    """The teacher whose name or file name resembles this one most."""
    by_file = {listed.listed.file.rpartition(".")[0]: key for key, listed in teachers().items() if listed.listed.file is not None}
    stem = Path(name).name.removesuffix(".pth")
    if stem in by_file:
        return by_file[stem]
    near = difflib.get_close_matches(stem, teachers(), 1, cutoff=0.6)
    return near[0] if near else None


def full_file_of(width: int, depth: int) -> str | None:
    """The catalogue's file with a decoder (normalised pixels) for an encoder of this shape."""
    for name, teacher in teachers().items():
        shape = (teacher.network.width, teacher.network.depth)
        if shape == (width, depth) and teacher.listed.content == "masked" and teacher.listed.norm_pix:
            return name
    return None


def _block_parameters(width: int) -> int:
    """Weights of one transformer block: two norms, qkv, projection, MLP."""
    return 4 * width + 3 * (width + 1) * width + (width + 1) * width + _MLP_RATIO * width * (width + 1) + (_MLP_RATIO * width + 1) * width
