"""A small recipe to be changed, and the refusal that it gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe import load_recipe

TEXT = """\
# A comment.
name: tiny
data:
  source: idx
  root: bundled:fashion-mnist
  image_px: 28
  num_channels: 1
  mean: [0.286]
  std: [0.353]
teacher: {masked: m.safetensors, classifier: c.safetensors}
student:
  patch_px: 7
  width: 32
  depth: 2
  heads: 2
generic:
  method: g2sd
  decoder: {width: 16, depth: 1, heads: 2}
  teacher_decoder_block: 1
  epochs: 1
  batch_size: 32
  base_lr: 3e-4
specific:
  method: hard
  epochs: 0.5
  batch_size: 32
  base_lr: 1e-3
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write the recipe above, or another text, with replacements; each must be found once."""

    def write_recipe(*replacements: tuple[str, str], text: str = TEXT, name: str = "tiny.yaml") -> Path:
        for old, new in replacements:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return path

    return write_recipe


@pytest.fixture
def refusal() -> Callable[..., str]:
    """The message that a recipe gets, with the file's folder left out; always one line."""

    def refuse(path: Path, *overrides: str) -> str:
        with pytest.raises(UserError) as caught:
            load_recipe(path, overrides)
        message = str(caught.value)
        assert "\n" not in message
        return message.replace(f"{path.parent}/", "")

    return refuse


@pytest.fixture
def recipe_text() -> str:
    return TEXT
