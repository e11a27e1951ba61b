"""A few scenes that several tests look at."""

import pytest

from g2sd_deploy.data.dense.annotations import Annotated, Instances
from g2sd_deploy.data.scenes import SceneSpec, compose

SPEC = SceneSpec(image_px=48, max_garments=6, seed=3)


@pytest.fixture(scope="session")
def spec() -> SceneSpec:
    return SPEC


@pytest.fixture(scope="session")
def scenes() -> list[tuple[Annotated, Instances]]:
    """The first forty training scenes, with their objects."""
    made = [compose(SPEC, "train", index) for index in range(40)]
    return [(scene, scene.instances) for scene in made if scene.instances is not None]
