"""What `g2sd teacher verify` and `import` do: open a file, account for every key, and write it as a file of ours."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.adapt import encoder_of
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier, save_encoder, save_generic, save_masked
from g2sd_deploy.models.masked import GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder
from g2sd_deploy.models.weight_file import held_kind
from g2sd_deploy.zoo import dense
from g2sd_deploy.zoo.catalog import find_teacher, full_file_of, teachers
from g2sd_deploy.zoo.download import Tick
from g2sd_deploy.zoo.opening import Hints, Opened, hints_of, imagenet_classes, imagenet_preprocessing, narrowed, open_file, resized
from g2sd_deploy.zoo.places import places
from g2sd_deploy.zoo.pulling import pull
from g2sd_deploy.zoo.roles import Role
from g2sd_export.edge.preprocess import Preprocessing

_USES = {
    "masked": "teacher.masked of g2sd; teacher.encoder of dmae and tinymim",
    "encoder": "teacher.encoder of dmae and tinymim; not g2sd, which needs a decoder",
    "generic": "teacher.encoder of dmae and tinymim; not g2sd, which needs a decoder of pixels",
    "classifier": "teacher.classifier of specific distillation; its encoder as teacher.encoder",
}


@dataclass(frozen=True)
class Asked:
    """What a person said to `import`; None for what is to be worked out.

    Attributes:
        kind: What to keep of the file.
        heads: Attention heads of the encoder.
        decoder_heads: Attention heads of the decoder.
        classes: `imagenet-1k`, or a file with one name a line.
        image_px: Size of the images that the positions are to fit.
        resize_px: Short side of an image before a classifier's centre crop.
        mean: Comma-separated, per channel.
        std: Comma-separated, per channel.
    """

    kind: Role | None = None
    heads: int | None = None
    decoder_heads: int | None = None
    classes: str | None = None
    image_px: int | None = None
    resize_px: int | None = None
    mean: str | None = None
    std: str | None = None


def verify(name: str, *, heads: int | None = None, decoder_heads: int | None = None, tick: Tick) -> dict[str, Any]:
    """Hash and open a teacher; every key is used or dropped for a reason.

    Args:
        name: A name of the catalogue, which is pulled first, or a file.
        heads: Attention heads of the encoder, for a file.
        decoder_heads: Attention heads of the decoder, for a file.
        tick: Told how far a download is.

    Returns:
        Findings for people, in the order to show them.

    Raises:
        UserError: It is not whole, of no known layout, or not what the catalogue says.
    """
    compared: tuple[str, ...] = ()
    if name in teachers():
        listed = find_teacher(name)
        pulled = pull(listed, places(), tick=tick)
        opened, compared = open_file(pulled.path, hints_of(listed), pulled.sha256), pulled.checked
        if opened.kind != listed.listed.content:
            raise UserError(f"{name}: the catalogue says that it holds a {listed.listed.content} model, but it holds a {opened.kind} model")
    else:
        path = Path(name).expanduser()
        if (kind := held_kind(path)) in dense.KINDS:
            return dense.findings(path, kind)
        opened = open_file(path, Hints(heads=heads, decoder_heads=decoder_heads))
    return _findings(opened, compared)


def import_file(file: Path, out: Path, asked: Asked) -> list[str]:
    """Convert a file and write it as one of ours.

    Returns:
        What a person should know, one line each.

    Raises:
        UserError: It cannot be converted, or `out` cannot be written.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out {out}: wanted a name that ends in .safetensors")
    if out.exists():
        raise UserError(f"--out {out}: exists; give another name")
    opened = open_file(file.expanduser(), _hints(asked))
    if asked.kind is not None:
        opened = narrowed(opened, asked.kind, str(file))
    if opened.kind == "classifier":
        opened = replace(opened, preprocessing=_preprocessing(opened, asked))
    elif given := [name for name in ("classes", "resize_px", "mean", "std") if getattr(asked, name) is not None]:
        raise UserError(f"--{given[0].replace('_', '-')}: is for classifiers, but {file} holds a {opened.kind} model")
    if asked.image_px is not None:
        opened = resized(opened, asked.image_px)
    try:
        _save(out, opened)
    except OSError as error:
        raise UserError(f"--out {out}: cannot be written ({error.strerror})") from None
    findings = _findings(opened, ())
    return [f"{key.replace('_', ' ')}: {'; '.join(value) if isinstance(value, list) else value}" for key, value in findings.items()]


def _findings(opened: Opened, compared: tuple[str, ...]) -> dict[str, Any]:
    spec = encoder_of(opened.model).spec
    found: dict[str, Any] = {
        "file": str(opened.path),
        "sha256": opened.sha256,
        "compared_with": list(compared),
        "recognised_as": opened.description,
        "kind": opened.kind,
        "encoder": f"width {spec.width}, depth {spec.depth}, {spec.heads} heads, {spec.patch_px} px patches of {spec.image_px} px images",
        "decoder": _decoder(opened),
        "positions": "learned" if spec.learned_positions else "the fixed sine-cosine table",
        "num_parameters": sum(p.numel() for p in opened.model.parameters()),
        "classes": len(opened.class_names) or None,
        "licence": opened.licence,
        "dropped": _dropped(opened),
        "notes": list(opened.notes),
        "can_be_used_as": _USES[opened.kind],
        "instead": full_file_of(spec.width, spec.depth) if opened.kind == "encoder" else None,
    }
    return {name: value for name, value in found.items() if value not in (None, [])}


def _decoder(opened: Opened) -> str | None:
    if not isinstance(opened.model, MaskedAutoencoder | GenericStudent):
        return None
    spec = opened.model.decoder.spec
    return f"width {spec.width}, depth {spec.depth}, {spec.heads} heads"


def _dropped(opened: Opened) -> list[str]:
    """Reasons, each with the number of keys that were left out for it and one of them."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in sorted(opened.dropped.items()):
        by_reason.setdefault(reason, []).append(key)
    return [f"{len(keys)} keys ({keys[0]}, ...): {reason}" for reason, keys in by_reason.items()]


def _hints(asked: Asked) -> Hints:
    return Hints(asked.heads, asked.decoder_heads, _class_names(asked.classes) if asked.classes is not None else None)


def _class_names(given: str) -> tuple[str, ...]:
    if given == "imagenet-1k":
        return imagenet_classes()
    try:
        names = tuple(line.strip() for line in Path(given).expanduser().read_text(encoding="utf-8").splitlines() if line.strip())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--classes {given}: cannot be read ({error}); give imagenet-1k, or a text file with one name a line") from None
    if len(set(names)) != len(names):
        raise UserError(f"--classes {given}: holds a name twice; every class needs its own")
    return names


def _preprocessing(opened: Opened, asked: Asked) -> Preprocessing:
    """How the classifier wants its images: as given, as the file says, or as ImageNet's classifiers do."""
    spec = encoder_of(opened.model).spec
    base = opened.preprocessing or imagenet_preprocessing(spec.image_px)
    mean = base.mean if asked.mean is None else _numbers("mean", asked.mean)
    std = base.std if asked.std is None else _numbers("std", asked.std)
    return Preprocessing(spec.image_px, asked.resize_px or base.resize_px, spec.num_channels, mean, std, base.interpolation)


def _numbers(option: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UserError(f"--{option} {text}: wanted numbers with commas between them, one per channel") from None


def _save(out: Path, opened: Opened) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    beside = out.with_name(f".{out.name}.unfinished")
    match opened.model:
        case MaskedAutoencoder():
            save_masked(beside, opened.model)
        case GenericStudent():
            save_generic(beside, opened.model)
        case Classifier():
            assert opened.preprocessing is not None
            save_classifier(beside, ClassifierFile(opened.model, opened.preprocessing, opened.class_names))
        case Encoder():
            save_encoder(beside, opened.model)
    beside.replace(out)
