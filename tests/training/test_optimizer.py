"""Who is decayed, and who learns how fast."""

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from g2sd_deploy.models.masked import DecoderSpec, GenericStudent
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.settings import TrainSettings
from g2sd_deploy.training.optimizer import build_optimizer, layer_scale

SPEC = EncoderSpec(image_px=8, patch_px=4, num_channels=1, width=8, depth=12, heads=2)
SETTINGS = TrainSettings(epochs=1.0, batch_size=4, base_lr=1e-3, weight_decay=0.05, betas=(0.9, 0.95))


def classifier() -> Classifier:
    return Classifier(SPEC, 3, pooling="cls", token="deit")


def by_name(model: nn.Module, optimizer: Optimizer, key: str) -> dict[str, float]:
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {names[id(parameter)]: group[key] for group in optimizer.param_groups for parameter in group["params"]}


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("encoder.patch_embed.proj.weight", 0.0238),
        ("encoder.cls_token", 0.0238),
        ("encoder.pos_embed", 0.0238),
        ("encoder.blocks.0.attn.qkv.weight", 0.0317),
        ("encoder.blocks.1.norm1.bias", 0.0422),
        ("encoder.blocks.10.mlp.fc1.weight", 0.5625),
        ("encoder.blocks.11.mlp.fc2.bias", 0.75),
        ("encoder.norm.weight", 1.0),
        ("head.weight", 1.0),
        ("head_dist.bias", 1.0),
        ("dist_token", 1.0),
        ("dist_pos", 1.0),
    ],
)
def test_layers_learn_at_the_rates_of_the_fact_sheet(name: str, scale: float) -> None:
    assert layer_scale(name, 12, 0.75) == pytest.approx(scale, abs=5e-5)
    assert name in dict(classifier().named_parameters())


def test_a_classifier_gets_fourteen_rates_and_each_group_carries_its_own() -> None:
    model = classifier()
    scales = by_name(model, build_optimizer(model, SETTINGS, depth=12, layer_decay=0.75), "lr_scale")
    assert sorted(set(scales.values())) == pytest.approx([0.75 ** (13 - layer) for layer in range(14)])
    assert scales["encoder.blocks.3.attn.proj.weight"] == pytest.approx(0.75**9)


def test_without_layer_decay_every_layer_learns_at_the_full_rate() -> None:
    model = classifier()
    assert set(by_name(model, build_optimizer(model, SETTINGS), "lr_scale").values()) == {1.0}


def test_vectors_and_biases_are_not_decayed_and_matrices_and_tokens_are() -> None:
    model = GenericStudent(SPEC, DecoderSpec(width=8, depth=1, heads=2), teacher_width=8)
    decays = by_name(model, build_optimizer(model, SETTINGS), "weight_decay")
    assert {decay for name, decay in decays.items() if name.endswith(("bias", "norm1.weight", "norm2.weight", "norm.weight"))} == {0.0}
    matrices = ("encoder.patch_embed.proj.weight", "encoder.blocks.0.attn.qkv.weight", "feature_head.0.weight", "encoder.cls_token")
    assert [decays[name] for name in (*matrices, "decoder.mask_token")] == [0.05] * 5


def test_named_tokens_are_spared_from_decay_wherever_they_live() -> None:
    model = classifier()
    decays = by_name(model, build_optimizer(model, SETTINGS, no_decay=model.no_weight_decay), "weight_decay")
    assert [decays[name] for name in ("encoder.pos_embed", "encoder.cls_token", "dist_token", "dist_pos")] == [0.0] * 4
    assert decays["head.weight"] == 0.05


@pytest.mark.parametrize("layer_decay", [1.0, 0.75])
def test_every_trained_parameter_is_in_exactly_one_group_and_frozen_ones_in_none(layer_decay: float) -> None:
    model = classifier()
    model.encoder.patch_embed.requires_grad_(False)
    optimizer = build_optimizer(model, SETTINGS, depth=12, layer_decay=layer_decay)
    grouped = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(grouped) == sorted(id(parameter) for parameter in model.parameters() if parameter.requires_grad)
    assert len(grouped) == len(set(grouped))


def test_it_is_adamw_with_the_settings_betas() -> None:
    optimizer = build_optimizer(classifier(), SETTINGS)
    assert isinstance(optimizer, torch.optim.AdamW)
    assert {(group["betas"], group["eps"]) for group in optimizer.param_groups} == {((0.9, 0.95), 1e-8)}


class Wrapped(nn.Module):
    """A network under another name, beside a layer that belongs to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.model = classifier()
        self.adapter = nn.Linear(2, 2)


def test_layers_learn_at_their_rates_under_a_prefix_and_what_lies_beside_at_the_full_one() -> None:
    wrapped = Wrapped()
    found = by_name(wrapped, build_optimizer(wrapped, SETTINGS, depth=12, layer_decay=0.75, prefix="model."), "lr_scale")
    plain = by_name(wrapped.model, build_optimizer(wrapped.model, SETTINGS, depth=12, layer_decay=0.75), "lr_scale")
    assert {name.removeprefix("model."): scale for name, scale in found.items() if name.startswith("model.")} == plain
    assert {scale for name, scale in found.items() if name.startswith("adapter")} == {1.0}


@pytest.mark.parametrize("prefix", ["", "module."])
def test_layer_decay_that_would_do_nothing_is_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"layer_decay is 0\.75, but no name of a parameter starts with (module\.)?encoder\.blocks\."):
        build_optimizer(Wrapped(), SETTINGS, depth=12, layer_decay=0.75, prefix=prefix)
