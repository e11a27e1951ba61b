"""The published schema and the rules beside it: what they let through and what they refuse; compared with another implementation."""

import copy
import json
from collections.abc import Callable
from typing import Any

import pytest

from g2sd_export.bundle.schema import manifest_problems, manifest_schema

Change = Callable[[dict[str, Any]], object]

# Each breaks the schema itself: what is said, and how.
BROKEN: dict[str, tuple[Change, str]] = {
    "another format": (lambda m: m.update(format=1), "format is 1; wanted 2"),
    "a verdict of one's own": (lambda m: m.update(verdict="ok"), 'verdict is "ok"; wanted one of passed, failed, not_run'),
    "an unknown key": (lambda m: m.update(colour="red"), "colour is not known"),
    "a missing key": (lambda m: m.pop("default"), "the manifest lacks default"),
    "no variants": (lambda m: m.update(variants=[]), "variants has 0 items; wanted 1 or more"),
    "a text for a list": (lambda m: m.update(variants="all"), 'variants is "all"; wanted array'),
    "true for a number": (lambda m: m["files"]["labels.txt"].update(bytes=True), "files.labels.txt.bytes is true; wanted integer"),
    "a negative size": (lambda m: m["files"]["labels.txt"].update(bytes=-1), "files.labels.txt.bytes is -1; wanted at least 0"),
    "half a digest": (lambda m: m["files"]["labels.txt"].update(sha256="ab"), r"files.labels.txt.sha256 is .ab.; wanted text like"),
    "an unlisted card": (lambda m: m["files"].pop("README.md"), "files lacks README.md"),
    "a file outside": (lambda m: m["files"].update({"../x": m["files"]["labels.txt"]}), r"files: the name '../x' is"),
    "an absolute file": (lambda m: m["files"].update({"/x": m["files"]["labels.txt"]}), "files: the name '/x' is"),
    "a climbing model": (lambda m: m["variants"][0].update(file="a/../../b"), r"variants\[0\].file is"),
    "an unknown runtime": (lambda m: m["variants"][0].update(runtime="tflite"), r"variants\[0\].runtime is .tflite.; wanted one of"),
    "a name in capitals": (lambda m: m["variants"][0].update(name="INT8"), r"variants\[0\].name is .INT8."),
    "a share above one": (
        lambda m: m["variants"][0]["tolerance"].update(flipped_share=1.5),
        r"variants\[0\].tolerance.flipped_share is 1.5; wanted at most 1",
    ),
    "half a device tolerance": (
        lambda m: m["variants"][0].update(device_tolerance={"flipped_share": 0}),
        r"variants\[0\].device_tolerance lacks max_abs_logit_diff",
    ),
    "a number for a device tolerance": (lambda m: m["variants"][0].update(device_tolerance=3), r"variants\[0\].device_tolerance is 3"),
    "a shape of three": (lambda m: m["variants"][0]["input"].update(shape=["batch", 3, 8]), "shape has 3 items; wanted 4"),
    "logits in half": (
        lambda m: m["variants"][0]["output"].update(dtype="float16"),
        "output.dtype is .float16.; wanted one of float32, uint8",
    ),
    "a hop without a verdict": (lambda m: m["variants"][0]["hops"][0].pop("verdict"), r"hops\[0\] lacks verdict"),
    "five channels": (lambda m: m["preprocessing"].update(num_channels=5), "num_channels is 5; wanted one of 1, 3"),
    "a deviation of nothing": (lambda m: m["preprocessing"].update(std=[0]), r"preprocessing.std\[0\] is 0; wanted more than 0"),
    "an unnamed licence": (lambda m: m["licences"].update(model=""), "licences.model is .*; wanted some text"),
}

# Each fits the schema and contradicts itself.
CONTRADICTIONS: dict[str, tuple[Change, str]] = {
    "another default": (lambda m: m.update(default="int8-openvino"), "default is 'int8-openvino'; wanted one of fp32-onnxruntime"),
    "two of a name": (lambda m: m["variants"].append(m["variants"][0]), "2 variants have the name fp32-onnxruntime"),
    "failed for no reason": (lambda m: m.update(verdict="failed"), "verdict is failed and gives no reason"),
    "a variant failed for no reason": (
        lambda m: m["variants"][0].update(verdict="not_run"),
        "variant fp32-onnxruntime: verdict is not_run and gives no reason",
    ),
    "a default that failed": (
        lambda m: m["variants"][0].update(verdict="failed", reason="NaN"),
        "verdict is passed and that of its default fp32-onnxruntime is failed",
    ),
    "an unlisted model": (lambda m: m["variants"][0].update(file="models/x.onnx"), "models/x.onnx is not among the files"),
    "no provider": (lambda m: m["variants"][0].update(settings={}), "settings lack provider, which onnxruntime needs"),
    "an engine of nothing": (
        lambda m: m["variants"][0].update(runtime="tensorrt", settings={"source": "models/x.onnx", "source_sha256": "0" * 64}),
        "was built from models/x.onnx, which is not among the files",
    ),
    "a stale engine": (
        lambda m: m["variants"][0].update(runtime="tensorrt", settings={"source": "models/fp32.onnx", "source_sha256": "0" * 64}),
        "stale: was built from another models/fp32.onnx than the bundle holds",
    ),
    "a mean for each of three channels": (lambda m: m["preprocessing"].update(mean=[0.5, 0.5, 0.5]), "mean is .* 1 finite numbers"),
    "a resize below the crop": (lambda m: m["preprocessing"].update(resize_px=20), r"resize_px is 20; it must be at least image_px \(28\)"),
}


def changed(manifest: dict[str, Any], change: Change) -> dict[str, Any]:
    values = copy.deepcopy(manifest)
    change(values)
    return values


def test_what_the_writer_writes_fits(manifest: dict[str, Any]) -> None:
    assert manifest_problems(manifest) == []


@pytest.mark.parametrize("what", [*BROKEN, *CONTRADICTIONS])
def test_a_wrong_manifest_is_refused_in_words(what: str, manifest: dict[str, Any]) -> None:
    change, words = (BROKEN | CONTRADICTIONS)[what]
    problems = manifest_problems(changed(manifest, change))
    assert len(problems) >= 1
    with pytest.raises(AssertionError, match=words):
        raise AssertionError("; ".join(problems))


@pytest.mark.parametrize("value", [None, [], "x", 3])
def test_what_is_no_object_is_refused(value: object) -> None:
    (problem,) = manifest_problems(value)
    assert problem.startswith("the manifest is ") and problem.endswith("; wanted object")


def test_a_share_of_infinitely_many_hops_and_remarks_of_a_passed_variant_fit(manifest: dict[str, Any]) -> None:
    def add(values: dict[str, Any]) -> None:
        values["variants"][0].update(reason="the fastest", latency={"p50_ms": 1.5}, device_tolerance=None)
        values["variants"][0]["hops"] *= 3

    assert manifest_problems(changed(manifest, add)) == []


def test_the_schema_names_itself_and_describes_every_key() -> None:
    schema = manifest_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema" and schema["properties"]["format"]["const"] == 2
    assert set(schema["required"]) == set(schema["properties"]) - {"task"}  # a classifier has none


@pytest.mark.parametrize("what", ["as written", *BROKEN, *CONTRADICTIONS])
def test_another_reader_of_json_schema_judges_alike(what: str, manifest: dict[str, Any]) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="needs the package jsonschema")
    jsonschema.Draft202012Validator.check_schema(manifest_schema())
    values = changed(manifest, BROKEN[what][0]) if what in BROKEN else manifest
    values = changed(manifest, CONTRADICTIONS[what][0]) if what in CONTRADICTIONS else values
    found = list(jsonschema.Draft202012Validator(manifest_schema()).iter_errors(json.loads(json.dumps(values))))
    assert bool(found) == (what in BROKEN)
