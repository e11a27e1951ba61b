"""manifest.json of a prepared data set: its classes, shards, and what was done to the images."""

import json
from pathlib import PurePosixPath
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, ValidationError, field_validator

from g2sd_deploy.errors import UserError

MANIFEST = "manifest.json"


class ManifestShard(BaseModel):
    """One tar: its name relative to the manifest, its images, and what it has to be."""

    model_config = ConfigDict(frozen=True)
    file: str
    num: NonNegativeInt
    bytes: NonNegativeInt
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")

    @field_validator("file")
    @classmethod
    def _lies_beside_the_manifest(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts or not path.name.endswith(".tar"):
            raise ValueError(f"{file} is no name of a .tar below the manifest's folder")
        return file


class ManifestSplit(BaseModel):
    """Shards of one split, in order."""

    model_config = ConfigDict(frozen=True)
    shards: tuple[ManifestShard, ...]
    num: NonNegativeInt


class Manifest(BaseModel):
    """What `g2sd data prepare` writes beside the shards."""

    model_config = ConfigDict(frozen=True)
    format: Literal[1]
    class_names: tuple[str, ...]
    splits: dict[str, ManifestSplit]
    prepared: dict[str, Any] = {}


def read_manifest(text: str, shown: str) -> Manifest:
    """Read a manifest.

    Args:
        text: Its JSON.
        shown: How messages name it.

    Raises:
        UserError: It is none, or of another version.
    """
    try:
        manifest = Manifest.model_validate(json.loads(text))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UserError(
            f"{shown}: is no manifest of this version ({where}: {first['msg']}); make it again with g2sd data prepare"
        ) from None
    except ValueError as error:
        raise UserError(f"{shown}: is no JSON ({error}); make it again with g2sd data prepare") from None
    for name, split in manifest.splits.items():
        if split.num != sum(shard.num for shard in split.shards):
            raise UserError(f"{shown}: split {name} states {split.num} images, but its shards add up to another number; make it again")
    return manifest
