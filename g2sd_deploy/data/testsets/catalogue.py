"""The catalogue of public test sets: a YAML file behind a strict model, and where a set lies."""

import difflib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, model_validator

from g2sd_deploy.data.corruptions import SEVERITIES
from g2sd_deploy.data.testsets.label_spaces import timm_info
from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.places import Places

CATALOGUE = Path(__file__).parent / "testsets.yaml"
LabelList = Literal["imagenet_synsets", "imagenet_a_synsets", "imagenet_r_synsets", "numbers"]
_NUMBERED = 1000
_HEX = Field(pattern=r"^[0-9a-f]+$")
_PLAIN_NAME = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")


class _Model(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class Archive(_Model):
    """One file that a set is made of."""

    file: Annotated[str, _PLAIN_NAME]
    url: str
    bytes: PositiveInt | None = None
    md5: Annotated[str, _HEX, Field(min_length=32, max_length=32)] | None = None
    sha256: Annotated[str, _HEX, Field(min_length=64, max_length=64)] | None = None
    use: Literal["images", "labels", "file"] = "images"
    holds: tuple[str, ...] = Field((), strict=False)

    @model_validator(mode="after")
    def _hashed(self) -> Self:
        if self.md5 is None and self.sha256 is None:
            raise ValueError(f"{self.file} has no hash")
        return self


class Images(_Model):
    """How many images a folder of class folders has."""

    images: PositiveInt | Annotated[tuple[PositiveInt, PositiveInt], Field(strict=False)]
    per_class: PositiveInt | None = None

    @property
    def least(self) -> int:
        """The least number that is right."""
        return self.images if isinstance(self.images, int) else self.images[0]

    @property
    def most(self) -> int:
        """The largest number that is right."""
        return self.images if isinstance(self.images, int) else self.images[1]


class Labels(_Model):
    """A JSON file of label sets, one list of class indices per image."""

    file: str
    images: PositiveInt
    empty: int


class ListedSet(_Model):
    """One set as the file lists it; its head explains the fields."""

    title: str
    licence: str
    terms: str | None = None
    page: str
    needs: str | None = None
    classes: LabelList | Annotated[tuple[Annotated[str, _PLAIN_NAME], ...], Field(strict=False)]
    corruptions: tuple[Annotated[str, _PLAIN_NAME], ...] = Field((), strict=False)
    may_hold: tuple[str, ...] = Field((), strict=False)
    folders: dict[str, Images] = {}
    labels: Labels | None = None
    unique: bool = False
    archives: tuple[Archive, ...] = Field(strict=False)
    note: str = ""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if bool(self.folders) == (self.labels is not None):
            raise ValueError("give one of folders and labels")
        if self.corruptions and set(self.folders) != {"."}:
            raise ValueError('corruptions want folders {".": ...}')
        if wrong := {name for archive in self.archives for name in archive.holds} - {place.partition("/")[0] for place in self.groups}:
            raise ValueError(f"an archive holds {', '.join(sorted(wrong))}, which the set has not")
        return self

    @property
    def groups(self) -> dict[str, Images]:
        """Every folder of class folders, relative to the set's own."""
        if not self.corruptions:
            return dict(self.folders)
        return {f"{corruption}/{severity}": self.folders["."] for corruption in self.corruptions for severity in SEVERITIES}

    def groups_of(self, archive: Archive) -> dict[str, Images]:
        """The folders of class folders that come out of one archive."""
        return {place: images for place, images in self.groups.items() if not archive.holds or place.partition("/")[0] in archive.holds}

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of the class indices."""
        if not isinstance(self.classes, str):
            return self.classes
        if self.classes == "numbers":
            return tuple(str(index) for index in range(_NUMBERED))
        return tuple(timm_info(f"{self.classes}.txt").split())

    @property
    def bytes(self) -> int | None:
        """Bytes to fetch, as far as they are known."""
        return sum(archive.bytes or 0 for archive in self.archives) or None


class _Catalogue(_Model):
    format: Literal[1]
    aliases: dict[str, str]
    sets: dict[Annotated[str, _PLAIN_NAME], ListedSet]

    @model_validator(mode="after")
    def _joined(self) -> Self:
        named = [*self.aliases.values(), *(listed.needs for listed in self.sets.values() if listed.needs)]
        if missing := [name for name in named if name not in self.sets]:
            raise ValueError(f"{missing[0]} is named and not listed")
        return self


def known_sets() -> dict[str, ListedSet]:
    """Every set by name, in the order of the file."""
    return _read(CATALOGUE).sets


def find_set(name: str) -> tuple[str, ListedSet]:
    """A set by its name or another name of it.

    Returns:
        Its own name, and what is listed.

    Raises:
        UserError: There is none; the message names the nearest.
    """
    read = _read(CATALOGUE)
    own = read.aliases.get(name, name)
    if own in read.sets:
        return own, read.sets[own]
    near = difflib.get_close_matches(name.lower(), [*read.sets, *read.aliases], 1, cutoff=0.6)
    raise UserError(f"there is no test set {name}{f'; did you mean {near[0]}?' if near else ''}; `g2sd data sets` shows them all")


def data_folder(places: Places) -> Path:
    """Where pulled sets lie, each under its own name."""
    return places.cache / "data"


def home_of(name: str, places: Places) -> Path:
    """Where a set lies once it is pulled.

    Raises:
        UserError: There is no such set.
    """
    return data_folder(places) / find_set(name)[0]


@cache
def _read(path: Path) -> _Catalogue:
    from ruamel.yaml import YAML

    return _Catalogue.model_validate(YAML(typ="safe").load(path))
