"""The model card says what the manifest says, to people and to the Hugging Face Hub."""

import copy
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from g2sd_export.bundle.licences import card_licence, cyclonedx_licences
from g2sd_export.bundle.model_card import model_card, top1_of
from g2sd_export.edge.manifest import FileRecord

CLASS_NAMES = ["cat", "dog | wolf"]


@pytest.fixture
def facts(manifest: dict[str, Any]) -> dict[str, Any]:
    return copy.deepcopy(manifest)


def card(facts: dict[str, Any]) -> str:
    records = {name: FileRecord(record["sha256"], record["bytes"]) for name, record in facts["files"].items()}
    return model_card(facts, records, CLASS_NAMES)


def head(text: str) -> dict[str, Any]:
    opening, values, _ = text.split("---\n", 2)
    assert opening == ""
    read: dict[str, Any] = YAML(typ="safe", pure=True).load(values)
    return read


def rows(text: str, heading: str) -> list[list[str]]:
    """Cells of the table under a heading, without its first two lines."""
    part = text.split(f"## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def test_its_head_is_what_the_hub_reads(facts: dict[str, Any]) -> None:
    read = head(card(facts))
    assert (read["license"], read["library_name"], read["pipeline_tag"]) == ("cc-by-nc-4.0", "onnx", "image-classification")
    assert {"onnx", "fp32", "onnxruntime"} <= set(read["tags"])
    (result,) = read["model-index"][0]["results"]
    assert result["metrics"] == [{"type": "accuracy", "value": 0.81, "name": "top-1 of fp32-onnxruntime"}]
    assert result["dataset"]["name"] == "fashion-mnist"


def test_the_hub_s_own_reader_takes_its_head(pristine_bundle: Path) -> None:
    hub = pytest.importorskip("huggingface_hub", reason="needs the package huggingface_hub")
    data = hub.ModelCard.load(pristine_bundle / "README.md").data
    assert data.license == "cc-by-nc-4.0" and data.eval_results[0].metric_value == 0.81


def test_names_that_mean_something_in_yaml_or_markdown_are_text(facts: dict[str, Any]) -> None:
    facts["name"], facts["licences"]["model"] = 'a: "b" # c\\', "my own: licence | yes"
    text = card(facts)
    read = head(text)
    assert (read["license"], read["license_name"]) == ("other", "my own: licence | yes")
    assert read["model-index"][0]["name"] == 'a: "b" # c\\'
    assert ["model", "my own: licence \\| yes"] in rows(text, "Licences") and "cat, dog \\| wolf" in text


def test_without_known_images_no_accuracy_is_told_to_the_hub(facts: dict[str, Any]) -> None:
    del facts["provenance"]["evaluated_on"]
    assert "model-index" not in head(card(facts))


def test_the_numbers_of_each_variant_stand_in_a_row(facts: dict[str, Any]) -> None:
    slow = {**facts["variants"][0], "name": "int8-openvino", "runtime": "openvino", "settings": {"inference_precision": "bf16"}}
    slow |= {"verdict": "failed", "reason": "5 decisions | flip", "hops": [], "latency": {"p50_ms": 11.25, "batch": 1, "threads": 2}}
    facts["variants"].append(slow)
    text = card(facts)
    first, second = rows(text, "Variants")
    assert first[0] == "`fp32-onnxruntime` (default)" and first[4:] == ["81.00% of 100", "not measured", "passed"]
    assert second[0] == "`int8-openvino`" and second[3:6] == [
        "OpenVINO, what stays float in bf16",
        "not measured",
        "11.25 ms (batch 1, threads 2)",
    ]
    assert second[6] == "failed: 5 decisions \\| flip"
    assert "- `int8-openvino` is not proven (failed: 5 decisions | flip)." in text
    assert "pip install numpy pillow onnxruntime\n" in text and "`int8-openvino` (openvino)" in text


def test_a_hop_that_variants_share_stands_once_with_its_numbers(facts: dict[str, Any]) -> None:
    facts["variants"].append({**facts["variants"][0], "name": "fp32-openvino"})
    assert rows(card(facts), "Proof") == [["fp32", "torch", "passed", "100", "0", "1e-06", "1", ""]]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        ("failed", "**PROOF FAILED: do not use this bundle.** because"),
        ("not_run", "**Not proven**: because"),
        ("passed", "**Proof passed**"),
    ],
)
def test_the_verdict_stands_at_the_top(verdict: str, words: str, facts: dict[str, Any]) -> None:
    facts |= {"verdict": verdict, "reason": "because"}
    assert words in card(facts).split("## ")[0]


def test_what_was_tried_and_not_shipped_is_told(facts: dict[str, Any]) -> None:
    tried = {"name": "int8-openvino", "verdict": "failed", "reason": "loses 1.2 points", "top1": 0.798, "drop_points": 1.2, "flipped": 7}
    facts["provenance"]["candidates"] = [{**tried, "chosen": False}]
    assert "| int8-openvino | failed: loses 1.2 points | 79.80% | 1.20 | 7 | no |" in card(facts)


def test_a_licence_that_is_not_known_is_a_limit(facts: dict[str, Any]) -> None:
    assert "- The licence of the teacher is not known" in card(facts)
    facts["licences"]["model"] = "unknown"
    assert "- The licence of the model and the teacher is not known" in card(facts) and head(card(facts))["license"] == "unknown"


def test_the_accuracy_is_that_of_the_last_hop_that_ran() -> None:
    hops = [{"verdict": "passed", "top1_candidate": 0.9, "num_images": 10}, {"verdict": "not_run", "top1_candidate": None}]
    assert top1_of({"hops": hops}) == (0.9, 10)
    assert top1_of({"hops": hops[1:]}) is None and top1_of({"hops": []}) is None


@pytest.mark.parametrize(
    ("licence", "bill", "hub"),
    [
        ("MIT", [{"license": {"id": "MIT"}}], {"license": "mit"}),
        ("GPL-3.0-only", [{"license": {"id": "GPL-3.0-only"}}], {"license": "gpl-3.0"}),
        (
            "Apache-2.0 AND (MIT OR ISC)",
            [{"expression": "Apache-2.0 AND (MIT OR ISC)"}],
            {"license": "other", "license_name": "Apache-2.0 AND (MIT OR ISC)"},
        ),
        ("MIT AND", [{"license": {"name": "MIT AND"}}], {"license": "other", "license_name": "MIT AND"}),
        ("ImageNet terms", [{"license": {"name": "ImageNet terms"}}], {"license": "other", "license_name": "ImageNet terms"}),
        ("unknown", [], {"license": "unknown"}),
    ],
)
def test_licences_are_written_as_each_reader_wants_them(licence: str, bill: list[dict[str, Any]], hub: dict[str, str]) -> None:
    assert cyclonedx_licences(licence) == bill and card_licence(licence) == hub
