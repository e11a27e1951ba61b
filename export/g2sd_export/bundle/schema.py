"""What a manifest may say: the published JSON schema, and the rules that a schema cannot express."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from ..edge.dense.task import DenseTask
from ..edge.errors import UserError
from ..edge.preprocess import Preprocessing

_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "number": (int, float),
    "integer": int,
    "null": type(None),
}
_NEEDED_SETTINGS = {
    "onnxruntime": ("provider",),
    "openvino": ("inference_precision",),
    "tensorrt": ("source", "source_sha256"),
    "tensorrt_rtx": ("source", "source_sha256"),
}


@cache
def manifest_schema() -> dict[str, Any]:
    """The JSON schema of ``manifest.json``, as it is published (draft 2020-12)."""
    content: dict[str, Any] = json.loads((files(__package__) / "manifest.schema.json").read_text(encoding="utf-8"))
    return content


def manifest_problems(manifest: object) -> list[str]:
    """Everything that is wrong with a manifest, in words; empty when nothing is.

    Args:
        manifest: Parsed JSON.

    Returns:
        What breaks the schema; where nothing does, what contradicts itself.
    """
    if problems := list(schema_problems(manifest, manifest_schema())):
        return problems
    assert isinstance(manifest, dict)
    return list(_contradictions(manifest))


def schema_problems(value: object, schema: Mapping[str, Any], where: str = "") -> Iterator[str]:
    """Where a value breaks a schema, in the part of JSON Schema that ours uses; saves what runs on a device a dependency.

    Args:
        value: Parsed JSON.
        schema: A schema, or a part of ``manifest_schema()`` that may refer to its ``$defs``.
        where: Path of the value, for the words.
    """
    if "$ref" in schema:
        yield from schema_problems(value, manifest_schema()["$defs"][schema["$ref"].rpartition("/")[2]], where)
    if "anyOf" in schema:
        tried = [list(schema_problems(value, one, where)) for one in schema["anyOf"]]
        yield from min(tried, key=len)
    if problem := _wrong_kind(value, schema):
        yield f"{where or 'the manifest'} is {_shown(value)}; wanted {problem}"
        return
    if isinstance(value, dict):
        yield from _object_problems(value, schema, where)
    elif isinstance(value, list):
        yield from _array_problems(value, schema, where)
    elif problem := _out_of_range(value, schema):
        yield f"{where} is {_shown(value)}; wanted {problem}"


def _wrong_kind(value: object, schema: Mapping[str, Any]) -> str:
    """What was wanted; empty where the value is that."""
    if "const" in schema and (value != schema["const"] or isinstance(value, bool)):
        return repr(schema["const"])
    if "enum" in schema and (value not in schema["enum"] or isinstance(value, bool)):
        return f"one of {', '.join(map(str, schema['enum']))}"
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(isinstance(value, _TYPES[kind]) and not isinstance(value, bool) for kind in kinds):
        return " or ".join(kinds)
    return ""


def _out_of_range(value: object, schema: Mapping[str, Any]) -> str:
    if isinstance(value, str):
        if len(value) < schema.get("minLength", 0):
            return "some text"
        if "pattern" in schema and not re.search(schema["pattern"], value):
            return f"text like {schema['pattern']}"
    if isinstance(value, int | float):
        if value < schema.get("minimum", value):
            return f"at least {schema['minimum']}"
        if value > schema.get("maximum", value):
            return f"at most {schema['maximum']}"
        if "exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"]:
            return f"more than {schema['exclusiveMinimum']}"
    return ""


def _object_problems(value: dict[str, Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
    yield from (f"{where or 'the manifest'} lacks {key}" for key in schema.get("required", ()) if key not in value)
    for key, item in value.items():
        place = f"{where}.{key}" if where else str(key)
        if "propertyNames" in schema:
            yield from schema_problems(key, schema["propertyNames"], f"{where}: the name {key!r}")
        if key in known:
            yield from schema_problems(item, known[key], place)
        elif rest is False:
            yield f"{place} is not known; the keys are {', '.join(known)}"
        elif isinstance(rest, dict):
            yield from schema_problems(item, rest, place)


def _array_problems(value: list[Any], schema: Mapping[str, Any], where: str) -> Iterator[str]:
    least, most = schema.get("minItems", 0), schema.get("maxItems", math.inf)
    if not least <= len(value) <= most:
        wanted = f"{least}" if least == most else f"{least} or more" if most == math.inf else f"{least} to {most}"
        yield f"{where} has {len(value)} items; wanted {wanted}"
    for index, item in enumerate(value):
        yield from schema_problems(item, schema.get("items", {}), f"{where}[{index}]")


def _contradictions(manifest: Mapping[str, Any]) -> Iterator[str]:
    variants = {variant["name"]: variant for variant in manifest["variants"]}
    counts = Counter(variant["name"] for variant in manifest["variants"])
    yield from (f"{count} variants have the name {name}" for name, count in counts.items() if count > 1)
    if (default := variants.get(manifest["default"])) is None:
        yield f"default is {manifest['default']!r}; wanted one of {', '.join(variants)}"
    elif manifest["verdict"] == "passed" != default["verdict"]:
        yield f"verdict is passed and that of its default {default['name']} is {default['verdict']}"
    if manifest["verdict"] != "passed" and not manifest["reason"]:
        yield f"verdict is {manifest['verdict']} and gives no reason"
    if len({tuple(variant["output"]["shape"][1:]) for variant in variants.values()}) > 1:
        yield "its variants give different numbers of classes" if "task" not in manifest else "its variants give different outputs"
    yield from _contradictions_of_task(manifest)
    for variant in variants.values():
        yield from _contradictions_of(variant, manifest["files"])


def _contradictions_of_task(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Preparation, outputs and tolerances that are those of another task."""
    try:
        preprocessing = Preprocessing.from_dict(manifest["preprocessing"])
        task = DenseTask.from_dict(manifest["task"]) if "task" in manifest else None
    except UserError as error:
        yield str(error)
        return
    if task is not None and task.preprocessing() != preprocessing:
        yield "its task and its preprocessing ask for other images"
    kind = task.kind if task is not None else "classification"
    outputs, key = _OF_TASK[kind]
    for variant in manifest["variants"]:
        who, output = f"variant {variant['name']}", variant["output"]
        found = (output["name"], output["dtype"], len(output["shape"]))
        if found not in outputs and (task is not None or found[1:] != outputs[0][1:]):
            yield f"{who}: its output is {output['name']} {output['dtype']} {output['shape']}, which is none of {kind}"
        for name in ("tolerance", "device_tolerance"):
            if variant[name] is not None and key not in variant[name]:
                yield f"{who}: its {name} is none of {kind}"


_OF_TASK: Mapping[str, tuple[tuple[tuple[str, str, int], ...], str]] = {
    "classification": ((("logits", "float32", 2),), "max_abs_logit_diff"),
    "segmentation": ((("logits", "float32", 4), ("classes", "uint8", 3)), "changed_share"),
    "detection": ((("boxes", "float32", 3),), "unmatched_share"),
}
"""Outputs by name, kind of number and dimensions, and a key of the tolerance."""


def _contradictions_of(variant: Mapping[str, Any], listed: Mapping[str, Any]) -> Iterator[str]:
    who, settings = f"variant {variant['name']}", variant["settings"]
    if variant["verdict"] != "passed" and not variant["reason"]:
        yield f"{who}: verdict is {variant['verdict']} and gives no reason"
    if variant["file"] not in listed:
        yield f"{who}: {variant['file']} is not among the files"
    if missing := [key for key in _NEEDED_SETTINGS[variant["runtime"]] if key not in settings]:
        yield f"{who}: settings lack {', '.join(missing)}, which {variant['runtime']} needs"
    if (source := settings.get("source")) is not None:
        if source not in listed:
            yield f"{who}: was built from {source}, which is not among the files"
        elif settings.get("source_sha256") != listed[source]["sha256"]:
            yield f"{who}: stale: was built from another {source} than the bundle holds; build the engine again"


def _shown(value: object) -> str:
    text = json.dumps(value, ensure_ascii=False, default=repr)
    return text if len(text) <= 60 else f"{text[:57]}..."
