"""Bundles with the proofs that a test asks for, and profiles of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from g2sd_deploy.cli import app
from g2sd_export.bundle import BuiltVariant, Variant, open_bundle, write_bundle
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.edge.preprocess import Preprocessing

NUM = 1000
SETTINGS = {"openvino": {"inference_precision": "f32"}, "onnxruntime": {"provider": "CPUExecutionProvider"}}
MACHINE = {"cpu": "Cortex-A76", "cpus": 4, "gpu": None}


def _model(path: Path) -> Path:
    """A graph that a bundle can hold; nobody runs it here."""
    import onnx
    from onnx import helper

    shape = ["batch", 8, 8, 1]
    node = helper.make_node("Flatten", ["images"], ["logits"])
    given = helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, shape)
    made = helper.make_tensor_value_info("logits", onnx.TensorProto.FLOAT, ["batch", 64])
    graph = helper.make_graph([node], "flat", [given], [made])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def _hop(name: str, hits: int, lost: int, gained: int) -> dict[str, Any]:
    drop = {"num_images": NUM, "lost": lost, "gained": gained, "drop": (lost - gained) / NUM, "interval": [0, 0], "p_value": 1.0}
    before = (hits + lost - gained) / NUM
    return {
        "name": name,
        "after": "torch",
        "verdict": "passed",
        "reason": "",
        "num_images": NUM,
        "flipped": lost + gained,
        "max_abs_logit_diff": 0.1,
        "min_cosine": 0.99,
        "top1_reference": before,
        "top1_candidate": hits / NUM,
        "drop": drop,
    }


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[..., Path]:
    """Writes a bundle: for each variant its hits of 1000 images, and how many of them the torch model loses and gains by it."""

    def make(name: str, variants: dict[str, tuple[int, int, int]], *, weights: str = "w", merging: Any = None, tried: Any = ()) -> Path:
        model = _model(tmp_path / "flat.onnx")
        built = []
        for variant, (hits, lost, gained) in variants.items():
            precision, _, runtime = variant.partition("-")
            fields = {
                "name": variant,
                "file": "models/flat.onnx",
                "precision": precision,
                "runtime": runtime,
                "settings": SETTINGS[runtime],
                "input": {"name": "images", "dtype": "float32", "layout": "NHWC", "shape": ["batch", 8, 8, 1]},
                "output": {"name": "logits", "dtype": "float32", "shape": ["batch", 64]},
                "verdict": "passed" if hits else "not_run",
                "reason": "" if hits else "there is no such GPU here",
                "hops": (_hop(variant, hits, lost, gained),) if hits else (),
                "tolerance": ParityTolerance(),
                "device_tolerance": ParityTolerance(),
            }
            built.append(BuiltVariant(Variant(**fields), model, None))  # type: ignore[arg-type]
        provenance = {"weights_sha256": weights, "evaluated_on": "pets, split test", "candidates": list(tried)}
        return write_bundle(
            tmp_path / name,
            name=name,
            variants=built,
            default=next(iter(variants)),
            preprocessing=Preprocessing(image_px=8, resize_px=8, num_channels=1, mean=(0.5,), std=(0.5,)),
            class_names=[str(at) for at in range(64)],
            sample_images=np.zeros((2, 8, 8, 1), np.uint8),
            expected_logits=np.zeros((2, 64), np.float32),
            target={"name": "cpu-x86", "description": "Any x86 processor."},
            licences={"model": "MIT", "code": "Apache-2.0 AND MIT", "data": "MIT"},
            provenance=provenance | ({"token_merging": merging} if merging else {}),
            verdict="passed",
            program_version="1.2.3",
        )

    return make


@pytest.fixture
def make_profile(tmp_path: Path) -> Callable[..., Path]:
    """Writes what `g2sd profile --out` writes: for each bundle and variant a median in ms, or changes of the row."""

    def make(times: dict[tuple[Path, str], float | dict[str, Any]], *, name: str = "profile.json", machine: Any = MACHINE) -> Path:
        rows = [_row(bundle, variant, given) for (bundle, variant), given in times.items()]
        path = tmp_path / name
        path.write_text(json.dumps({"format": 1, "machine": machine, "conditions": {}, "reference": None, "rows": rows}))
        return path

    return make


def _row(bundle: Path, variant: str, given: float | dict[str, Any]) -> dict[str, Any]:
    changes = given if isinstance(given, dict) else {"p50_ms": given}
    p50 = float(changes.get("p50_ms", 10.0))
    whole = {
        "model": str(bundle),
        "variant": variant,
        "digest": open_bundle(bundle).digest,
        "runtime": variant.partition("-")[2],
        "batch": 1,
        "threads": 2,
        "scenario": "single_stream",
        "verdict": "valid",
        "reasons": [],
        "p50_ms": p50,
        "p50_interval_ms": [p50 * 0.99, p50 * 1.01],
    }
    return whole | changes


class Answer:
    """What a command said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def pareto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., Answer]:
    """Runs `g2sd pareto`; the store of devices is empty."""
    monkeypatch.setenv("G2SD_DEVICES", str(tmp_path / "store"))

    def run(*arguments: object) -> Answer:
        found = CliRunner().invoke(app, ["pareto", *map(str, arguments)])
        assert found.exception is None or isinstance(found.exception, SystemExit), found.exception
        return Answer(found.exit_code, found.stdout, found.stderr)

    return run
