"""Weights of other projects as models of ours: state dict in, model out; every key is used, or dropped for a stated reason.

Layouts are told apart by their keys: MAE (encoder alone, with decoder, fine-tuned), timm's plain ViT, DeiT's distilled ViT, Hugging Face's
ViTMAE, and what G2SD and DMAE save. Shape letters as in vit.py; R is the width of a decoder.

Source: facebookresearch/mae@efb2a80, models_mae.py and models_vit.py; huggingface/transformers, models/vit_mae; pengzhiliang/G2SD@6146adf
and UCSC-VLAA/DMAE@a0f4959, their model files; facebookresearch/deit@7e160fe, models.py. Key names only, no code.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from g2sd_deploy.models.adapt import filled
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.position import is_sincos
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Pooling, Token

Kind = Literal["encoder", "masked", "generic", "classifier"]
Model = Encoder | MaskedAutoencoder | GenericStudent | Classifier

KNOWN_HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1280: 16}
"""Attention heads by encoder width, as in every published ViT-Ti, S, B, L and H; a file does not hold them."""
KNOWN_DECODER_HEADS = {64: 4, 128: 4, 192: 8, 256: 8, 512: 16}
"""Attention heads by decoder width, as in MAE and G2SD."""

_WRAPPERS = ("model", "state_dict")
_NAMED = 4
_DROPPED: dict[str, dict[str, str]] = {
    "masked": {"aligned_feature_projection_heads.": "DMAE's projection to its teacher's width, used in its training only"},
    "generic": {
        "encoderfeature_pred.": "G2SD's projection of the encoder, whose loss its authors weigh with 0",
        "decoder_norm.": "built and never trained in G2SD's first stage",
        "decoder_pred.": "built and never trained in G2SD's first stage",
    },
}


class ForeignError(ValueError):
    """Weights that are of no known layout, or not whole; the message does not name the file."""


@dataclass(frozen=True)
class Converted:
    """A model made of foreign weights.

    Attributes:
        kind: What it is.
        description: The layout it was recognised as, for people.
        model: In evaluation mode, float32.
        dropped: Key that was left out to the reason.
        notes: What a person should know, for instance which number of heads was assumed.
    """

    kind: Kind
    description: str
    model: Model
    dropped: dict[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def unwrap(loaded: object) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The weights in what a training script saved.

    Args:
        loaded: A state dict, or a dict that holds one as `model` or `state_dict` beside an optimiser's state and the like.

    Returns:
        The weights, without the `module.` of a data-parallel wrapper; and what was left out, with the reason.

    Raises:
        ForeignError: There is no state dict in it.
    """
    dropped: dict[str, str] = {}
    if isinstance(loaded, Mapping):
        for name in _WRAPPERS:
            if isinstance(loaded.get(name), Mapping):
                dropped = {str(key): "no weights of the model, but what its training saved beside them" for key in loaded if key != name}
                loaded = loaded[name]
                break
    if not isinstance(loaded, Mapping) or not loaded:
        raise ForeignError(f"holds {_what(loaded)} instead of a dict of weights")
    odd = [key for key, value in loaded.items() if not (isinstance(key, str) and isinstance(value, Tensor))]
    if odd:
        raise ForeignError(f"holds {_what(loaded[odd[0]])} under {odd[0]!r} where weights were wanted")
    parallel = all(key.startswith("module.") for key in loaded)
    return {key.removeprefix("module.") if parallel else key: value for key, value in loaded.items()}, dropped


def convert(weights: Mapping[str, Tensor], *, heads: int | None = None, decoder_heads: int | None = None) -> Converted:
    """Recognise a state dict by its keys and make a model of it.

    Args:
        weights: As `unwrap` returns them.
        heads: Attention heads of the encoder; by default those that published models of its width have.
        decoder_heads: The same for the decoder.

    Raises:
        ForeignError: Unknown layout, a key that nothing uses or that is missing, a shape that does not fit, a number that is not finite, or
            a number of heads that has to be given.
    """
    keys = _hugging_face(weights) if any("embeddings.patch_embeddings." in key for key in weights) else _Keys(dict(weights), {})
    kind = _kind_of(keys)
    dropped = {name: reason for name in keys.values for prefix, reason in _DROPPED.get(kind, {}).items() if name.startswith(prefix)}
    for name in dropped:
        del keys.values[name]
    notes: list[str] = []
    model: Model
    match kind:
        case "encoder":
            model, description = _encoder(keys, heads, notes), "ViT encoder (MAE, timm, TinyMIM)"
        case "masked" | "generic":
            model, description = _masked(keys, kind, heads, decoder_heads, notes)
        case "classifier":
            model, description = _classifier(keys, heads, notes)
    if keys.renamed:
        description = f"Hugging Face ViTMAE: {description}"
    return Converted(kind, description, model, dropped, tuple(notes))


@dataclass
class _Keys:
    """Weights under MAE's names, and the name that each had in the file."""

    values: dict[str, Tensor]
    renamed: dict[str, str]

    def has(self, prefix: str) -> bool:
        return any(name.startswith(prefix) for name in self.values)

    def get(self, name: str) -> Tensor:
        if name not in self.values:
            raise ForeignError(f"the weights {name} are missing, so it is of no known layout (MAE, timm, DeiT, Hugging Face ViTMAE)")
        return self.values[name]

    def in_file(self, names: Iterable[str]) -> str:
        """Some names for an error, as the file has them."""
        found = sorted(self.renamed.get(name, name) for name in names)
        return ", ".join(found[:_NAMED]) + (f" and {len(found) - _NAMED} more" if len(found) > _NAMED else "")


def _kind_of(keys: _Keys) -> Kind:
    keys.get("patch_embed.proj.weight")
    if keys.has("decoderfeature_pred."):
        return "generic"
    if keys.has("decoder_") or keys.has("mask_token"):
        return "masked"
    return "classifier" if keys.has("head.") else "encoder"


def _encoder(keys: _Keys, heads: int | None, notes: list[str]) -> Encoder:
    spec = _encoder_spec(keys, heads, notes, prefix_rows=1)
    with torch.device("meta"):
        model = Encoder(spec)
    return filled(model, _matched(keys, {name: name for name in model.state_dict()}, model.state_dict()))


def _masked(
    keys: _Keys, kind: Literal["masked", "generic"], heads: int | None, decoder_heads: int | None, notes: list[str]
) -> tuple[MaskedAutoencoder | GenericStudent, str]:
    spec = _encoder_spec(keys, heads, notes, prefix_rows=1)
    decoder = _decoder_spec(keys, decoder_heads, notes)
    with torch.device("meta"):
        if kind == "masked":
            empty: MaskedAutoencoder | GenericStudent = MaskedAutoencoder(spec, decoder)
        else:
            empty = GenericStudent(spec, decoder, keys.get("decoderfeature_pred.fc2.weight").shape[0])
    state = _matched(keys, {name: _masked_name(name) for name in empty.state_dict()}, empty.state_dict())
    if isinstance(empty, GenericStudent):
        return filled(empty, state), "G2SD's student after its first stage"
    state |= {f"decoder_pred.{name}": _channels_first(state[f"decoder_pred.{name}"], spec) for name in ("weight", "bias")}
    return filled(empty, state), "MAE encoder and decoder"


def _classifier(keys: _Keys, heads: int | None, notes: list[str]) -> tuple[Classifier, str]:
    rows = keys.get("pos_embed").shape[1]
    token: Token = "none" if not keys.has("dist_token") else "deit" if _is_square(rows - 2) else "g2sd"
    pooling: Pooling = "mean" if keys.has("fc_norm.") else "cls"
    spec = _encoder_spec(keys, heads, notes, prefix_rows=2 if token == "deit" else 1)
    if token == "deit":
        table = keys.values["pos_embed"]
        keys.values |= {"pos_embed": torch.cat([table[:, :1], table[:, 2:]], dim=1), "dist_pos": table[:, 1:2]}
    with torch.device("meta"):
        model = Classifier(spec, keys.get("head.weight").shape[0], pooling=pooling, token=token)
    norm = "fc_norm." if pooling == "mean" else "norm."
    names = {name: re.sub(r"^encoder\.norm\.", norm, name).removeprefix("encoder.") for name in model.state_dict()}
    what = {"none": "ViT classifier", "g2sd": "G2SD classifier with distillation token", "deit": "DeiT classifier with distillation token"}
    return filled(model, _matched(keys, names, model.state_dict())), f"{what[token]}, {pooling} pooling"


def _masked_name(name: str) -> str:
    """MAE's name for a weight of a masked model of ours."""
    for ours, theirs in (
        ("encoder.", ""),
        ("decoder.", "decoder_"),
        ("feature_head.0.", "decoderfeature_pred.fc1."),
        ("feature_head.2.", "decoderfeature_pred.fc2."),
    ):
        if name.startswith(ours):
            return (theirs + name.removeprefix(ours)).replace("decoder_mask_token", "mask_token")
    return name


def _channels_first(rows: Float[Tensor, "PPC *R"], spec: EncoderSpec) -> Float[Tensor, "CPP *R"]:
    """MAE numbers the pixels of a patch (y, x, channel), we (channel, y, x) as a convolution's kernel does."""
    cut = rows.reshape(spec.patch_px**2, spec.num_channels, -1)
    return cut.transpose(0, 1).reshape(rows.shape).contiguous()


def _matched(keys: _Keys, names: Mapping[str, str], wanted: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's state: each weight under our name, float32.

    Args:
        keys: What there is.
        names: Our name to MAE's.
        wanted: The model's own state, for the shapes.
    """
    missing, unknown = set(names.values()) - set(keys.values), set(keys.values) - set(names.values())
    if missing or unknown:
        parts = [f"{what} {keys.in_file(some)}" for what, some in (("missing", missing), ("not used by any part", unknown)) if some]
        raise ForeignError(f"its weights are not those of a plain ViT of a known layout: {'; '.join(parts)}")
    state = {}
    for ours, theirs in names.items():
        value = keys.values[theirs]
        if value.shape != wanted[ours].shape:
            wrong = f"{keys.in_file([theirs])} has shape {list(value.shape)}, the other weights ask for {list(wanted[ours].shape)}"
            raise ForeignError(wrong)
        if not value.is_meta and not value.isfinite().all():
            raise ForeignError(f"{keys.in_file([theirs])} holds NaN or infinite numbers, so the file is of a failed training or damaged")
        state[ours] = value.detach().float().contiguous()
    return state


def _encoder_spec(keys: _Keys, heads: int | None, notes: list[str], *, prefix_rows: int) -> EncoderSpec:
    """Shape of the encoder, read off its weights."""
    kernel, table = keys.get("patch_embed.proj.weight"), keys.get("pos_embed")
    if kernel.ndim != 4 or kernel.shape[2] != kernel.shape[3] or table.ndim != 3:
        raise ForeignError(f"patches {list(kernel.shape)} with positions {list(table.shape)} are not those of a ViT with square patches")
    width, channels, patch = (int(size) for size in kernel.shape[:3])
    num_patches = int(table.shape[1]) - prefix_rows
    if not _is_square(num_patches) or num_patches < 1:
        raise ForeignError(f"pos_embed has {table.shape[1]} rows; wanted {prefix_rows} and a square number of patches")
    if channels not in (1, 3):
        raise ForeignError(f"it was made for images of {channels} channels; wanted 1 (grey) or 3 (RGB)")
    fixed = prefix_rows == 1 and table.shape[2] == width and not table.is_meta and is_sincos(table.detach())
    return EncoderSpec(
        image_px=patch * math.isqrt(num_patches),
        patch_px=patch,
        num_channels=channels,
        width=width,
        depth=_depth(keys, "blocks."),
        heads=_heads(width, heads, KNOWN_HEADS, "heads", notes),
        mlp_ratio=_mlp_ratio(keys, "blocks.", width),
        learned_positions=not fixed,
    )


def _decoder_spec(keys: _Keys, heads: int | None, notes: list[str]) -> DecoderSpec:
    width = int(keys.get("decoder_embed.weight").shape[0])
    return DecoderSpec(
        width=width,
        depth=_depth(keys, "decoder_blocks."),
        heads=_heads(width, heads, KNOWN_DECODER_HEADS, "decoder heads", notes),
        mlp_ratio=_mlp_ratio(keys, "decoder_blocks.", width),
    )


def _depth(keys: _Keys, prefix: str) -> int:
    found = [int(match[1]) for name in keys.values if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]
    if not found:
        raise ForeignError(f"it has no blocks ({prefix}0.*)")
    return max(found) + 1


def _mlp_ratio(keys: _Keys, prefix: str, width: int) -> float:
    return float(keys.get(f"{prefix}0.mlp.fc1.weight").shape[0]) / width


def _heads(width: int, given: int | None, known: Mapping[int, int], what: str, notes: list[str]) -> int:
    """The number of heads that was given, or the one that published models of this width have."""
    if given is None and width not in known:
        option = f"--{what.replace(' ', '-')}"
        raise ForeignError(f"a file does not say its number of attention heads, and {width} is no published width; give {option}")
    heads = known[width] if given is None else given
    if heads < 1 or width % heads:
        raise ForeignError(f"{heads} {what} do not divide the width {width}")
    if given is None:
        notes.append(f"{heads} {what} assumed, as published models of width {width} have; a file does not say")
    return heads


_HUGGING_FACE = (
    (r"^embeddings\.(cls_token)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^layernorm\.", "norm."),
    (r"^decoder\.decoder_layers\.", "decoder_blocks."),
    (r"^decoder\.", ""),
    (r"\.layernorm_before\.", ".norm1."),
    (r"\.layernorm_after\.", ".norm2."),
    (r"\.attention\.output\.dense\.", ".attn.proj."),
    (r"\.intermediate\.dense\.", ".mlp.fc1."),
    (r"\.output\.dense\.", ".mlp.fc2."),
)


def _hugging_face(weights: Mapping[str, Tensor]) -> _Keys:
    """Weights of Hugging Face's ViTMAE under MAE's names; queries, keys and values are joined."""
    renamed: dict[str, str] = {}
    values: dict[str, Tensor] = {}
    parts: dict[str, dict[str, Tensor]] = {}
    for original, value in weights.items():
        name = original.removeprefix("vit.")
        for pattern, replacement in _HUGGING_FACE:
            name = re.sub(pattern, replacement, name)
        if match := re.fullmatch(r"(.+)\.attention\.attention\.(query|key|value)\.(weight|bias)", name):
            name = f"{match[1]}.attn.qkv.{match[3]}"
            parts.setdefault(name, {})[match[2]] = value
            renamed[name] = original.replace(match[2], "{query,key,value}")
        else:
            values[name], renamed[name] = value, original
    for name, three in parts.items():
        if three.keys() != {"query", "key", "value"}:
            raise ForeignError(f"{renamed[name]}: only {', '.join(sorted(three))} is there")
        values[name] = torch.cat([three["query"], three["key"], three["value"]])
    return _Keys(values, renamed)


def _is_square(number: int) -> bool:
    return number >= 0 and math.isqrt(number) ** 2 == number


def _what(value: object) -> str:
    if isinstance(value, Mapping):
        return "an empty dict" if not value else "a dict"
    return "a single tensor" if isinstance(value, Tensor) else f"a {type(value).__name__}"
