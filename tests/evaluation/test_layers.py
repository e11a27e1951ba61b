"""Layers and attention of networks of ours and of timm's, against what those networks compute themselves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from timm.layers.attention import Attention
from timm.models.deit import VisionTransformerDistilled
from timm.models.vision_transformer import ResPostBlock, VisionTransformer
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.layers import layer_reader, open_layers
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier, save_encoder, save_generic, save_masked
from g2sd_deploy.models.masked import DecoderSpec, FeatureStudent, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Pooling, Token
from g2sd_export.edge.preprocess import Preprocessing

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=3, heads=4)
DECODER = DecoderSpec(width=8, depth=1, heads=2)
PRE = Preprocessing(image_px=12, resize_px=12, num_channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
TIMM = {"img_size": 12, "patch_size": 4, "embed_dim": 16, "depth": 3, "num_heads": 4, "num_classes": 5}
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def images(num: int = 2) -> Tensor:
    return torch.randn(num, 3, 12, 12)


def randomise(model: nn.Module) -> Any:
    """Fixed starting values would hide a mistake."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    return model.eval()


def timm_vit(**changed: Any) -> Any:
    return randomise(VisionTransformer(**{**TIMM, **changed}))


def classifier(pooling: Pooling = "cls", token: Token = "none") -> Classifier:
    made: Classifier = randomise(Classifier(SPEC, 5, pooling=pooling, token=token))
    return made


VITS: dict[str, Callable[[], Any]] = {
    "class token": timm_vit,
    "registers": lambda: timm_vit(reg_tokens=3, no_embed_class=True),
    "mean of patches": lambda: timm_vit(global_pool="avg"),
    "no class token": lambda: timm_vit(global_pool="avg", class_token=False),
    "registers alone": lambda: timm_vit(global_pool="avg", class_token=False, reg_tokens=2, no_embed_class=True),
    "mean of all": lambda: timm_vit(global_pool="avg", pool_include_prefix=True),
    "pre-norm, query and key norms, layer scale": lambda: timm_vit(pre_norm=True, qk_norm=True, init_values=0.5),
    "any size": lambda: timm_vit(dynamic_img_size=True),
    "dropped patches in training": lambda: timm_vit(patch_drop_rate=0.5),
    "attention pooling": lambda: timm_vit(global_pool="map", class_token=False),
    "distillation token": lambda: randomise(VisionTransformerDistilled(**TIMM)),
}
CLASSIFIERS = [("cls", "none"), ("cls", "g2sd"), ("cls", "deit"), ("mean", "none"), ("mean", "g2sd"), ("mean", "deit")]


def attention_seen(model: Any, blocks: Any, inputs: Tensor) -> list[Tensor]:
    """What timm's own attention multiplies its values with: its dropout is handed the softmax."""
    seen: list[Tensor] = []
    for block in blocks:
        block.attn.fused_attn = False
        block.attn.attn_drop.register_forward_hook(lambda _module, _given, output: seen.append(output))
    with torch.no_grad():
        model(inputs)
    return list(seen)  # later passes are seen too


def attention_by_hand(block: Any, stream: Tensor) -> np.ndarray:
    """float64, head by head and without qkv's packing by torch."""
    x, attn = stream.double().numpy(), block.attn
    centred = x - x.mean(axis=-1, keepdims=True)
    normed = centred / np.sqrt((centred**2).mean(axis=-1, keepdims=True) + block.norm1.eps)
    state = {**block.norm1.state_dict(), **attn.qkv.state_dict(prefix="qkv.")}
    weights = {name: value.double().numpy() for name, value in state.items()}
    width, side = x.shape[-1], x.shape[-1] // attn.num_heads
    qkv = (normed * weights["weight"] + weights["bias"]) @ weights["qkv.weight"].T + weights["qkv.bias"]
    found = []
    for head in range(attn.num_heads):
        queries = qkv[..., head * side : (head + 1) * side]
        keys = qkv[..., width + head * side : width + (head + 1) * side]
        scores = np.exp(np.einsum("bqd,bkd->bqk", queries, keys) / np.sqrt(side))
        found.append(scores / scores.sum(axis=-1, keepdims=True))
    return np.stack(found, axis=1)


def test_layers_of_an_encoder_are_its_residual_stream() -> None:
    encoder, inputs = randomise(Encoder(SPEC)), images()
    reader = layer_reader(encoder)
    got, wanted = reader.features(inputs), encoder.features(inputs, taps=range(SPEC.depth + 1))
    assert reader.names == ("embedding", "block 1", "block 2", "block 3")
    assert len(got) == len(wanted) == 4
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
        assert one.shape == (2, 10, 16) and not one.requires_grad
    assert (reader.image_px, reader.grid, reader.patch_px, reader.heads, reader.num_prefix) == (12, 3, 4, 4, 1)
    assert reader.preprocessing is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: MaskedAutoencoder(SPEC, DECODER),
        lambda: GenericStudent(SPEC, DECODER, 12),
        lambda: FeatureStudent(SPEC, 12),
    ],
)
def test_of_a_masked_model_the_encoder_is_read_and_sees_every_patch(make: Callable[[], nn.Module]) -> None:
    model, inputs = randomise(make()), images()
    reader, bare = layer_reader(model), layer_reader(model.encoder)
    for one, other in zip(reader.features(inputs), bare.features(inputs), strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(reader.salience(inputs), list(bare.attention(inputs))[-1].mean(dim=1)[:, 0, 1:])


@pytest.mark.parametrize(("pooling", "token"), CLASSIFIERS)
def test_the_last_layer_of_a_classifier_gives_its_logits(pooling: Pooling, token: Token) -> None:
    model, inputs = classifier(pooling, token), images()
    last = layer_reader(model).features(inputs)[-1]
    pooled = last[:, 0] if pooling == "cls" else last[:, 1:10].mean(dim=1)
    logits = model.head(model.encoder.norm(pooled))
    if model.head_dist is not None:
        logits = (logits + model.head_dist(model.encoder.norm(last[:, 10]))) / 2
    torch.testing.assert_close(logits, model(inputs), **CLOSE)


@pytest.mark.parametrize("name", VITS)
def test_the_layers_of_a_timm_transformer_are_what_its_blocks_take_and_give(name: str) -> None:
    model, inputs = VITS[name](), images()
    taken: list[Tensor] = []
    model.blocks[0].register_forward_pre_hook(lambda _module, given: taken.append(given[0]))
    for block in model.blocks:
        block.register_forward_hook(lambda _module, _given, output: taken.append(output))
    with torch.no_grad():
        logits = model(inputs)
    wanted = list(taken)
    got = layer_reader(model).features(inputs)
    assert len(got) == len(wanted) == 4
    for one, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, other)
    torch.testing.assert_close(model.forward_head(model.norm(got[-1])), logits)


@pytest.mark.parametrize("name", VITS)
def test_attention_is_what_timm_multiplies_its_values_with(name: str) -> None:
    model, inputs = VITS[name](), images()
    wanted = attention_seen(model, model.blocks, inputs)
    for one, other in zip(layer_reader(model).attention(inputs), wanted, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("pooling", "token"), CLASSIFIERS)
def test_attention_agrees_with_a_float64_formula(pooling: Pooling, token: Token) -> None:
    model, inputs = classifier(pooling, token), images()
    reader = layer_reader(model)
    streams = reader.features(inputs)
    got = list(reader.attention(inputs))
    assert len(got) == SPEC.depth
    for block, stream, attention in zip(model.encoder.blocks, streams[:-1], got, strict=True):
        np.testing.assert_allclose(attention.numpy(), attention_by_hand(block, stream), rtol=1e-4, atol=1e-6)


def test_whoever_watches_the_layers_is_told_each_blocks_attention() -> None:
    reader, inputs = layer_reader(timm_vit()), images()
    told: list[tuple[int, Tensor]] = []
    layers = list(reader.layers(inputs, lambda number, attention: told.append((number, attention))))
    assert len(layers) == 4
    assert [number for number, _ in told] == [0, 1, 2]
    for (_, one), other in zip(told, reader.attention(inputs), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize(("pooling", "token"), CLASSIFIERS)
def test_salience_is_what_the_pooled_tokens_of_a_classifier_look_at(pooling: Pooling, token: Token) -> None:
    reader, inputs = layer_reader(classifier(pooling, token)), images()
    paid = list(reader.attention(inputs))[-1].mean(dim=1)
    wanted = paid[:, 0, 1:10] if pooling == "cls" else paid[:, 1:10, 1:10].mean(dim=1)
    if token != "none":
        wanted = (wanted + paid[:, 10, 1:10]) / 2
    got = reader.salience(inputs)
    torch.testing.assert_close(got, wanted)
    assert (got >= 0).all() and (got.sum(dim=1) < 1).all()


@pytest.mark.parametrize(
    ("name", "queries"),
    [
        ("class token", [0]),
        ("registers", [0]),
        ("mean of patches", range(1, 10)),
        ("no class token", range(9)),
        ("registers alone", range(2, 11)),
        ("mean of all", range(10)),
        ("distillation token", [0, 1]),
    ],
)
def test_salience_is_what_the_tokens_that_timm_pools_look_at(name: str, queries: list[int]) -> None:
    model, inputs = VITS[name](), images()
    prefix = model.num_prefix_tokens
    paid = attention_seen(model, model.blocks, inputs)[-1]
    wanted = sum(paid[:, head, query, prefix:] for head in range(4) for query in queries) / (4 * len(queries))
    reader = layer_reader(model)
    assert reader.num_prefix == prefix
    torch.testing.assert_close(reader.salience(inputs), wanted)


def test_a_timm_transformer_without_a_classifier_is_read_by_its_class_token_or_its_patches() -> None:
    inputs = images()
    for model, queries in (
        (timm_vit(num_classes=0, global_pool=""), slice(0, 1)),
        (timm_vit(class_token=False, global_pool=""), slice(0, 9)),
    ):
        reader = layer_reader(model)
        paid = list(reader.attention(inputs))[-1].mean(dim=1)
        torch.testing.assert_close(reader.salience(inputs), paid[:, queries, -9:].mean(dim=1))


def test_the_last_block_is_not_run_for_salience() -> None:
    model, runs = timm_vit(), []
    model.blocks[2].mlp.register_forward_hook(lambda *_: runs.append(2))
    model.blocks[1].mlp.register_forward_hook(lambda *_: runs.append(1))
    layer_reader(model).salience(images())
    assert runs == [1]


def test_a_model_that_pools_by_attention_has_layers_and_no_salience() -> None:
    reader = layer_reader(VITS["attention pooling"]())
    assert len(reader.features(images())) == 4
    with pytest.raises(UserError, match=r"pools its tokens by an attention of its own.*take the salience from a model with class-token"):
        reader.salience(images())


def test_a_model_in_training_mode_is_read_as_in_evaluation() -> None:
    model, inputs = timm_vit(drop_path_rate=0.9, pos_drop_rate=0.5), images()
    wanted = layer_reader(model).features(inputs)
    model.train()
    for one, other in zip(layer_reader(model).features(inputs), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_weights_that_change_are_read_as_they_are_now() -> None:
    model, inputs = classifier("cls", "deit"), images()
    reader = layer_reader(model)
    before = reader.features(inputs)
    randomise(model)
    after = layer_reader(model).features(inputs)
    for one, other, old in zip(reader.features(inputs), after, before, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
        assert not torch.equal(one, old)


def test_the_salience_of_an_image_does_not_depend_on_its_batch() -> None:
    reader, inputs = layer_reader(classifier()), images(3)
    torch.testing.assert_close(reader.salience(inputs)[1:2], reader.salience(inputs[1:2]))


def test_every_weight_file_of_ours_is_opened(tmp_path: Path) -> None:
    model, inputs = classifier("mean", "deit"), images()
    masked, generic = randomise(MaskedAutoencoder(SPEC, DECODER)), randomise(GenericStudent(SPEC, DECODER, 12))
    save_classifier(tmp_path / "classifier", ClassifierFile(model, PRE, tuple("abcde")))
    save_masked(tmp_path / "masked", masked)
    save_generic(tmp_path / "generic", generic)
    save_encoder(tmp_path / "encoder", masked.encoder)
    for name, wanted in (("classifier", model), ("masked", masked), ("generic", generic), ("encoder", masked.encoder)):
        reader = open_layers(tmp_path / name)
        assert reader.preprocessing == (PRE if name == "classifier" else None)
        torch.testing.assert_close(reader.salience(inputs), layer_reader(wanted).salience(inputs))


def test_files_that_are_not_ours_are_refused(tmp_path: Path) -> None:
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    with pytest.raises(UserError, match="not a whole safetensors file"):
        open_layers(tmp_path / "other.safetensors")
    with pytest.raises(UserError, match="there is no such weight file"):
        open_layers(tmp_path / "missing.safetensors")


def test_other_networks_are_refused_by_name() -> None:
    with pytest.raises(UserError, match="the layers of a Linear cannot be read; give a plain vision transformer"):
        layer_reader(nn.Linear(2, 2))
    with pytest.raises(UserError, match="timm's ResPostBlock; layers can be read of its Block with Attention only"):
        layer_reader(timm_vit(block_fn=ResPostBlock))

    class Gentle(Attention):  # type: ignore[misc, unused-ignore]
        """Might compute anything."""

    model = timm_vit()
    model.blocks[1].attn.__class__ = Gentle
    with pytest.raises(UserError, match="timm's Block with Gentle"):
        layer_reader(model)


def test_an_oblong_input_is_refused() -> None:
    with pytest.raises(UserError, match="reads 12 x 16 px as 3 x 4 patches; wanted a square input and a square grid"):
        layer_reader(timm_vit(img_size=(12, 16)))


def test_images_of_another_size_are_refused() -> None:
    for model in (VITS["any size"](), Encoder(replace(SPEC, learned_positions=True))):
        reader = layer_reader(model)
        for read in (reader.features, reader.salience, lambda inputs, of=reader: list(of.attention(inputs))):
            with pytest.raises(ValueError, match="inputs are 16 x 16 px; the model reads 12 x 12"):
                read(torch.randn(1, 3, 16, 16))
