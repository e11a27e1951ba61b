"""Weights of other projects: every public layout, synthesised with its keys, becomes a model that computes what the original computes."""

import re
from typing import Any

import pytest
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from g2sd_deploy.models.foreign import Converted, ForeignError, convert, unwrap
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.position import sincos_position_table
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, patchify

WIDTH, DECODER = 32, 16
HEADS = {"heads": 4, "decoder_heads": 2}
EPS = 1e-6


def block_shapes(width: int, prefix: str, depth: int) -> dict[str, tuple[int, ...]]:
    """Keys of MAE's and timm's blocks."""
    one = {
        "norm1.weight": (width,), "norm1.bias": (width,), "attn.qkv.weight": (3 * width, width), "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width), "attn.proj.bias": (width,), "norm2.weight": (width,), "norm2.bias": (width,),
        "mlp.fc1.weight": (4 * width, width), "mlp.fc1.bias": (4 * width,), "mlp.fc2.weight": (width, 4 * width), "mlp.fc2.bias": (width,),
    }  # fmt: skip
    return {f"{prefix}.{i}.{name}": shape for i in range(depth) for name, shape in one.items()}


def encoder_shapes(width: int = WIDTH, depth: int = 2, patch: int = 4, grid: int = 3, norm: str = "norm") -> dict[str, tuple[int, ...]]:
    """Keys of an encoder-only file, as the fact sheet of MAE's files lists them."""
    return {
        "cls_token": (1, 1, width), "pos_embed": (1, 1 + grid**2, width),
        "patch_embed.proj.weight": (width, 3, patch, patch), "patch_embed.proj.bias": (width,),
        **block_shapes(width, "blocks", depth), f"{norm}.weight": (width,), f"{norm}.bias": (width,),
    }  # fmt: skip


def decoder_shapes(width: int = WIDTH, decoder: int = DECODER, depth: int = 1, patch: int = 4, grid: int = 3) -> dict[str, tuple[int, ...]]:
    return {
        "mask_token": (1, 1, decoder), "decoder_embed.weight": (decoder, width), "decoder_embed.bias": (decoder,),
        "decoder_pos_embed": (1, 1 + grid**2, decoder), **block_shapes(decoder, "decoder_blocks", depth),
        "decoder_norm.weight": (decoder,), "decoder_norm.bias": (decoder,),
        "decoder_pred.weight": (3 * patch**2, decoder), "decoder_pred.bias": (3 * patch**2,),
    }  # fmt: skip


def mlp_shapes(name: str, width: int, wide: int) -> dict[str, tuple[int, ...]]:
    return {
        f"{name}.fc1.weight": (wide, width),
        f"{name}.fc1.bias": (wide,),
        f"{name}.fc2.weight": (wide, wide),
        f"{name}.fc2.bias": (wide,),
    }


def head_shapes(name: str = "head", width: int = WIDTH, classes: int = 5) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (classes, width), f"{name}.bias": (classes,)}


def filled(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Random weights; position tables of pre-trained files are the fixed ones."""
    torch.manual_seed(1)
    weights = {name: torch.randn(shape) * 0.2 for name, shape in shapes.items()}
    for name in ("pos_embed", "decoder_pos_embed"):
        if name in weights and "head.weight" not in weights:
            rows, width = shapes[name][1:]
            weights[name] = sincos_position_table(width, int((rows - 1) ** 0.5))
    return weights


def to_hugging_face(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """MAE's names as the hub's conversion script renames them, queries, keys and values apart."""
    renamed: dict[str, Tensor] = {}
    for name, value in weights.items():
        side = "decoder.decoder_layers" if name.startswith("decoder_blocks.") else "vit.encoder.layer"
        if match := re.fullmatch(r"(?:decoder_)?blocks\.(\d+)\.(.+)\.(weight|bias)", name):
            layer, inner, kind = f"{side}.{match[1]}", match[2], match[3]
            if inner == "attn.qkv":
                for part, third in zip(("query", "key", "value"), value.chunk(3), strict=True):
                    renamed[f"{layer}.attention.attention.{part}.{kind}"] = third
                continue
            inner = {
                "attn.proj": "attention.output.dense", "norm1": "layernorm_before", "norm2": "layernorm_after",
                "mlp.fc1": "intermediate.dense", "mlp.fc2": "output.dense",
            }[inner]  # fmt: skip
            renamed[f"{layer}.{inner}.{kind}"] = value
        elif name.startswith("norm."):
            renamed[name.replace("norm", "vit.layernorm")] = value
        elif name.startswith(("decoder_", "mask_token")):
            renamed[f"decoder.{name}"] = value
        else:
            new = {"cls_token": "cls_token", "pos_embed": "position_embeddings"}.get(name)
            new = new or name.replace("patch_embed.proj", "patch_embeddings.projection")
            renamed[f"vit.embeddings.{new}"] = value
    return renamed


def gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def linear(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def norm(x: Tensor, w: dict[str, Tensor], name: str) -> Tensor:
    mean, var = x.mean(-1, keepdim=True), x.var(-1, keepdim=True, unbiased=False)
    return (x - mean) / (var + EPS).sqrt() * w[f"{name}.weight"] + w[f"{name}.bias"]


def run_blocks(x: Tensor, w: dict[str, Tensor], prefix: str, depth: int, heads: int) -> Tensor:
    """Transformer blocks written out, on foreign names."""
    for i in range(depth):
        name = f"{prefix}.{i}"
        b, t, d = x.shape
        q, k, v = linear(norm(x, w, f"{name}.norm1"), w, f"{name}.attn.qkv").reshape(b, t, 3, heads, d // heads).permute(2, 0, 3, 1, 4)
        attention = (q @ k.transpose(-1, -2) / (d // heads) ** 0.5).softmax(-1)
        x = x + linear((attention @ v).transpose(1, 2).reshape(b, t, d), w, f"{name}.attn.proj")
        x = x + linear(gelu(linear(norm(x, w, f"{name}.norm2"), w, f"{name}.mlp.fc1")), w, f"{name}.mlp.fc2")
    return x


def mae_pixels(w: dict[str, Tensor], images: Tensor, keep: Tensor, restore: Tensor, patch: int = 4) -> Tensor:
    """MAE's forward pass written out in float64 on MAE's names: pixels in MAE's order (y, x, channel)."""
    w = {name: value.double() for name, value in w.items()}
    x = nn.functional.conv2d(images.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=patch).flatten(2).mT
    x = x + w["pos_embed"][:, 1:]
    x = torch.stack([row[ids] for row, ids in zip(x, keep, strict=True)])
    cls = (w["cls_token"] + w["pos_embed"][:, :1]).expand(len(x), -1, -1)
    x = linear(norm(run_blocks(torch.cat([cls, x], 1), w, "blocks", 2, 4), w, "norm"), w, "decoder_embed")
    hidden = w["mask_token"].expand(len(x), restore.shape[1] - keep.shape[1], -1)
    patches = torch.cat([x[:, 1:], hidden], 1)
    patches = torch.stack([row[ids] for row, ids in zip(patches, restore, strict=True)])
    x = torch.cat([x[:, :1], patches], 1) + w["decoder_pos_embed"]
    x = run_blocks(x, w, "decoder_blocks", 1, 2)
    return linear(norm(x, w, "decoder_norm"), w, "decoder_pred")[:, 1:]


def a_mask() -> tuple[Any, Tensor]:
    torch.manual_seed(2)
    return mask_from_noise(torch.rand(2, 9), 0.5), torch.randn(2, 3, 12, 12)


MAE_FULL = encoder_shapes() | decoder_shapes()


@pytest.mark.parametrize("layout", ["mae", "hf", "ddp"])
def test_a_full_mae_file_reconstructs_the_pixels_that_mae_reconstructs(layout: str) -> None:
    weights, (mask, images) = filled(MAE_FULL), a_mask()
    given = {"mae": weights, "hf": to_hugging_face(weights), "ddp": unwrap({f"module.{name}": v for name, v in weights.items()})[0]}[layout]
    converted = convert(given, **HEADS)
    assert isinstance(converted.model, MaskedAutoencoder) and converted.kind == "masked"
    assert ("Hugging Face" in converted.description) is (layout == "hf")
    theirs = mae_pixels(weights, images, mask.keep_ids, mask.restore_ids).reshape(2, 9, 4, 4, 3)
    ours = converted.model(images, mask).reshape(2, 9, 3, 4, 4)
    torch.testing.assert_close(ours, theirs.permute(0, 1, 4, 2, 3).float(), rtol=1e-4, atol=1e-5)


def test_the_pixels_of_a_patch_are_renumbered_from_y_x_channel_to_channel_y_x() -> None:
    """With a head whose bias is the number of a pixel, the prediction is that number where MAE's patchify put it."""
    weights = filled(MAE_FULL)
    weights["decoder_pred.weight"] *= 0
    weights["decoder_pred.bias"] = torch.arange(48.0)  # y * 12 + x * 3 + channel
    mask, images = a_mask()
    got = convert(weights, **HEADS).model(images, mask)[0, 0]
    numbered = torch.arange(48.0).reshape(4, 4, 3).permute(2, 0, 1)[None]  # an image whose pixels bear MAE's numbers
    assert torch.equal(got, patchify(numbered, 4)[0, 0])


def timm_vit(**options: Any) -> VisionTransformer:
    torch.manual_seed(3)
    model = VisionTransformer(img_size=12, patch_size=4, embed_dim=WIDTH, depth=2, num_heads=4, **options).eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("pooling", ["token", "avg"])
def test_a_timm_or_fine_tuned_mae_classifier_gives_timms_logits(pooling: str) -> None:
    theirs, images = timm_vit(num_classes=5, global_pool=pooling), torch.randn(3, 3, 12, 12)
    assert ("fc_norm.weight" in theirs.state_dict()) is (pooling == "avg")  # as MAE's fine-tuned files: fc_norm and no norm
    converted = convert(theirs.state_dict(), heads=4)
    assert isinstance(converted.model, Classifier) and converted.model.pooling == {"token": "cls", "avg": "mean"}[pooling]
    torch.testing.assert_close(converted.model(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_a_timm_or_mae_encoder_gives_timms_features() -> None:
    theirs, images = timm_vit(num_classes=0), torch.randn(3, 3, 12, 12)
    converted = convert(theirs.state_dict(), heads=4)
    assert isinstance(converted.model, Encoder) and converted.kind == "encoder"
    ours = converted.model.norm(converted.model(images))
    torch.testing.assert_close(ours, theirs.forward_features(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("plain", [True, False])
def test_an_encoder_of_hugging_face_with_and_without_its_prefix(plain: bool) -> None:
    weights = filled(encoder_shapes())
    theirs = to_hugging_face(weights)
    if plain:
        theirs = {name.removeprefix("vit."): value for name, value in theirs.items()}
    ours, wanted = convert(theirs, heads=4).model.state_dict(), convert(weights, heads=4).model.state_dict()
    assert ours.keys() == wanted.keys() and all(torch.equal(ours[name], wanted[name]) for name in ours)


def test_a_distilled_deit_gives_the_mean_of_its_two_heads() -> None:
    from timm.models.deit import VisionTransformerDistilled

    torch.manual_seed(3)
    theirs = VisionTransformerDistilled(img_size=12, patch_size=4, embed_dim=WIDTH, depth=2, num_heads=4, num_classes=5).eval()
    for parameter in theirs.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = torch.randn(3, 3, 12, 12)
    assert theirs.pos_embed is not None and theirs.pos_embed.shape[1] == 2 + 9
    converted = convert(theirs.state_dict(), heads=4)
    assert isinstance(converted.model, Classifier) and converted.model.token == "deit"
    torch.testing.assert_close(converted.model(images), theirs(images), rtol=1e-4, atol=1e-5)


def test_a_student_of_g2sds_second_stage_has_its_token_at_the_end_without_position() -> None:
    weights = filled(encoder_shapes() | head_shapes() | head_shapes("head_dist") | {"dist_token": (1, 1, WIDTH)})
    converted, images = convert(weights, heads=4), torch.randn(2, 3, 12, 12)
    assert isinstance(converted.model, Classifier) and (converted.model.token, converted.model.pooling) == ("g2sd", "cls")
    w = {name: value.double() for name, value in weights.items()}
    x = nn.functional.conv2d(images.double(), w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=4).flatten(2).mT
    x = torch.cat([w["cls_token"].expand(2, -1, -1), x], 1) + w["pos_embed"]
    x = norm(run_blocks(torch.cat([x, w["dist_token"].expand(2, -1, -1)], 1), w, "blocks", 2, 4), w, "norm")
    cls, dist = converted.model.forward_heads(images)
    assert dist is not None
    torch.testing.assert_close(cls.double(), linear(x[:, 0], w, "head"), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(dist.double(), linear(x[:, -1], w, "head_dist"), rtol=1e-4, atol=1e-4)


def test_a_student_of_g2sds_first_stage_keeps_its_decoder_and_tells_what_is_dropped() -> None:
    dead = mlp_shapes("encoderfeature_pred", WIDTH, 24)
    weights = filled(MAE_FULL | mlp_shapes("decoderfeature_pred", DECODER, 20) | dead)
    converted = convert(weights, **HEADS)
    assert isinstance(converted.model, GenericStudent) and converted.kind == "generic"
    assert converted.dropped.keys() == dead.keys() | {f"decoder_{part}.{kind}" for part in ("norm", "pred") for kind in ("weight", "bias")}
    assert "weigh with 0" in converted.dropped["encoderfeature_pred.fc1.weight"]
    head = converted.model.feature_head.state_dict()
    for ours, theirs in (("0", "fc1"), ("2", "fc2")):
        assert torch.equal(head[f"{ours}.weight"], weights[f"decoderfeature_pred.{theirs}.weight"])
    mask, images = a_mask()
    assert converted.model(images, mask).shape == (2, 10, 20)


def test_a_student_of_dmae_is_a_masked_model_without_its_projection() -> None:
    extra = {"aligned_feature_projection_heads.0.weight": (48, WIDTH), "aligned_feature_projection_heads.0.bias": (48,)}
    weights = filled(MAE_FULL | extra)
    converted = convert(weights, **HEADS)
    assert converted.kind == "masked" and converted.dropped.keys() == extra.keys()
    plain = convert({name: value for name, value in weights.items() if name not in extra}, **HEADS).model.state_dict()
    assert all(torch.equal(value, plain[name]) for name, value in converted.model.state_dict().items())


LAYOUTS = {
    "encoder": encoder_shapes(),
    "masked": MAE_FULL,
    "classifier, mean": encoder_shapes(norm="fc_norm") | head_shapes(),
    "classifier, cls": encoder_shapes() | head_shapes(),
    "distilled": encoder_shapes() | head_shapes() | head_shapes("head_dist") | {"dist_token": (1, 1, WIDTH)},
    "generic": MAE_FULL | mlp_shapes("decoderfeature_pred", DECODER, 20) | mlp_shapes("encoderfeature_pred", WIDTH, 24),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_of_a_layout_is_used_or_dropped_and_none_is_changed(layout: str) -> None:
    weights = filled(LAYOUTS[layout])
    converted = convert(weights, **HEADS)
    used = sorted(value.flatten().sort().values.sum().item() for name, value in weights.items() if name not in converted.dropped)
    assert sorted(value.flatten().sort().values.sum().item() for value in converted.model.state_dict().values()) == used
    assert not converted.model.training and all(value.dtype == torch.float32 for value in converted.model.state_dict().values())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_key_that_is_missing_is_named(layout: str) -> None:
    weights = filled(LAYOUTS[layout])
    dropped = convert(weights, **HEADS).dropped
    for name in (name for name in weights if name not in dropped):
        without = {key: value for key, value in weights.items() if key != name}
        if name.startswith("dist_token"):
            continue  # then it is another layout, whose head_dist is unknown
        with pytest.raises(ForeignError, match=r"missing|no blocks") as caught:
            convert(without, **HEADS)
        assert name in str(caught.value) or "no blocks" in str(caught.value)


@pytest.mark.parametrize("extra", ["blocks.0.ls1.gamma", "reg_token", "norm_pre.weight", "decoder_norm2.weight", "head.0.running_mean"])
def test_any_key_that_nothing_uses_is_named(extra: str) -> None:
    with pytest.raises(ForeignError, match=f"not used by any part {re.escape(extra)}"):
        convert(filled(MAE_FULL) | {extra: torch.zeros(3)}, **HEADS)


def test_unknown_keys_of_hugging_face_are_named_as_the_file_has_them() -> None:
    weights = to_hugging_face(filled(MAE_FULL))
    with pytest.raises(ForeignError, match=r"not used by any part vit\.pooler\.dense\.weight"):
        convert(weights | {"vit.pooler.dense.weight": torch.zeros(3)}, **HEADS)
    del weights["vit.encoder.layer.1.attention.attention.key.bias"]
    with pytest.raises(ForeignError, match=r"vit\.encoder\.layer\.1\.attention.*bias: only query, value is there"):
        convert(weights, **HEADS)


def test_a_shape_that_does_not_fit_the_others_is_named_with_both() -> None:
    weights = filled(MAE_FULL) | {"blocks.1.mlp.fc1.bias": torch.zeros(7)}
    with pytest.raises(ForeignError, match=r"blocks\.1\.mlp\.fc1\.bias has shape \[7\], the other weights ask for \[128\]"):
        convert(weights, **HEADS)


def test_a_number_that_is_not_finite_is_refused() -> None:
    weights = filled(MAE_FULL)
    weights["norm.weight"][3] = float("nan")
    with pytest.raises(ForeignError, match=r"norm\.weight holds NaN or infinite numbers"):
        convert(weights, **HEADS)


@pytest.mark.parametrize("weights", [{}, {"conv1.weight": torch.zeros(3, 3)}, {"features.0.weight": torch.zeros(1)}])
def test_weights_that_are_no_vit_are_refused(weights: dict[str, Tensor]) -> None:
    with pytest.raises(ForeignError, match=r"patch_embed\.proj\.weight are missing, so it is of no known layout"):
        convert(weights)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patch_embed.proj.weight": torch.zeros(32, 3, 4, 2)}, "not those of a ViT with square patches"),
        ({"patch_embed.proj.weight": torch.zeros(32, 4, 4, 4)}, "made for images of 4 channels"),
        ({"pos_embed": torch.zeros(1, 9, 32)}, "pos_embed has 9 rows; wanted 1 and a square number of patches"),
    ],
)
def test_shapes_that_no_model_of_ours_has_are_refused(change: dict[str, Tensor], message: str) -> None:
    with pytest.raises(ForeignError, match=message):
        convert(filled(encoder_shapes()) | change, heads=4)


def test_heads_are_those_of_the_published_width_and_the_person_is_told() -> None:
    converted = convert(filled(encoder_shapes(width=192, depth=1)))
    assert isinstance(converted.model, Encoder) and converted.model.spec.heads == 3
    assert converted.notes == ("3 heads assumed, as published models of width 192 have; a file does not say",)
    told = convert(filled(encoder_shapes(width=192, depth=1)), heads=12)
    assert isinstance(told.model, Encoder) and told.model.spec.heads == 12 and told.notes == ()


def test_heads_of_an_unpublished_width_are_asked_for_and_have_to_divide_it() -> None:
    with pytest.raises(ForeignError, match="32 is no published width; give --heads"):
        convert(filled(encoder_shapes()))
    with pytest.raises(ForeignError, match="16 is no published width; give --decoder-heads"):
        convert(filled(MAE_FULL), heads=4)
    with pytest.raises(ForeignError, match="5 heads do not divide the width 32"):
        convert(filled(encoder_shapes()), heads=5)


def test_fixed_positions_are_told_from_learned_ones_and_both_are_kept_as_they_are() -> None:
    weights = filled(encoder_shapes())
    rounded = weights | {"pos_embed": weights["pos_embed"] + 3e-6}
    learned = weights | {"pos_embed": torch.randn(1, 10, WIDTH)}
    for given, is_learned in ((weights, False), (rounded, False), (learned, True)):
        model = convert(given, heads=4).model
        assert isinstance(model, Encoder) and model.spec.learned_positions is is_learned
        assert torch.equal(model.pos_embed, given["pos_embed"])
        assert model.pos_embed.requires_grad is is_learned


def test_half_precision_becomes_float32() -> None:
    weights = filled(encoder_shapes())
    model = convert({name: value.half() for name, value in weights.items()}, heads=4).model
    assert all(torch.equal(value, weights[name].half().float()) for name, value in model.state_dict().items())


def test_what_a_training_script_saved_beside_the_weights_is_left_out_with_a_reason() -> None:
    saved = {"model": {"w": torch.zeros(1)}, "optimizer": {"state": {}}, "epoch": 3, "scaler": {}, "args": object()}
    weights, dropped = unwrap(saved)
    assert weights.keys() == {"w"} and dropped.keys() == {"optimizer", "epoch", "scaler", "args"}
    assert unwrap({"state_dict": {"w": torch.zeros(1)}, "best": 1})[0].keys() == {"w"}
    assert unwrap({"w": torch.zeros(1)}) == ({"w": torch.zeros(1)}, {})


@pytest.mark.parametrize(
    ("loaded", "message"),
    [
        ([], "holds a list instead of a dict of weights"),
        ({}, "holds an empty dict instead"),
        (torch.zeros(2), "holds a single tensor instead"),
        ({"model": {}}, "holds an empty dict instead"),
        ({"w": torch.zeros(1), "epoch": 3}, "holds a int under 'epoch' where weights were wanted"),
    ],
)
def test_what_holds_no_weights_is_refused(loaded: object, message: str) -> None:
    with pytest.raises(ForeignError, match=message):
        unwrap(loaded)


# Published sizes: name, encoder (width, depth, patch), decoder, extra keys, parameters in millions.
FULL_SIZE = [
    ("MAE-B", (768, 12, 16), True, {}, 111.91),
    ("MAE-L", (1024, 24, 16), True, {}, 329.54),
    ("MAE-H", (1280, 32, 14), True, {}, 657.07),
    ("MAE-B encoder", (768, 12, 16), False, {}, 85.80),
    ("MAE-B fine-tuned", (768, 12, 16), False, head_shapes(width=768, classes=1000), 86.57),
]


@pytest.mark.parametrize(("name", "shape", "full", "extra", "millions"), FULL_SIZE, ids=[row[0] for row in FULL_SIZE])
def test_the_public_files_at_full_size_become_models_with_the_published_parameter_counts(
    name: str, shape: tuple[int, int, int], full: bool, extra: dict[str, tuple[int, ...]], millions: float
) -> None:
    width, depth, patch = shape
    grid = 224 // patch
    shapes = encoder_shapes(width, depth, patch, grid, "fc_norm" if extra else "norm") | extra
    shapes |= decoder_shapes(width, 512, 8, patch, grid) if full else {}
    converted = convert({key: torch.empty(size, device="meta") for key, size in shapes.items()})
    assert round(sum(value.numel() for value in converted.model.state_dict().values()) / 1e6, 2) == millions
    encoder = converted.model if isinstance(converted.model, Encoder) else converted.model.encoder
    assert encoder.spec == EncoderSpec(224, patch, 3, width, depth, {768: 12}.get(width, 16), learned_positions=True)
    if isinstance(converted.model, MaskedAutoencoder):
        assert converted.model.decoder.spec == DecoderSpec(512, 8, 16)


def test_a_conversion_is_described_for_people() -> None:
    def described(weights: dict[str, Tensor]) -> Converted:
        return convert(weights, **HEADS)

    assert described(filled(LAYOUTS["distilled"])).description == "G2SD classifier with distillation token, cls pooling"
    assert described(filled(LAYOUTS["classifier, mean"])).description == "ViT classifier, mean pooling"
    assert described(to_hugging_face(filled(MAE_FULL))).description == "Hugging Face ViTMAE: MAE encoder and decoder"
