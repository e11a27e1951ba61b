"""An evaluation with everything that can be measured, in numbers that a ViT-Ti on ImageNet could reach."""

import math
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy.report import (
    Rendered,
    charts,
    charts_front,
    charts_latency,
    charts_layers,
    charts_scores,
    read_run,
    render_evaluation,
    render_report,
)

SHARES = [step / 10 for step in range(11)]
SETS = {
    "imagenet-val": (50_000, 1000, 1.0, "ImageNet’s validation images, all 1000 logits."),
    "imagenet-real": (46_837, 1000, 1.06, "ReaL labels: any of an image’s labels is right; images without a label are not scored."),
    "imagenetv2-matched-frequency": (10_000, 1000, 0.86, "Folders are class indices and sorted as numbers; all 1000 logits."),
    "imagenet-a": (7_500, 200, 0.17, "Logits cut to the set’s 200 classes."),
    "imagenet-a-clean": (10_000, 200, 1.15, "ImageNet’s validation images of imagenet-a’s 200 classes, logits cut to them."),
    "imagenet-r": (30_000, 200, 0.51, "Logits cut to the set’s 200 classes."),
    "imagenet-sketch": (50_889, 1000, 0.34, "All 1000 logits."),
}
MODELS = {"teacher": (86_567_656, 0.836, 0.9), "student": (5_910_800, 0.7644, 1.0), "baseline": (5_717_416, 0.7213, 1.1)}
PREPARED = {"image_px": 224, "resize_px": 256, "num_channels": 3, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
LAYERS = ["embedding", *(f"block {index}" for index in range(1, 13))]


def around(value: float, num: int, scale: float = 1.0) -> list[float]:
    """An interval about as wide as that of a proportion of `num` images."""
    half = 1.96 * scale * math.sqrt(max(value * (1 - min(value, 0.999)), 1e-6) / num)
    return [round(value - half, 6), round(value + half, 6)]


def full_scores(top1: float, num: int, num_classes: int, *, teacher: bool, labels: bool = True) -> dict[str, Any]:
    """Scores of one model on one set that fit together; without `labels` as of a set with several right classes."""
    found: dict[str, Any] = {
        "num_images": num,
        "top1": round(top1, 6),
        "top5": round(1 - (1 - top1) * 0.28, 6),
        "nll": round(3.9 * (1 - top1), 6),
        "brier": round(1.32 * (1 - top1), 6),
        "ece": round(0.02 + 0.1 * (1 - top1), 6),
        "ece_equal_mass": round(0.019 + 0.1 * (1 - top1), 6),
        "aurc": round(0.9 * (1 - top1) ** 2, 6),
    }
    found["intervals"] = {key: around(value, num) for key, value in found.items() if key != "num_images"}
    if not labels:
        found |= {"nll": None, "brier": None}
        del found["intervals"]["nll"], found["intervals"]["brier"]
    per_class = [round(min(1.0, max(0.0, top1 + 0.22 * math.sin(1.7 * index))), 3) for index in range(num_classes)]
    agreement = {"same": 0.86 * top1 + 0.12, "kl": 1.1 * (1 - top1), "intervals": {"same": around(top1, num), "kl": [0.2, 0.3]}}
    return found | {
        "per_class": {"num": [num // num_classes] * num_classes, "top1": per_class} if labels else None,
        "reliability": [reliability_bin(index, top1) for index in range(15)],
        "risk_coverage": {
            "coverage": [index / 100 for index in range(1, 101)],
            "risk": [round((1 - top1) * (index / 100) ** 2.2, 5) for index in range(1, 101)],
        },
        "agreement": None if teacher else agreement,
    }


def reliability_bin(index: int, top1: float) -> dict[str, Any]:
    """One of 15 bins; the first is empty and the last holds most images."""
    if index == 0:
        return {"low": 0.0, "high": 1 / 15, "num": 0, "confidence": None, "accuracy": None}
    confidence = (index + 0.5) / 15
    accuracy = confidence - 0.22 * confidence * (1 - confidence) * (1.6 - top1)
    return {"low": index / 15, "high": (index + 1) / 15, "num": 40 + 3 * index**3, "confidence": confidence, "accuracy": accuracy}


def occlusion_curves(top1: float) -> dict[str, Any]:
    """Top-1 that falls slowly at random, fast where salient patches go first."""
    curves = {}
    for order, power in (("random", 3.2), ("salient_first", 1.3), ("salient_last", 6.0)):
        values = [round(top1 * (1 - share ** (power * (0.3 + top1))) + 0.001 * share, 5) for share in SHARES]
        intervals = [around(value, 5_000) for value in values]
        curves[order] = {"top1": values, "interval": intervals, "relative": [round(value / top1, 5) for value in values]}
    return curves


def corrupted_set(top1: float) -> dict[str, Any]:
    """ImageNet-C as published."""
    corruptions = {
        name: {str(level): {"num_images": 50_000, "top1": round(top1 * (1 - harm * level), 4)} for level in range(1, 6)}
        for name, harm in {"gaussian_noise": 0.11, "fog": 0.07, "jpeg_compression": 0.05}.items()
    }
    error = 1 - 0.6 * top1
    return {
        "mean_error": error,
        "mce": 1.21 * error,
        "relative_mce": 1.34 * error,
        "intervals": {"mean_error": around(error, 200_000), "mce": around(error * 1.21, 200_000)},
        "corruptions": corruptions,
    }


def similarity() -> dict[str, Any]:
    """Maps of a student before and after each stage, and attention distances of the teacher and of it."""
    moments = {"before generic": 0.35, "after generic": 0.95, "after specific": 0.8}

    def cka(quality: float) -> list[list[float]]:
        return [[round(quality * math.exp(-(((row - column) / 5) ** 2)), 4) for column in range(13)] for row in range(13)]

    def px(heads: int, lift: float) -> list[list[float]]:
        return [
            [round(min(110.0, lift + 6 * block + 55 * abs(math.sin(head * 1.3 + block)) * (1 - block / 20)), 2) for head in range(heads)]
            for block in range(12)
        ]

    pairs = [
        {"name": "student", "when": when, "reference": "teacher", "rows": LAYERS, "columns": LAYERS, "cka": cka(quality)}
        for when, quality in moments.items()
    ]
    distances = [
        {"name": "teacher", "when": "", "image_px": 224, "px": px(12, 20)},
        *({"name": "student", "when": when, "image_px": 224, "px": px(3, 35 - 20 * quality)} for when, quality in moments.items()),
    ]
    note = "Unbiased, over minibatches; a layer’s features are those of all tokens."
    return {
        "num_images": 2_048,
        "batch_size": 256,
        "note": note,
        "pairs": pairs,
        "attention_distance": distances,
    }


def model(name: str, *, clean: bool) -> dict[str, Any]:
    """One model with every measure."""
    num_parameters, top1, frailty = MODELS[name]
    corruptions = {
        corruption: {str(level): full_brief(top1 * (1 - harm * frailty * level / 4)) for level in range(1, 6)}
        for corruption, harm in {"gaussian_noise": 0.31, "defocus_blur": 0.42, "fog": 0.21, "pixelate": 0.15}.items()
    }
    sets = {
        key: full_scores(min(0.985, top1 * factor), num, classes, teacher=name == "teacher", labels=key != "imagenet-real")
        for key, (num, classes, factor, _) in SETS.items()
    }
    return {
        "num_parameters": num_parameters,
        "model_mib": round(4 * num_parameters / 2**20, 3),
        "runtime": "torch 2.15.0",
        "preprocessing": PREPARED | {"interpolation": "bicubic"},
        "digest": f"{num_parameters:064x}",
        **({"clean": full_scores(top1, 50_000, 1000, teacher=name == "teacher")} if clean else {}),
        "corruptions": corruptions,
        "mean_corruption_top1": 0.61 * top1,
        "mean_corruption_interval": around(0.61 * top1, 2_000),
        "sets": {**sets, "imagenet-c": corrupted_set(top1)},
        "occlusion": occlusion_curves(top1),
    }


def full_brief(top1: float) -> dict[str, Any]:
    """The scores of one corruption at one severity."""
    return {
        "num_images": 2_000,
        "top1": round(top1, 4),
        "top5": round(1 - (1 - top1) * 0.3, 4),
        "nll": 4 * (1 - top1),
        "brier": 0.4,
        "ece": 0.05,
    }


def evaluation(*, clean: bool) -> dict[str, Any]:
    """Metrics of the evaluate stage, or without `clean` of a standalone evaluation."""
    sets: dict[str, Any] = {
        name: {"note": note, "num_images": num, "num_classes": classes, "num_skipped": 0, "skipped": []}
        for name, (num, classes, _, note) in SETS.items()
    }
    sets["imagenet-sketch"] |= {"num_skipped": 3, "skipped": [{"name": "sketch/n01440764/sketch_7.JPEG", "reason": "the file is cut off"}]}
    sets["imagenet-c"] = {
        "note": "Centre crop of 224 px, no resize; all 1000 logits.",
        "num_images": 3_750_000,
        "num_classes": 1000,
        "num_skipped": 0,
        "skipped": [],
    }
    return {
        "models": {name: model(name, clean=clean) for name in MODELS},
        "sets": sets,
        "agreement": {"student": 0.7774, "baseline": 0.7403},
        "num_corruption_images": 2_000,
        "corruption_note": "Regenerated at 224 px from the published constants; these numbers do not compare with ImageNet-C.",
        "occlusion": {
            "shares": SHARES,
            "grid": 14,
            "num_images": 5_000,
            "seed": 0,
            "salience": "teacher",
            "fill": "mean colour of the model",
        },
        "similarity": similarity(),
    }


@pytest.fixture
def evaluated_run(full_run: Any) -> Any:
    """A run of the recipe g2sd_vit_tiny whose evaluate stage measured everything."""
    return as_imagenet(full_run)


def as_imagenet(run: Any) -> Any:
    """Turn the quickstart into a run on ImageNet."""
    run.run["recipe"] = "g2sd_vit_tiny"
    run.run["resolved"] |= {"name": "g2sd_vit_tiny", "student": {"patch_px": 16, "width": 192, "depth": 12, "heads": 3}}
    run.artifacts["data"]["metrics"] |= {
        "num_train": 1_281_167,
        "num_test": 50_000,
        "num_classes": 1000,
        "class_names": [f"n{1_440_764 + 7 * index:08d}" for index in range(1000)],
        "image_px": 224,
        "num_channels": 3,
    }
    run.artifacts["evaluate"]["metrics"] = evaluation(clean=True)
    return run


@pytest.fixture
def standalone() -> dict[str, Any]:
    """Metrics of `g2sd evaluate` on three models that are no part of a run: torch, ONNX and timm."""
    metrics = evaluation(clean=False)
    names = {"teacher": "mae_finetuned_vit_base", "student": "student.onnx", "baseline": "vit_tiny_patch16_224.augreg_in21k_ft_in1k"}
    metrics["models"] = {names[name]: found for name, found in metrics["models"].items()}
    half = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_px": 248}
    metrics["models"][names["baseline"]]["preprocessing"] = PREPARED | {"interpolation": "bicubic"} | half
    metrics |= {"agreement": {}, "teacher": names["teacher"]}
    for pair in metrics["similarity"]["pairs"] + metrics["similarity"]["attention_distance"][1:]:
        pair["name"] = names["student"]
    for pair in metrics["similarity"]["pairs"]:
        pair["reference"] = names["teacher"]
    metrics["similarity"]["attention_distance"][0]["name"] = names["teacher"]
    return metrics


@pytest.fixture(scope="session")
def evaluated_reports(tmp_path_factory: pytest.TempPathFactory, full_run_factory: Any) -> dict[str, Rendered]:
    """The report of the whole run, and the page of the same evaluation by itself, rendered once for tests that only read them."""
    folder = as_imagenet(full_run_factory()).write(tmp_path_factory.mktemp("evaluated"))
    alone = evaluation(clean=False)
    del alone["similarity"]
    for found in (alone, *alone["models"].values()):  # a part is enough and quicker
        found["occlusion"] = None
        found["sets"] = {name: found["sets"][name] for name in ("imagenet-val", "imagenet-a", "imagenet-c")}
    return {"run": render_report(read_run(folder)), "standalone": render_evaluation(alone, "Three models")}


@pytest.fixture
def without_charts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Charts are empty, for tests that look at words and numbers: drawing takes most of the time of a page."""
    for module, names in (
        (charts, ("loss_curve", "top1_bars")),
        (charts_front, ("accuracy_latency",)),
        (charts_latency, ("distributions", "courses", "block_bars")),
        (charts_scores, ("reliability_diagram", "line_chart")),
        (charts_layers, ("similarity_map", "distance_dots")),
    ):
        for name in names:
            monkeypatch.setattr(module, name, lambda *given: "<svg></svg>")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a test writes its run."""
    return tmp_path / "run"
