"""Scenes as a data set of a dense task: as many as wanted, none of them on the disk."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from g2sd_deploy.artifact import digest_of
from g2sd_deploy.data.dense.annotations import Annotated
from g2sd_deploy.data.images import picks_of
from g2sd_deploy.data.scenes.composing import compose
from g2sd_deploy.data.scenes.garments import digest_of_garments, garments_of
from g2sd_deploy.data.scenes.settings import SPLITS, VERSION, SceneSpec
from g2sd_deploy.data.sources.idx import FASHION_MNIST_CLASSES
from g2sd_deploy.errors import UserError

SOURCE = "scenes"
SEGMENTATION_CLASSES = ("background", *FASHION_MNIST_CLASSES)
DETECTION_CLASSES = FASHION_MNIST_CLASSES

Task = Literal["segmentation", "detection"]


@dataclass(frozen=True)
class SceneSamples:
    """Scenes of one split; each is composed when it is read.

    Attributes:
        spec: What scenes look like.
        split: `train` or `test`.
        indices: Which scenes of the split these are.
    """

    spec: SceneSpec
    split: str
    indices: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.indices)

    def name(self, index: int) -> str:
        """A scene has a split and a number."""
        return f"{self.split}/{self.indices[index]:06d}"

    def read(self, index: int) -> Annotated:
        """Compose a scene; it does not depend on what was asked before."""
        return compose(self.spec, self.split, self.indices[index])

    def save(self, folder: Path) -> dict[str, Any]:
        """Nothing has to be written under `folder`: a scene follows from its number."""
        return {
            "source": SOURCE,
            "version": VERSION,
            "garments": digest_of(digest_of_garments()),
            "spec": self.spec.to_dict(),
            "split": self.split,
            "indices": list(self.indices),
        }


def open_scenes(where: Mapping[str, Any]) -> SceneSamples:
    """Scenes that `SceneSamples.save` told of.

    Raises:
        UserError: Another version of the generator, or of the garments, made them.
    """
    found = (where["version"], where["garments"])
    if found != (VERSION, digest_of(digest_of_garments())):
        raise UserError(
            f"these scenes are of version {where['version']} of the generator and its garments, and this package composes other ones "
            f"(version {VERSION}); make the data stage again with --force data"
        )
    return SceneSamples(SceneSpec(**where["spec"]), where["split"], tuple(where["indices"]))


@dataclass(frozen=True)
class SceneSource:
    """Scenes for training and testing.

    Attributes:
        spec: What scenes look like.
        num_train: Training scenes.
        num_test: Test scenes.
        task: What the class names are of: every pixel, or every object.
    """

    spec: SceneSpec
    num_train: int
    num_test: int
    task: Task = "segmentation"

    def __post_init__(self) -> None:
        for name, num in (("num_train", self.num_train), ("num_test", self.num_test)):
            if num < 1:
                raise UserError(f"scenes: {name} is {num}; give at least 1")

    @property
    def class_names(self) -> tuple[str, ...]:
        """The garments; for segmentation the background before them."""
        return SEGMENTATION_CLASSES if self.task == "segmentation" else DETECTION_CLASSES

    @property
    def description(self) -> str:
        """What this is, in one line."""
        return (
            f"Scenes of 1 to {self.spec.max_garments} Fashion-MNIST garments on textured grounds, {self.spec.image_px} px, composed from "
            f"the subset inside the package (MIT licence, Zalando SE): {self.num_train:,} for training and {self.num_test:,} for testing."
        )

    def samples(self, split: str, limit: int | None) -> SceneSamples:
        """The scenes of a split, or `limit` of them spread evenly.

        Raises:
            UserError: There is no such split.
        """
        garments_of(split)
        num = self.num_train if split == SPLITS[0] else self.num_test
        return SceneSamples(self.spec, split, tuple(picks_of(num, limit).tolist()))

    def fingerprint(self) -> str:
        """Digest of the generator's version, the garments, the spec and the numbers of scenes."""
        return digest_of(
            {
                "source": SOURCE,
                "version": VERSION,
                "garments": digest_of_garments(),
                "spec": self.spec.to_dict(),
                "num": [self.num_train, self.num_test],
                "classes": list(self.class_names),
            }
        )
