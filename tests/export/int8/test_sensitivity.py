"""Layers that eight bits hurt are found by measuring."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import numpy_helper

from g2sd_export.edge.errors import UserError
from g2sd_export.int8.quantise import Source
from g2sd_export.int8.sensitivity import Sensitivity, relative_error, sensitivities, worst


def test_a_layer_that_eight_bits_ruin_comes_first(pixel_path: Path, photos: npt.NDArray[np.uint8], tmp_path: Path) -> None:
    clean = Source(pixel_path, photos)
    target = next(product for product in clean.products if "mlp.fc1" in product.group)
    norm = next(node for node in clean.model.graph.node if target.activations[0] in node.output)
    model = onnx.ModelProto()
    model.CopyFrom(clean.model)
    constants = {item.name: item for item in model.graph.initializer}
    scale = numpy_helper.to_array(constants[norm.input[1]]).copy()
    assert target.weight
    weight = numpy_helper.to_array(constants[target.weight[1]]).copy()
    scale[5] *= 1000  # an outlier that the weights undo: no change in float
    weight[5] /= 1000
    constants[norm.input[1]].CopyFrom(numpy_helper.from_array(scale, norm.input[1]))
    constants[target.weight[1]].CopyFrom(numpy_helper.from_array(weight, target.weight[1]))
    path = tmp_path / "outlier.onnx"
    onnx.save_model(model, path)
    source = Source(path, photos)
    seen: list[tuple[int, int, str]] = []
    found = sensitivities(source, photos, scheme="cpu", calibrator="minmax", tick=lambda *told: seen.append(told))
    assert found[0].group == target.group and found[0].error > found[1].error
    assert {each.group for each in found} == set(source.groups) and seen[-1] == (10, 10, "")
    assert worst(found, 4)[0] == target.group


def test_the_error_is_relative_and_blind_to_what_changes_no_probability() -> None:
    rng = np.random.default_rng(0)
    logits, noise = rng.normal(size=(5, 4)), rng.normal(size=(5, 4))
    shift = rng.normal(size=(5, 1))
    wanted = np.sqrt(
        sum((noise[i, j] - noise[i].mean()) ** 2 for i in range(5) for j in range(4))
        / sum((logits[i, j] - logits[i].mean()) ** 2 for i in range(5) for j in range(4))
    )
    assert relative_error(logits, logits + noise + shift) == pytest.approx(wanted)
    assert relative_error(logits * 7, (logits + noise) * 7) == pytest.approx(wanted)


def test_broken_answers_are_an_infinite_error() -> None:
    assert relative_error(np.eye(3), np.full((3, 3), np.nan)) == float("inf")


def test_a_model_that_answers_nothing_is_refused() -> None:
    with pytest.raises(UserError, match="one and the same logit for every class"):
        relative_error(np.ones((3, 4)), np.ones((3, 4)))


def test_only_groups_that_matter_are_kept() -> None:
    found = [Sensitivity("a", 1.0, 0), Sensitivity("b", 0.5, 0), Sensitivity("c", 0.01, 0)]
    assert worst(found, 3) == ("a", "b") and worst(found, 1) == ("a",) and worst(found, 0) == ()
