"""What an engine may be built for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from g2sd_export.edge.errors import UserError
from g2sd_export.targets import bundled_targets, load_target
from g2sd_export.tensorrt_settings import RUNTIMES, BatchRange, EngineSettings, compute_capability, settings_from_target


@pytest.mark.parametrize("name", ["SM86", "sm86", "sm_86", "8.6", " 8.6 ", "86"])
def test_an_architecture_is_known_by_each_of_its_names(name: str) -> None:
    assert compute_capability(name) == "SM86"
    assert compute_capability("12.0") == "SM120"


@pytest.mark.parametrize("name", ["", "ampere", "8", "SM8.6.1", "CURRENT"])
def test_what_names_no_architecture_is_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"wanted one as 8\.6 or SM86"):
        compute_capability(name)


@pytest.mark.parametrize("sizes", [(0, 1, 2), (2, 1, 4), (1, 8, 4)])
def test_batch_sizes_that_do_not_ascend_are_refused(sizes: tuple[int, int, int]) -> None:
    with pytest.raises(UserError, match="ascending from 1"):
        BatchRange(*sizes)


@pytest.mark.parametrize(
    ("runtime", "wrong", "message"),
    [
        ("onnxruntime", {}, "wanted tensorrt or tensorrt_rtx"),
        ("tensorrt", {"batches": ()}, "at least one range"),
        ("tensorrt", {"workspace_mib": 0}, "workspace is 0 MiB"),
        ("tensorrt", {"optimisation_level": 6}, "from 0 to 5"),
        ("tensorrt", {"hardware_compatibility": "volta"}, "'volta'; wanted one of none, ampere_plus"),
        ("tensorrt", {"compute_capabilities": ("8.6", "8.9")}, "builds for one GPU, and SM86, SM89 are named"),
        ("tensorrt_rtx", {"version_compatible": True}, "has no version compatibility"),
        ("tensorrt_rtx", {"hardware_compatibility": "ampere_plus"}, "has no hardware compatibility"),
        ("tensorrt_rtx", {"timing_cache": Path("timings")}, "has no a timing cache|has no timing cache"),
    ],
)
def test_what_a_package_does_not_have_is_refused_before_the_build(runtime: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        EngineSettings(runtime, **wrong)


def test_every_target_that_ships_is_understood() -> None:
    found = {}
    for path in bundled_targets():
        target = json.loads(json.dumps(load_target(str(path)).to_dict()))
        if any(one["runtime"] in RUNTIMES for one in target["candidates"]):
            found[path.stem] = settings_from_target(target)
        else:
            with pytest.raises(UserError, match=f"the target {path.stem} runs no TensorRT engine; its runtimes are "):
                settings_from_target(target)
    assert found["rtx-30"] == EngineSettings("tensorrt_rtx", (BatchRange(1, 1, 64),), ("SM86",))
    assert found["rtx-40"].compute_capabilities == ("SM89",)
    assert found["jetson-orin-jp6"].workspace_mib == 1024
    assert found["datacenter-h100"].refittable and found["datacenter-h100"].runtime == "tensorrt"


def test_a_target_from_elsewhere_is_read_strictly() -> None:
    engine = {"version_compatible": True, "hardware_compatible": True}
    settings = settings_from_target({"engine": engine, "batch": {"least": 1, "best": 4, "most": 8}}, "tensorrt")
    assert (settings.version_compatible, settings.hardware_compatibility, settings.batches) == (True, "ampere_plus", (BatchRange(1, 4, 8),))
    with pytest.raises(UserError, match="unknown keys refitable"):
        settings_from_target({"engine": {"refitable": True}}, "tensorrt")
    with pytest.raises(UserError, match="cannot be read"):
        settings_from_target({"batch": {"size": 1}}, "tensorrt")


def test_settings_become_json_without_the_path_of_the_timing_cache() -> None:
    settings = EngineSettings("tensorrt", (BatchRange(1, 2, 4), BatchRange(8, 8, 8)), ("8.7",), timing_cache=Path("/somewhere/timings"))
    values = json.loads(json.dumps(settings.to_dict()))
    assert values["batches"] == [[1, 2, 4], [8, 8, 8]]
    assert values["compute_capabilities"] == ["SM87"]
    assert "somewhere" not in json.dumps(values)
