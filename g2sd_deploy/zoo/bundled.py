"""Teachers inside the package; recipes/quickstart_teacher*.yaml show how they were made."""

from pathlib import Path

from g2sd_deploy.errors import UserError

FASHION_MNIST, SCENES = "bundled:fashion-mnist", "bundled:scenes"
_ASSETS = Path(__file__).parent.parent / "assets"
_PARTS = {
    FASHION_MNIST: {"masked": "teacher/fashion_mnist_masked", "classifier": "teacher/fashion_mnist_classifier"},
    SCENES: {part: f"scenes_teacher/{part}" for part in ("masked", "segmenter", "detector")},
}
"""Weight files by the setting of `teacher` that they are for."""


def is_bundled(reference: str) -> bool:
    """Whether this names a teacher inside the package."""
    return reference in _PARTS


def bundled_file(reference: str, part: str) -> Path:
    """The weight file for `teacher.PART`; the masked model's for an encoder.

    Args:
        reference: A name for which `is_bundled` holds.
        part: A setting of `teacher`.

    Raises:
        UserError: The package has no such part of this teacher.
    """
    files = _PARTS[reference]
    name = files.get("masked" if part == "encoder" else part)
    if name is None:
        having = [other for other, others in _PARTS.items() if part in others]
        instead = f"; {' and '.join(having)} has one" if having else ""
        raise UserError(f"teacher.{part} is {reference}: the package has {', '.join(files)} of it and no {part}{instead}")
    return _ASSETS / f"{name}.safetensors"
