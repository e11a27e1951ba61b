"""Open whatever a person may name as a teacher: a name of the catalogue, a file of ours or of others, or a finished stage's folder."""

from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import cast

from torch import nn

from g2sd_deploy.artifact import read_artifact, sha256_of
from g2sd_deploy.data.sources import expand
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.adapt import at_image_size, encoder_of
from g2sd_deploy.models.checkpoint import load_classifier, load_encoder, load_generic, load_masked
from g2sd_deploy.models.foreign import Converted, ForeignError, Kind, convert
from g2sd_deploy.models.vit import Classifier, Encoder
from g2sd_deploy.models.weight_file import FileKind, held_kind
from g2sd_deploy.zoo.bundled import bundled_file, is_bundled
from g2sd_deploy.zoo.catalog import Teacher, find_teacher, full_file_of, nearest_name, teachers
from g2sd_deploy.zoo.download import Tick
from g2sd_deploy.zoo.places import places
from g2sd_deploy.zoo.pulling import pull
from g2sd_deploy.zoo.roles import KINDS_FOR, Role, cannot_play, check_role
from g2sd_deploy.zoo.weights import load_weights
from g2sd_export.edge.preprocess import Preprocessing

_IMAGENET_CLASSES = 1000
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Opened:
    """A teacher, ready to be fitted to data.

    Attributes:
        kind: What `model` is.
        model: One of our models, float32, in evaluation mode.
        path: File that it was read from.
        sha256: Its hash.
        own: Whether the file is one of ours and holds exactly this, so that it may be copied as it is.
        description: What it was recognised as, for people.
        licence: As the catalogue says; None where nobody says.
        preprocessing: How it wants its images; None where nobody says.
        trained_px: Image size of the file.
        class_names: Of a classifier.
        dropped: Key that was left out to the reason.
        notes: What a person should know.
    """

    kind: Kind
    model: nn.Module
    path: Path
    sha256: str
    own: bool
    description: str
    trained_px: int
    licence: str | None = None
    preprocessing: Preprocessing | None = None
    class_names: tuple[str, ...] = ()
    dropped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Hints:
    """What a foreign file does not say; None for what is to be worked out.

    Attributes:
        heads: Attention heads of the encoder.
        decoder_heads: Attention heads of the decoder.
        class_names: Name of each logit.
        preprocessing: How the model wants its images.
        licence: Under which it may be used.
    """

    heads: int | None = None
    decoder_heads: int | None = None
    class_names: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    licence: str | None = None


def open_teacher(reference: str, role: Role, *, tick: Tick) -> Opened:
    """Open what a recipe names in `teacher.ROLE`; a name of the catalogue is pulled first.

    Args:
        reference: A name of the catalogue, a file, the folder of a finished stage, or a teacher inside the package (`bundled:...`).
        role: What it is wanted as.
        tick: Told how far a download is.

    Raises:
        UserError: It is not there, not whole, or cannot play the role; an encoder without decoder is refused as masked teacher with the
            name of the file to take instead.
    """
    if reference in teachers():
        listed = find_teacher(reference)
        check_role(listed, role)
        pulled = pull(listed, places(), tick=tick)
        return narrowed(open_file(pulled.path, hints_of(listed), pulled.sha256), role, reference)
    return narrowed(open_file(path_of(reference, role), Hints()), role, reference)


def fingerprint_of(reference: str, role: Role) -> str:
    """Changes when the teacher that a recipe names changes; nothing is pulled.

    Raises:
        UserError: The catalogue's entry cannot play the role.
    """
    if reference in teachers():
        listed = find_teacher(reference)
        check_role(listed, role)
        return listed.digest
    path = expand(reference)
    if path.is_dir():
        artifact = read_artifact(path)
        return "missing" if artifact is None else artifact.digest
    path = bundled_file(reference, role) if is_bundled(reference) else path
    return _sha256_of(path, path.stat().st_mtime_ns, path.stat().st_size) if path.is_file() else "missing"


def path_of(reference: str, role: Role) -> Path:
    """The weight file that a path, a stage's folder or the bundled teacher's name stands for.

    Raises:
        UserError: There is no such file, or the folder's stage made nothing that can play the role.
    """
    if is_bundled(reference):
        return bundled_file(reference, role)
    path = expand(reference)
    if path.is_dir():
        return _file_of_stage(path, role)
    if not path.is_file():
        near = nearest_name(reference)
        raise UserError(
            f"teacher.{role} is {reference}: there is no such file or stage folder, and no teacher of that name"
            f"{f'; did you mean {near}?' if near else ' (`g2sd teacher list` shows them)'}"
        )
    return path


def open_file(path: Path, hints: Hints, sha256: str | None = None) -> Opened:
    """Open a weight file of ours, or convert one of a known layout.

    Args:
        path: The file.
        hints: What it may not say.
        sha256: Its hash where that is known, to spare the reading.

    Raises:
        UserError: It is not whole, or of no known layout.
    """
    own = held_kind(path)
    if own is not None:
        return _open_own(path, own)
    weights, left_out = load_weights(path)
    try:
        found = convert(weights, heads=hints.heads, decoder_heads=hints.decoder_heads)
    except ForeignError as error:
        raise UserError(f"{path}: {error}") from None
    notes = list(found.notes)
    class_names = _class_names(path, found, hints) if isinstance(found.model, Classifier) else ()
    preprocessing = hints.preprocessing
    if isinstance(found.model, Classifier) and preprocessing is None:
        preprocessing = imagenet_preprocessing(encoder_of(found.model).spec.image_px)
        notes.append("ImageNet's mean and standard deviation assumed; a file does not say")
    return Opened(
        found.kind,
        found.model,
        path,
        sha256 or sha256_of(path),
        own=False,
        description=found.description,
        trained_px=encoder_of(found.model).spec.image_px,
        licence=hints.licence,
        preprocessing=preprocessing,
        class_names=class_names,
        dropped=found.dropped | left_out,
        notes=tuple(notes),
    )


def narrowed(opened: Opened, role: Role, name: str) -> Opened:
    """The teacher as what it is wanted as: for an encoder, everything else is left away.

    Raises:
        UserError: It cannot play the role.
    """
    if opened.kind not in KINDS_FOR[role]:
        spec = encoder_of(opened.model).spec
        raise UserError(f"{name}: {cannot_play(opened.kind, role, full_file_of(spec.width, spec.depth))}")
    if role == "encoder" and opened.kind != "encoder":
        return replace(opened, kind="encoder", model=encoder_of(opened.model), own=False, class_names=())
    return opened


def resized(opened: Opened, image_px: int) -> Opened:
    """The teacher for images of another size.

    Raises:
        UserError: Its patches do not divide the size.
    """
    if encoder_of(opened.model).spec.image_px == image_px:
        return opened
    try:
        model = at_image_size(cast("Encoder", opened.model), image_px)
    except ValueError as error:
        raise UserError(f"{opened.path}: {error}; choose another image size") from None
    pre = opened.preprocessing
    if pre is not None:
        pre = replace(pre, image_px=image_px, resize_px=round(pre.resize_px * image_px / pre.image_px))
    return replace(opened, model=model, preprocessing=pre, own=False)


def hints_of(listed: Teacher) -> Hints:
    """What the catalogue knows beyond the file."""
    return Hints(
        heads=listed.network.heads,
        decoder_heads=listed.decoder.heads if listed.decoder is not None else None,
        class_names=imagenet_classes() if listed.listed.classes == "imagenet-1k" else None,
        preprocessing=listed.preprocessing,
        licence=listed.listed.licence,
    )


def imagenet_preprocessing(image_px: int) -> Preprocessing:
    """ImageNet's mean and deviation, and a centre crop of seven eighths, as everybody evaluates at 224 px (resize 256)."""
    return Preprocessing(image_px, round(image_px * 256 / 224), 3, IMAGENET_MEAN, IMAGENET_STD, "bicubic")


@lru_cache
def imagenet_classes() -> tuple[str, ...]:
    """WordNet ids of ImageNet-1k in the order of every public classifier's logits, which are also its folder names."""
    from timm.data.imagenet_info import ImageNetInfo

    return tuple(ImageNetInfo("imagenet-1k").label_names())  # type: ignore[no-untyped-call]


def _open_own(path: Path, kind: FileKind) -> Opened:
    sha256 = sha256_of(path)
    if kind == "classifier":
        file = load_classifier(path)
        spec = file.model.encoder.spec
        return Opened(kind, file.model, path, sha256, True, "classifier of g2sd", spec.image_px, None, file.preprocessing, file.class_names)
    if kind == "segmenter" or kind == "detector":
        encoder = load_encoder(path)
        return Opened("encoder", encoder, path, sha256, False, f"encoder of a {kind} of g2sd", encoder.spec.image_px)
    model = {"masked": load_masked, "generic": load_generic, "encoder": load_encoder}[kind](path)
    return Opened(kind, model, path, sha256, True, f"{kind} model of g2sd", encoder_of(model).spec.image_px)


def _class_names(path: Path, found: Converted, hints: Hints) -> tuple[str, ...]:
    assert isinstance(found.model, Classifier)
    count = found.model.num_classes
    names = hints.class_names
    if names is None and count == _IMAGENET_CLASSES:
        names = imagenet_classes()
    if names is None:
        raise UserError(
            f"{path}: tells {count} classes apart and does not say which; take it in with "
            "`g2sd teacher import FILE --classes NAMES.txt --out X.safetensors` (one name a line, in the order of its logits)"
        )
    if len(names) != count:
        raise UserError(f"{path}: tells {count} classes apart, but {len(names)} names were given")
    return names


def _file_of_stage(folder: Path, role: Role) -> Path:
    """The weight file of a finished stage that plays the role; every file of the stage is verified."""
    artifact = read_artifact(folder)
    if artifact is None:
        raise UserError(f"teacher.{role} is {folder}: no stage finished there; give the folder of one, such as runs/NAME/generic")
    if artifact.failure:
        raise UserError(f"teacher.{role} is {folder}: that stage failed ({artifact.failure}), so nothing is built on it")
    artifact.verify()
    files = {kind: folder / f"{kind}.safetensors" for kind in KINDS_FOR["encoder"] if f"{kind}.safetensors" in artifact.files}
    for kind in KINDS_FOR[role]:
        if kind in files:
            return files[kind]
    if files:
        return next(iter(files.values()))  # opened, it says what it is and what was wanted
    raise UserError(f"teacher.{role} is {folder}: the stage {artifact.stage} made no model ({', '.join(sorted(artifact.files))})")


@lru_cache
def _sha256_of(path: Path, changed_ns: int, size: int) -> str:
    """Hash of a file, remembered until the file changes: planning a run asks several times."""
    return sha256_of(path)
