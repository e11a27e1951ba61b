"""The encoder that a student starts from: the generic stage's, or a finished one that the recipe names."""

from dataclasses import replace
from pathlib import Path

from g2sd_deploy.artifact import read_artifact, sha256_of
from g2sd_deploy.data.sources import expand
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.adapt import at_image_size, encoder_of
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.settings import Recipe
from g2sd_deploy.stages.context import Context, encoder_file, encoder_spec, preprocessing_of
from g2sd_deploy.zoo.opening import Hints, open_file

_FILES = tuple(f"{kind}.safetensors" for kind in ("encoder", "generic", "masked", "classifier"))


def student_start(context: Context) -> Encoder:
    """The encoder that the stages behind generic start from, float32.

    Raises:
        UserError: `student.weights` is not there, not whole, or of another shape than the student.
    """
    shape = context.recipe.student
    if shape is None or shape.weights is None:
        return load_encoder(encoder_file(context.inputs["generic"]))
    return named_student(context.recipe)


def named_student(recipe: Recipe) -> Encoder:
    """The encoder of `student.weights`, its positions fitted to the recipe's images; its number of heads may be another.

    Raises:
        UserError: As `student_start`.
    """
    shape, reference = recipe.student, recipe.student_weights
    assert shape is not None and reference is not None
    encoder = encoder_of(open_file(_file_of(expand(reference)), Hints(heads=shape.heads)).model)
    wanted, found = encoder_spec(shape, preprocessing_of(recipe.data)), encoder.spec
    fitted = replace(found, image_px=wanted.image_px, heads=wanted.heads, learned_positions=wanted.learned_positions)
    if fitted != wanted:
        raise UserError(
            f"student.weights is {reference}: {_shape_of(found)}; student and data ask for {_shape_of(wanted)}; make them agree"
        )
    return at_image_size(encoder, wanted.image_px)


def fingerprint(reference: str) -> str:
    """Changes when the student that a recipe names changes: the digest of its stage, or the hash of its file."""
    path = expand(reference)
    if path.is_dir():
        artifact = read_artifact(path)
        return "missing" if artifact is None else artifact.digest
    return sha256_of(path) if path.is_file() else "missing"


def _file_of(path: Path) -> Path:
    if not path.is_dir():
        if not path.is_file():
            raise UserError(f"student.weights is {path}: there is no such file or stage folder; give one such as runs/NAME/generic")
        return path
    artifact = read_artifact(path)
    held = [] if artifact is None else [name for name in _FILES if name in artifact.files]
    if artifact is None or artifact.failure or not held:
        reason = (
            "no stage finished there" if artifact is None else artifact.failure or f"the stage {artifact.stage} made no student of generic"
        )
        raise UserError(f"student.weights is {path}: {reason}; give the folder of one that did, such as runs/NAME/generic")
    artifact.verify()
    return path / held[0]


def _shape_of(spec: EncoderSpec) -> str:
    return (
        f"{spec.depth} blocks of width {spec.width} on patches of {spec.patch_px} px and {spec.num_channels} channels, "
        f"mlp_ratio {spec.mlp_ratio:g}"
    )
