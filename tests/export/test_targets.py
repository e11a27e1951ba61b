from pathlib import Path

import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.targets import bundled_targets, find_target, load_target

SMALL = """\
name: mine
description: A device.
candidates:
  - {runtime: onnxruntime, precision: fp32}
tolerance:
  fp32: {max_abs_logit_diff: 0.001}
"""


def write(folder: Path, text: str) -> str:
    path = folder / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("path", bundled_targets(), ids=lambda path: path.stem)
def test_every_bundled_target_can_be_read_and_is_named_like_its_file(path: Path) -> None:
    assert load_target(path.stem).name == path.stem


def test_the_devices_that_the_readme_promises_are_there() -> None:
    promised = {"cpu-x86", "cpu-arm", "rtx-30", "rtx-40", "jetson-orin-jp6", "jetson-orin-jp7", "datacenter-h100"}
    assert {path.stem for path in bundled_targets()} == promised


def test_no_number_format_of_a_bundled_target_may_cost_more_than_its_flips_allow() -> None:
    for path in bundled_targets():
        target = load_target(path.stem)
        assert target.tolerance["fp32"].flipped_share <= 1e-4, path.stem
        for tolerance in target.tolerance.values():
            assert 100 * tolerance.flipped_share <= 5, path.stem


def test_engines_for_a_gpu_get_symmetric_int8() -> None:
    for path in bundled_targets():
        target = load_target(path.stem)
        engines = any(candidate.runtime.startswith("tensorrt") for candidate in target.candidates)
        assert (target.int8.scheme == "tensorrt") == engines, path.stem


def test_a_target_of_ones_own_is_read(tmp_path: Path) -> None:
    target = load_target(write(tmp_path, SMALL))
    assert [candidate.name for candidate in target.candidates] == ["fp32-onnxruntime"]
    assert target.tolerance["fp32"].parity().max_abs_logit_diff == 0.001
    assert target.accuracy_budget_points == 0.3


def test_what_a_target_says_decides_its_digest_and_not_how_its_file_looks(tmp_path: Path) -> None:
    first = load_target(write(tmp_path, SMALL)).digest
    assert load_target(write(tmp_path, "# a remark\n" + SMALL)).digest == first
    assert load_target(write(tmp_path, SMALL.replace("0.001", "0.002"))).digest != first


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SMALL + "treads: 2\n", r"mine\.yaml: treads: there is no such key; did you mean threads\?"),
        (SMALL.replace("fp32}", "fp33}"), r"candidates\.0\.precision: Input should be 'fp32'"),
        (SMALL.replace("precision: fp32}", "precision: int8}"), r"tolerance lacks int8"),
        (SMALL + "threads: 0\n", r"threads: Input should be greater than or equal to 1"),
        (SMALL + "batch: {least: 4, best: 2, most: 8}\n", r"least, best and most have to ascend"),
        (SMALL.replace("- {", "- {float_precision: bf16, "), r"float_precision belongs to runtime openvino and precision int8"),
        (SMALL.replace("onnxruntime, ", "openvino, provider: CUDAExecutionProvider, "), r"provider is a setting of onnxruntime"),
        (SMALL.replace("tolerance:", "  - {runtime: onnxruntime, precision: fp32}\ntolerance:"), r"candidates repeat: fp32-onnxruntime"),
        ("name: [\n", r"mine\.yaml: cannot be read as YAML"),
        ("- 1\n", r"holds no target"),
    ],
)
def test_a_target_that_is_wrong_is_refused_in_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        load_target(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_target_can_be_narrowed_to_some_of_its_candidates_and_quantisers() -> None:
    target = load_target("cpu-x86").narrowed(["fp32-openvino", "int8-openvino"], 1)
    assert [candidate.name for candidate in target.candidates] == ["int8-openvino", "fp32-openvino"]
    assert len(target.int8.methods) == 1 and len(load_target("cpu-x86").narrowed([], None).int8.methods) > 1
    with pytest.raises(UserError, match=r"target cpu-x86 has no candidate fp64; its candidates are int8-bf16-openvino, "):
        load_target("cpu-x86").narrowed(["fp64"], None)


def test_a_name_that_is_nearly_right_is_answered_with_the_right_one() -> None:
    with pytest.raises(UserError, match=r"there is no target jetson-orin-jp5; did you mean jetson-orin-jp"):
        find_target("jetson-orin-jp5")
    with pytest.raises(UserError, match=r"bundled targets: cpu-arm, cpu-x86"):
        find_target("zzz")
