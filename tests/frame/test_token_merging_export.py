"""Token merging as a setting of an export: what is proven, what it costs, what is refused."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from g2sd_deploy.errors import UserError
from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.models.checkpoint import load_classifier
from g2sd_deploy.models.token_merging import most_merged, num_merging_blocks, with_token_merging
from g2sd_deploy.settings import ExportSettings
from g2sd_deploy.token_merging import FLOAT_TOLERANCE, cost_of_merging, judged, merging_module, told
from g2sd_export.answers import Answers, digest_of
from g2sd_export.bundle import open_bundle
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.paired import paired_drop
from g2sd_export.targets import load_target

G2sd = Callable[..., Any]
ON = ("--on", "bundled:fashion-mnist", "--max-images", "40", "--not-corrupted", "--only", "fp32-onnxruntime", "--only", "fp32-openvino")


def test_an_export_that_merges_is_proven_against_the_student_that_merges(g2sd: G2sd, smoke_run: Any, tmp_path: Path, python: str) -> None:
    student, out = smoke_run.folder / "specific", tmp_path / "bundle"
    answer = g2sd("export", student, *ON, "--token-merging", "2", "--timing-seconds", "0.1", "--out", out, "--json")
    assert answer.code == 0, answer.err
    made, bundle = json.loads(answer.out), open_bundle(out)
    merging = made["token_merging"]
    assert merging == bundle.provenance["token_merging"]
    assert (merging["merged_per_block"], merging["num_images"]) == (2, 40)
    assert merging["top1_merged"] == made["parity"]["top1_reference"]
    assert merging["top1_merged"] - merging["top1_plain"] == pytest.approx(-merging["drop"]["drop"])
    assert "It merges tokens: each block takes 2 patches away" in (out / "README.md").read_text()
    kinds = {node.op_type for node in onnx.load(out / "models" / "fp32.onnx").graph.node}
    assert {"ArgMax", "TopK"} <= kinds, "the graph that ships is the one that merges"

    file = load_classifier(student / "classifier.safetensors")
    runner = TorchRunner(with_token_merging(file.model, 2), file.preprocessing, device=torch.device("cpu"))
    sample = bundle.sample()
    np.testing.assert_allclose(sample.logits, runner.infer(sample.images), atol=1e-5)
    done = subprocess.run([python, "-B", "-m", "edge", "selftest"], cwd=out, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr


def test_more_tokens_than_there_are_is_one_clear_line(g2sd: G2sd, smoke_run: Any, tmp_path: Path) -> None:
    model = load_classifier(smoke_run.folder / "specific" / "classifier.safetensors").model
    most = most_merged(model.encoder.spec.num_patches, num_merging_blocks(model.encoder.spec.depth, model.pooling))
    answer = g2sd("export", smoke_run.folder / "specific", *ON, "--token-merging", most + 1, "--out", tmp_path / "bundle")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"error: token_merging is {most + 1}: token merging takes {most + 1} tokens away" in answer.err
    assert f"wanted 0 to {most}" in answer.err and not (tmp_path / "bundle").exists()


def test_only_a_classifier_of_ours_can_merge() -> None:
    with pytest.raises(UserError, match="is for classifiers of g2sd alone, and this is a Linear; export it with token_merging 0"):
        merging_module(nn.Linear(2, 2), 4)
    plain = nn.Linear(2, 2)
    assert merging_module(plain, 0) is plain


def test_float_files_that_merge_are_judged_by_their_divergence_and_others_as_ever() -> None:
    target = load_target("cpu-x86")
    assert judged(target, 0) is target
    merging = judged(target, 8)
    assert merging.tolerance["fp32"] == FLOAT_TOLERANCE and merging.tolerance["int8"] == target.tolerance["int8"]


class Fixed:
    """A runner that knows its answers."""

    name, version = "fixed", "1"
    preprocessing = Preprocessing(image_px=2, resize_px=2, num_channels=1, mean=(0.5,), std=(0.5,))

    def __init__(self, logits: Any) -> None:
        self.logits, self.at = logits, 0

    def prepare(self, images: Any) -> Any:
        return images

    def forward(self, inputs: Any) -> Any:
        return self.infer(inputs)

    def infer(self, images: Any) -> Any:
        self.at += len(images)
        return self.logits[self.at - len(images) : self.at]


def test_the_cost_is_the_paired_difference_on_the_same_images() -> None:
    generator = np.random.default_rng(0)
    labels, images = generator.integers(0, 3, 200), generator.integers(0, 256, (200, 2, 2, 1), dtype=np.uint8)
    plain, merged = (np.eye(3, dtype=np.float32)[np.where(generator.random(200) < share, labels, (labels + 1) % 3)] for share in (0.9, 0.7))
    cost = cost_of_merging(Fixed(plain), Answers("torch", digest_of(images), merged), images, labels, 8)
    drop = paired_drop(plain.argmax(1) == labels, merged.argmax(1) == labels)
    assert cost["drop"] == drop.to_dict() and drop.drop > 0.1
    assert told(cost).startswith(
        f"token merging, 8 tokens in each block: {100 * drop.drop:.2f} points of top-1 lost against the same student"
    )


def test_a_recipe_says_how_many_tokens_and_merges_none_by_default() -> None:
    assert ExportSettings().token_merging == 0
    assert ExportSettings.model_validate({"token_merging": 8}).token_merging == 8
    with pytest.raises(ValueError, match="greater than or equal to 0"):
        ExportSettings.model_validate({"token_merging": -1})
