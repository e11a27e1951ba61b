"""Weight files: what is written comes back, and what does not fit is refused in one line."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import (
    ClassifierFile,
    load_classifier,
    load_encoder,
    load_generic,
    load_masked,
    save_classifier,
    save_encoder,
    save_generic,
    save_masked,
)
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Token
from g2sd_export.edge.preprocess import Preprocessing

ENCODER = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4, mlp_ratio=2.0)
DECODER = DecoderSpec(width=8, depth=1, heads=2)
PREPROCESSING = Preprocessing(
    image_px=12, resize_px=14, num_channels=3, mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.3), interpolation="bilinear"
)
CLASS_NAMES = ("Ünder", "b", "c")


def a_classifier(pooling: str = "cls", token: Token = "g2sd") -> ClassifierFile:
    model = Classifier(ENCODER, len(CLASS_NAMES), pooling="mean" if pooling == "mean" else "cls", token=token)
    return ClassifierFile(model, PREPROCESSING, CLASS_NAMES)


def bits(model: nn.Module) -> dict[str, list[int]]:
    return {name: value.flatten().view(torch.int32).tolist() for name, value in model.state_dict().items()}


def rewrite(path: Path, change: Callable[[dict[str, Tensor], dict[str, Any]], None]) -> Path:
    """Change weights or description of a weight file."""
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["g2sd_deploy"])
    weights = load_file(path)
    change(weights, described)
    save_file(weights, path, metadata={"g2sd_deploy": json.dumps(described)})
    return path


def refused(load: Callable[[Path], object], path: Path, message: str) -> None:
    with pytest.raises(UserError, match=f"^{re.escape(str(path))}: {message}") as caught:
        load(path)
    assert "\n" not in str(caught.value)


def test_a_masked_model_comes_back_bit_for_bit_in_evaluation_mode(tmp_path: Path) -> None:
    model = MaskedAutoencoder(ENCODER, DECODER)
    save_masked(tmp_path / "m.safetensors", model)
    loaded = load_masked(tmp_path / "m.safetensors")
    assert bits(loaded) == bits(model)
    assert (loaded.encoder.spec, loaded.decoder.spec, loaded.training) == (ENCODER, DECODER, False)


def test_a_generic_student_comes_back_bit_for_bit(tmp_path: Path) -> None:
    model = GenericStudent(ENCODER, DECODER, teacher_width=20)
    save_generic(tmp_path / "g.safetensors", model)
    assert bits(load_generic(tmp_path / "g.safetensors")) == bits(model)


@pytest.mark.parametrize("token", ["none", "g2sd", "deit"])
@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_a_classifier_comes_back_with_its_pooling_token_preprocessing_and_names(tmp_path: Path, pooling: str, token: Token) -> None:
    file, images = a_classifier(pooling, token), torch.randn(2, 3, 12, 12)
    save_classifier(tmp_path / "c.safetensors", file)
    loaded = load_classifier(tmp_path / "c.safetensors")
    assert bits(loaded.model) == bits(file.model)
    assert (loaded.preprocessing, loaded.class_names, loaded.model.token) == (PREPROCESSING, CLASS_NAMES, token)
    assert torch.equal(loaded.model(images), file.model.eval()(images))


@pytest.mark.parametrize("learned", [False, True])
def test_an_encoder_comes_back_bit_for_bit_with_fixed_or_learned_positions(tmp_path: Path, learned: bool) -> None:
    encoder = Encoder(replace(ENCODER, learned_positions=learned))
    save_encoder(tmp_path / "e.safetensors", encoder)
    loaded = load_encoder(tmp_path / "e.safetensors")
    assert bits(loaded) == bits(encoder)
    assert (loaded.spec, loaded.pos_embed.requires_grad, loaded.training) == (encoder.spec, learned, False)


def every_kind(folder: Path) -> dict[Path, Encoder]:
    """A file of each kind of model that has an encoder, and that encoder."""
    masked, generic, file = (
        MaskedAutoencoder(ENCODER, DECODER),
        GenericStudent(ENCODER, DECODER, teacher_width=20),
        a_classifier("mean", "deit"),
    )
    encoder = Encoder(ENCODER)
    save_masked(folder / "m.safetensors", masked)
    save_generic(folder / "g.safetensors", generic)
    save_classifier(folder / "c.safetensors", file)
    save_encoder(folder / "e.safetensors", encoder)
    return dict(
        zip(
            (folder / f"{kind}.safetensors" for kind in "mgce"), (masked.encoder, generic.encoder, file.model.encoder, encoder), strict=True
        )
    )


def test_the_encoder_of_every_kind_of_model_can_be_taken_alone(tmp_path: Path) -> None:
    for path, encoder in every_kind(tmp_path).items():
        loaded = load_encoder(path)
        assert bits(loaded) == bits(encoder), path
        assert (loaded.spec, loaded.training) == (ENCODER, False)


def test_an_encoder_alone_is_taken_for_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(path, Encoder(ENCODER))
    refused(load_masked, path, r"holds no decoder weights \(decoder\.\*\), .* set teacher\.masked")
    refused(load_generic, path, "holds an encoder model; wanted a generic model here")
    refused(load_classifier, path, "holds an encoder model; wanted a classifier model here")


def test_an_encoder_that_lacks_a_weight_or_has_one_too_many_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "e.safetensors"
    save_encoder(path, Encoder(ENCODER))
    rewrite(path, lambda weights, _: weights.update(surplus=torch.zeros(1)))
    refused(load_encoder, path, "its weights are not those of the model it describes: unknown surplus$")
    for kind in every_kind(tmp_path):
        rewrite(kind, lambda weights, _: weights.__delitem__("encoder.cls_token"))
        refused(load_encoder, kind, "its weights are not those of the model it describes: missing cls_token$")


def test_half_precision_is_stored_in_half_the_bytes_and_read_as_float32(tmp_path: Path) -> None:
    model, (half, full) = MaskedAutoencoder(ENCODER, DECODER), (tmp_path / "half.safetensors", tmp_path / "full.safetensors")
    save_masked(half, model, torch.float16)
    save_masked(full, model)
    assert {value.dtype for value in load_file(half).values()} == {torch.float16}
    tensors = sum(value.numel() for value in model.state_dict().values())
    assert full.stat().st_size - half.stat().st_size == pytest.approx(2 * tensors, abs=1000)
    loaded = load_masked(half).state_dict()
    assert all(torch.equal(loaded[name], value.half().float()) for name, value in model.state_dict().items())
    assert {value.dtype for value in loaded.values()} == {torch.float32}


def test_the_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    file = a_classifier()
    for name in ("one", "two"):
        save_classifier(tmp_path / name, file)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    refused(load_masked, tmp_path / "none.safetensors", "there is no such weight file")
    refused(load_masked, tmp_path, "there is no such weight file")


@pytest.mark.parametrize("size", [0, 7, 100, -1])
def test_a_truncated_file_is_refused(tmp_path: Path, size: int) -> None:
    path = tmp_path / "m.safetensors"
    save_masked(path, MaskedAutoencoder(ENCODER, DECODER))
    path.write_bytes(path.read_bytes()[:size])
    refused(load_masked, path, "not a whole safetensors file")


def test_a_file_of_another_format_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    torch.save(MaskedAutoencoder(ENCODER, DECODER).state_dict(), path)
    refused(load_masked, path, "not a whole safetensors file")


def test_foreign_weights_without_a_description_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "foreign.safetensors"
    save_file({"decoder.weight": torch.zeros(2)}, path)
    refused(load_masked, path, "does not say what model it holds")
    save_file({"decoder.weight": torch.zeros(2)}, path, metadata={"format": "pt"})
    refused(load_masked, path, "does not say what model it holds")


@pytest.mark.parametrize("description", ["{", "[]", "{}", '{"kind": "masked"}', '{"kind": "masked", "encoder": 3, "decoder": {}}'])
def test_a_description_that_describes_no_model_is_refused(tmp_path: Path, description: str) -> None:
    path = tmp_path / "m.safetensors"
    save_file({"decoder.weight": torch.zeros(2)}, path, metadata={"g2sd_deploy": description})
    refused(load_masked, path, "its description of the model does not fit this version")


def test_a_classifier_is_no_teacher_for_generic_distillation_and_the_message_says_what_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "c.safetensors"
    save_classifier(path, a_classifier())
    refused(load_masked, path, r"holds no decoder weights \(decoder\.\*\), .* set teacher\.masked")


def test_one_kind_of_model_is_not_taken_for_another(tmp_path: Path) -> None:
    generic, masked = tmp_path / "g.safetensors", tmp_path / "m.safetensors"
    save_generic(generic, GenericStudent(ENCODER, DECODER, teacher_width=20))
    save_masked(masked, MaskedAutoencoder(ENCODER, DECODER))
    refused(load_masked, generic, "holds a generic model; wanted a masked model here")
    refused(load_generic, masked, "holds a masked model; wanted a generic model here")
    refused(load_classifier, masked, "holds a masked model; wanted a classifier model here")


def saved_masked(tmp_path: Path) -> Path:
    path = tmp_path / "m.safetensors"
    save_masked(path, MaskedAutoencoder(ENCODER, DECODER))
    return path


def test_a_weight_of_another_shape_is_named_with_both_shapes(tmp_path: Path) -> None:
    path = rewrite(saved_masked(tmp_path), lambda weights, _: weights.update({"encoder.norm.bias": torch.zeros(17)}))
    refused(load_masked, path, r".*encoder\.norm\.bias has shape \[17\] in place of \[16\]")


def test_missing_and_unknown_weights_are_named(tmp_path: Path) -> None:
    def change(weights: dict[str, Tensor], _: dict[str, Any]) -> None:
        del weights["decoder.mask_token"], weights["encoder.norm.bias"], weights["encoder.norm.weight"]
        weights["surplus"] = torch.zeros(1)

    path = rewrite(saved_masked(tmp_path), change)
    refused(load_masked, path, r".*: missing decoder\.mask_token and 2 more; unknown surplus$")
    surplus = rewrite(saved_masked(tmp_path), lambda weights, _: weights.update(surplus=torch.zeros(1)))
    refused(load_masked, surplus, "its weights are not those of the model it describes: unknown surplus$")


def test_a_description_of_a_deeper_model_than_the_file_holds_is_refused(tmp_path: Path) -> None:
    path = rewrite(saved_masked(tmp_path), lambda _, described: described["decoder"].update(depth=2))
    refused(load_masked, path, r".*missing decoder\.blocks\.1\.")


def test_a_description_with_a_setting_of_another_version_is_refused(tmp_path: Path) -> None:
    path = rewrite(saved_masked(tmp_path), lambda _, described: described["encoder"].update(num_registers=4))
    refused(load_masked, path, "its description of the model does not fit this version .*num_registers")


def test_bundled_teachers_are_a_masked_model_with_its_decoder_and_a_classifier_of_the_same_encoder() -> None:
    folder = Path(__file__).parents[2] / "g2sd_deploy" / "assets" / "teacher"
    masked = load_masked(folder / "fashion_mnist_masked.safetensors")
    classifier = load_classifier(folder / "fashion_mnist_classifier.safetensors")
    assert masked.encoder.spec == classifier.model.encoder.spec
    assert len(classifier.class_names) == 10
    images = torch.randn(2, 1, 28, 28)
    mask = mask_from_noise(torch.rand(2, masked.encoder.spec.num_patches), 0.75)
    assert masked(images, mask).isfinite().all()
    assert classifier.model(images).isfinite().all()
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= 8_000_000
