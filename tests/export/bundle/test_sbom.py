"""The bill of materials is valid CycloneDX, names every file, and is the same for the same bundle."""

import copy
import hashlib
import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.bundle.sbom import sbom
from g2sd_export.edge.manifest import FileRecord


@pytest.fixture
def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(manifest)


def bill_of(facts: dict[str, Any]) -> dict[str, Any]:
    names = set(facts["files"]) - {"sbom.cdx.json"}
    return sbom(facts, {name: FileRecord(**record) for name, record in facts["files"].items() if name in names})


def validated(bill: dict[str, Any]) -> list[str]:
    """What the CycloneDX project's own validator has against it."""
    pytest.importorskip("jsonschema", reason="needs cyclonedx-python-lib[json-validation]")
    validation = pytest.importorskip("cyclonedx.validation.json", reason="needs cyclonedx-python-lib[json-validation]")
    from cyclonedx.schema import SchemaVersion

    errors = validation.JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill), all_errors=True)
    return [str(error) for error in errors or ()]


def files_of(components: list[dict[str, Any]]) -> dict[str, str]:
    found = {}
    for component in components:
        found |= {component["name"]: component["hashes"][0]["content"]} if "hashes" in component else {}
        found |= files_of(component.get("components", []))
    return found


def test_the_written_bill_is_valid_and_names_every_file_with_its_digest(pristine_bundle: Path, manifest: dict[str, Any]) -> None:
    bill = json.loads((pristine_bundle / "sbom.cdx.json").read_text())
    assert validated(bill) == []
    named = files_of(bill["components"])
    assert set(named) == set(manifest["files"]) - {"sbom.cdx.json"}
    for name, digest in named.items():
        assert digest == hashlib.sha256((pristine_bundle / name).read_bytes()).hexdigest(), name


@pytest.mark.parametrize(
    "licence", ["MIT", "Apache-2.0 AND MIT", "ImageNet terms of access", "unknown", "CC-BY-NC-4.0", "GPL-3.0-or-later", "ODbL-1.0"]
)
def test_any_licence_leaves_it_valid(licence: str, facts: dict[str, Any]) -> None:
    facts["licences"] = dict.fromkeys(facts["licences"], licence)
    assert validated(bill_of(facts)) == []


def test_teacher_data_runtimes_and_numbers_are_in_it(facts: dict[str, Any]) -> None:
    facts["provenance"] |= {"teacher": "mae_vit_base", "data": "imagenette", "tools": {"openvino": "2026.4"}, "seed": 3}
    facts["licences"]["teacher"] = "CC-BY-NC-4.0"
    second = {**facts["variants"][0], "name": "fp32-openvino", "runtime": "openvino", "settings": {"inference_precision": "f32"}}
    facts["variants"].append({**second, "verdict": "not_run", "reason": "no runtime", "latency": {"p50_ms": 4.5, "p99_ms": 5.0}})
    bill = bill_of(facts)
    assert validated(bill) == []
    root = bill["metadata"]["component"]
    (teacher,) = root["pedigree"]["ancestors"]
    assert teacher["name"] == "mae_vit_base" and teacher["licenses"] == [{"license": {"id": "CC-BY-NC-4.0"}}]
    metrics = root["modelCard"]["quantitativeAnalysis"]["performanceMetrics"]
    assert {(metric["type"], metric["value"]) for metric in metrics} == {
        ("top-1 accuracy", "0.810000"),
        ("latency p50_ms", "4.5000"),
        ("latency p99_ms", "5.0000"),
    }
    assert "fp32-openvino is not proven (not_run: no runtime)" in root["modelCard"]["considerations"]["technicalLimitations"]
    components = {component["bom-ref"]: component for component in bill["components"]}
    assert components["pkg:pypi/openvino@2026.4"]["version"] == "2026.4" and "version" not in components["pkg:pypi/onnxruntime"]
    assert components["data"]["data"] == [{"type": "dataset", "name": "imagenette"}]
    (model,) = (one for one in bill["dependencies"] if one["ref"] == "models/fp32.onnx")
    assert model["dependsOn"] == ["pkg:pypi/onnxruntime", "pkg:pypi/openvino@2026.4"]
    assert {"name": "g2sd:seed", "value": 3} not in root["properties"]  # properties are text


def test_every_reference_is_to_a_part_that_is_there_and_no_two_parts_share_one(facts: dict[str, Any]) -> None:
    bill = bill_of(facts)

    def refs(part: dict[str, Any]) -> list[str]:
        inner = [*part.get("components", ()), *part.get("pedigree", {}).get("ancestors", ())]
        return [part["bom-ref"], *(ref for one in inner for ref in refs(one))]

    known = refs(bill["metadata"]["component"]) + [ref for part in bill["components"] for ref in refs(part)]
    assert len(known) == len(set(known))
    assert {ref for one in bill["dependencies"] for ref in (one["ref"], *one["dependsOn"])} <= set(known)


def test_its_serial_number_is_a_function_of_what_it_says(facts: dict[str, Any]) -> None:
    first = bill_of(facts)
    assert bill_of(copy.deepcopy(facts)) == first
    assert uuid.UUID(first["serialNumber"].removeprefix("urn:uuid:")).version == 5
    facts["files"]["models/fp32.onnx"]["sha256"] = "0" * 64
    assert bill_of(facts)["serialNumber"] != first["serialNumber"]
    assert "timestamp" not in first["metadata"]
