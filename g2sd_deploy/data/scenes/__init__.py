"""Scenes composed of garments, with every truth: `compose` makes one, `SceneSource` is a data set of them."""

from g2sd_deploy.data.scenes.composing import compose
from g2sd_deploy.data.scenes.settings import SceneSpec
from g2sd_deploy.data.scenes.source import SceneSamples, SceneSource, open_scenes

__all__ = ["SceneSamples", "SceneSource", "SceneSpec", "compose", "open_scenes"]
