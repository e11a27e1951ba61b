"""Bill of materials of a bundle: CycloneDX 1.6 with a model card, the same for the same bundle."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from ..edge.manifest import LABELS, MODEL_CARD, SAMPLE, SAMPLE_IMAGE, FileRecord, sha256_of
from .dense_words import metrics_of, task_of
from .licences import UNKNOWN, cyclonedx_licences
from .model_card import top1_of

# Serial numbers are derived, not drawn: a bundle made twice from the same parts has the same one.
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:g2sd-deploy:sbom")
_ROOT = "bundle"
_EDGE = "edge"
_DATA_FILES = (LABELS, SAMPLE, SAMPLE_IMAGE)

_PACKAGES = {"onnxruntime": "onnxruntime", "openvino": "openvino", "tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}


def sbom(facts: Mapping[str, Any], records: Mapping[str, FileRecord]) -> dict[str, Any]:
    """What a bundle is made of: models with their measured accuracy, the code that runs them, data, teacher, licences.

    Args:
        facts: The manifest, with or without its ``files``.
        records: Digest and size of every file but the bill itself and the manifest.

    Returns:
        CycloneDX 1.6 as JSON values, without a time of making, which would make each bundle another one.
    """
    models = dict.fromkeys(variant["file"] for variant in facts["variants"])
    parts = [_model(name, record, facts) for name, record in records.items() if name in models]
    parts += [_edge({name: record for name, record in records.items() if name.startswith(f"{_EDGE}/")})]
    parts += [
        _file(name, record, dense="task" in facts)
        for name, record in records.items()
        if name not in models and not name.startswith(f"{_EDGE}/")
    ]
    runtimes = [_runtime(runtime, facts) for runtime in dict.fromkeys(variant["runtime"] for variant in facts["variants"])]
    data = _dataset(facts)
    components = [*parts, *runtimes, *data]
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "lifecycles": [{"phase": "build"}],
            "tools": {"components": [{"type": "application", "name": "g2sd-deploy", "version": facts["version"]}]},
            "component": _root(facts, data),
        },
        "components": components,
        "dependencies": list(_dependencies(facts, [*parts, *data])),
    }
    content = json.dumps(bill, sort_keys=True, ensure_ascii=False)
    serial = uuid.uuid5(_NAMESPACE, sha256_of(content.encode()))
    return {"bomFormat": bill.pop("bomFormat"), "specVersion": bill.pop("specVersion"), "serialNumber": f"urn:uuid:{serial}", **bill}


def _root(facts: Mapping[str, Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    component = {
        "type": "machine-learning-model",
        "bom-ref": _ROOT,
        "name": facts["name"],
        "description": f"{_what(facts)} for {facts['target']['name']}; proof {facts['verdict']}",
        "licenses": cyclonedx_licences(facts["licences"]["model"]),
        "pedigree": _pedigree(facts),
        "modelCard": _model_card(facts, data),
        "properties": [
            {"name": "g2sd:verdict", "value": facts["verdict"]},
            {"name": "g2sd:default", "value": facts["default"]},
            *({"name": f"g2sd:{key}", "value": value} for key, value in facts["provenance"].items() if isinstance(value, str)),
        ],
    }
    return {key: value for key, value in component.items() if value}


def _task(facts: Mapping[str, Any]) -> str:
    return task_of(facts) if "task" in facts else "image classification"


def _what(facts: Mapping[str, Any]) -> str:
    return f"Network for {task_of(facts)}" if "task" in facts else "Image classifier"


def _limit(facts: Mapping[str, Any]) -> str:
    return "It knows its classes only." if "task" in facts else "It answers one of its classes for every image."


def _pedigree(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The teacher, as an ancestor."""
    teacher, licences = facts["provenance"].get("teacher"), cyclonedx_licences(facts["licences"]["teacher"])
    if not isinstance(teacher, str) and not licences:
        return {}
    name = teacher if isinstance(teacher, str) else "teacher"
    ancestor = {"type": "machine-learning-model", "bom-ref": "teacher", "name": name, **({"licenses": licences} if licences else {})}
    return {"ancestors": [ancestor], "notes": "distilled from"}


def _model_card(facts: Mapping[str, Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    default = next(variant for variant in facts["variants"] if variant["name"] == facts["default"])
    limits = [
        f"{variant['name']} is not proven ({variant['verdict']}: {variant['reason']})"
        for variant in facts["variants"]
        if variant["verdict"] != "passed"
    ]
    parameters = {
        "approach": {"type": "supervised"},
        "task": _task(facts),
        "architectureFamily": "vision transformer",
        "datasets": [{"ref": one["bom-ref"]} for one in data],
        "inputs": [{"format": _format(default["input"])}],
        "outputs": [{"format": _format(default["output"])}],
    }
    return {
        "modelParameters": {key: value for key, value in parameters.items() if value},
        "quantitativeAnalysis": {"performanceMetrics": [metric for variant in facts["variants"] for metric in _metrics(variant, facts)]},
        "considerations": {"technicalLimitations": [_limit(facts), *limits]},
    }


def _metrics(variant: Mapping[str, Any], facts: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    """What was measured of a variant; the slice names it and, where they are known, the images."""
    where = facts["provenance"].get("evaluated_on")
    top1, latency = top1_of(variant), variant["latency"] or {}
    found, num = metrics_of(variant)
    for name, share in found.items():
        yield {
            "type": name,
            "value": f"{share:.6f}",
            "slice": f"{variant['name']}, {num} images" + (f" of {where}" if isinstance(where, str) else ""),
        }
    if top1 is not None:
        images = f"{top1[1]} images" + (f" of {where}" if isinstance(where, str) else "")
        yield {"type": "top-1 accuracy", "value": f"{top1[0]:.6f}", "slice": f"{variant['name']}, {images}"}
    for key in ("p50_ms", "p99_ms"):
        if latency.get(key) is not None:
            yield {"type": f"latency {key}", "value": f"{latency[key]:.4f}", "slice": variant["name"]}


def _model(name: str, record: FileRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    users = [variant for variant in facts["variants"] if variant["file"] == name]
    metrics = [metric for variant in users for metric in _metrics(variant, facts)]
    component = {
        "type": "machine-learning-model",
        "bom-ref": name,
        "name": name,
        "description": f"{users[0]['precision']}, for {', '.join(variant['runtime'] for variant in users)}",
        "hashes": _hashes(record),
        "licenses": cyclonedx_licences(facts["licences"]["model"]),
        "modelCard": {"modelParameters": {"task": _task(facts)}, "quantitativeAnalysis": {"performanceMetrics": metrics}},
        "properties": [{"name": "g2sd:variant", "value": variant["name"]} for variant in users],
    }
    return {key: value for key, value in component.items() if value}


def _edge(records: Mapping[str, FileRecord]) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": _EDGE,
        "name": "g2sd_export.edge",
        "description": "Runs and proves the models on a device",
        "licenses": cyclonedx_licences("Apache-2.0 AND MIT"),
        "components": [_file(name, record) for name, record in records.items()],
    }


def _file(name: str, record: FileRecord, *, dense: bool = False) -> dict[str, Any]:
    kind = "data" if name in _DATA_FILES else "file"
    what = {
        LABELS: "names of the classes",
        SAMPLE: "images with golden answers" if dense else "images with golden logits",
        SAMPLE_IMAGE: "an image",
        MODEL_CARD: "model card",
    }.get(name)
    return {"type": kind, "bom-ref": name, "name": name, **({"description": what} if what else {}), "hashes": _hashes(record)}


def _runtime(runtime: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """A package that is installed on the device; the version is the one that the proof was made with, where it is known."""
    package = _PACKAGES[runtime]
    tools = facts["provenance"].get("tools")
    version = tools.get(package) if isinstance(tools, dict) else None
    purl = f"pkg:pypi/{package}" + (f"@{version}" if version else "")
    named = {"version": version} if version else {}
    return {"type": "library", "bom-ref": purl, "name": package, **named, "scope": "optional", "purl": purl}


def _dataset(facts: Mapping[str, Any]) -> list[dict[str, Any]]:
    name, licences = facts["provenance"].get("data"), cyclonedx_licences(facts["licences"]["data"])
    if not isinstance(name, str) and facts["licences"]["data"] == UNKNOWN:
        return []
    shown = name if isinstance(name, str) else "training images"
    held = {"type": "data", "bom-ref": "data", "name": shown, "data": [{"type": "dataset", "name": shown}]}
    return [{**held, **({"licenses": licences} if licences else {})}]


def _dependencies(facts: Mapping[str, Any], parts: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The bundle holds its parts, and a model file needs a runtime that reads it."""
    yield {"ref": _ROOT, "dependsOn": [part["bom-ref"] for part in parts]}
    for name in dict.fromkeys(variant["file"] for variant in facts["variants"]):
        runtimes = dict.fromkeys(variant["runtime"] for variant in facts["variants"] if variant["file"] == name)
        yield {"ref": name, "dependsOn": [_runtime(runtime, facts)["bom-ref"] for runtime in runtimes]}


def _hashes(record: FileRecord) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": record.sha256}]


def _format(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['dtype']} [{', '.join(map(str, tensor['shape']))}]"
