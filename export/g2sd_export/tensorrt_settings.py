"""For which GPU, batch sizes and TensorRT an engine is built; every wrong combination is refused before anything slow begins.

Runs on the device too: Python 3.10, nothing but the standard library.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

from .edge.errors import UserError

EngineRuntime = Literal["tensorrt", "tensorrt_rtx"]
RUNTIMES = ("tensorrt", "tensorrt_rtx")
PACKAGES = {"tensorrt": "tensorrt", "tensorrt_rtx": "tensorrt-rtx"}
"""Import name to the name that pip knows."""

HARDWARE = ("none", "ampere_plus", "same_compute_capability")
_MAX_LEVEL = 5
_ENGINE_KEYS = frozenset({"compute_capability", "version_compatible", "hardware_compatible", "refittable", "workspace_mib"})


@dataclass(frozen=True)
class BatchRange:
    """Batch sizes of one optimisation profile.

    Attributes:
        least: Fewest images at a time.
        best: What the kernels are chosen for.
        most: Most images at a time.
    """

    least: int
    best: int
    most: int

    def __post_init__(self) -> None:
        if not 1 <= self.least <= self.best <= self.most:
            raise UserError(f"batch sizes are {self.least}, {self.best}, {self.most}; wanted least, best, most, ascending from 1")


@dataclass(frozen=True)
class EngineSettings:
    """What an engine is built for.

    Attributes:
        runtime: ``tensorrt`` (10.3 and newer), or ``tensorrt_rtx``.
        batches: One optimisation profile each; a graph with a fixed batch takes that alone.
        compute_capabilities: GPU architectures, as ``SM86``. TensorRT for RTX builds for all of them without a GPU, and for every one
            that it supports where none is named; TensorRT builds for the GPU that is there, which must be the one named, if one is.
        workspace_mib: Most memory for a layer's scratch space, in MiB; None leaves it to TensorRT.
        optimisation_level: 0 (quick build) to 5 (quick engine); None leaves it to TensorRT.
        tf32: Lets FP32 matrix products round their operands to 10 bits of mantissa. Off, unlike TensorRT's own default: an engine that
            is called FP32 computes in FP32.
        version_compatible: The engine opens under later versions of TensorRT, which then runs code that the engine brings along.
        hardware_compatibility: ``ampere_plus``: it opens on later GPU architectures too. Both flags cost speed.
        refittable: Its weights can be replaced; see ``tensorrt_refit``.
        timing_cache: File of kernel timings, read and written, which makes building again quick; TensorRT alone has one.
    """

    runtime: EngineRuntime
    batches: tuple[BatchRange, ...] = (BatchRange(1, 1, 64),)
    compute_capabilities: tuple[str, ...] = ()
    workspace_mib: int | None = None
    optimisation_level: int | None = None
    tf32: bool = False
    version_compatible: bool = False
    hardware_compatibility: Literal["none", "ampere_plus", "same_compute_capability"] = "none"
    refittable: bool = False
    timing_cache: Path | None = None

    def __post_init__(self) -> None:
        if self.runtime not in RUNTIMES:
            raise UserError(f"runtime is {self.runtime!r}; wanted {' or '.join(RUNTIMES)}")
        if not self.batches:
            raise UserError("no batch sizes are given; an engine needs at least one range of them")
        if self.hardware_compatibility not in HARDWARE:
            raise UserError(f"hardware compatibility is {self.hardware_compatibility!r}; wanted one of {', '.join(HARDWARE)}")
        if self.workspace_mib is not None and self.workspace_mib < 1:
            raise UserError(f"workspace is {self.workspace_mib} MiB; it must be at least 1")
        if self.optimisation_level is not None and not 0 <= self.optimisation_level <= _MAX_LEVEL:
            raise UserError(f"optimisation level is {self.optimisation_level}; it must be from 0 to {_MAX_LEVEL}")
        object.__setattr__(self, "compute_capabilities", tuple(compute_capability(name) for name in self.compute_capabilities))
        self._check_runtime()

    def _check_runtime(self) -> None:
        """Refuse what one of the two packages does not have: TensorRT for RTX only warns of it, and builds something else."""
        if self.runtime == "tensorrt":
            if len(self.compute_capabilities) > 1:
                raise UserError(f"tensorrt builds for one GPU, and {', '.join(self.compute_capabilities)} are named; name one, or none")
            return
        absent = {
            "version compatibility": self.version_compatible,
            "hardware compatibility": self.hardware_compatibility != "none",
            "a timing cache": self.timing_cache is not None,
        }
        if asked := [name for name, wanted in absent.items() if wanted]:
            raise UserError(
                f"TensorRT for RTX has no {' and no '.join(asked)}: its engines are tuned where they run; "
                "leave that out and name the GPU architectures as compute capabilities"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; without the timing cache, which leaves no trace in the engine."""
        values = dataclasses.asdict(self)
        del values["timing_cache"]
        values["batches"] = [[one.least, one.best, one.most] for one in self.batches]
        values["compute_capabilities"] = list(self.compute_capabilities)
        return values


def compute_capability(name: str) -> str:
    """``SM86`` from ``SM86``, ``sm_86`` or ``8.6``.

    Raises:
        UserError: It is none of these.
    """
    found = re.fullmatch(r"(?:sm_?)?(\d+)\.?(\d)", name.strip().lower())
    if found is None:
        raise UserError(f"compute capability is {name!r}; wanted one as 8.6 or SM86")
    return f"SM{found[1]}{found[2]}"


def settings_from_target(target: Mapping[str, Any], runtime: str | None = None) -> EngineSettings:
    """What a target says of its engines.

    Args:
        target: JSON copy of a target, as a bundle's manifest holds it: ``batch``, ``engine`` and ``candidates`` are read.
        runtime: ``tensorrt`` or ``tensorrt_rtx``; None takes the first of the two among the target's candidates.

    Raises:
        UserError: The target runs no engine, or one of those keys is not as it should be.
    """
    try:
        candidates = [str(one["runtime"]) for one in target.get("candidates", [])]
        batch = BatchRange(**target.get("batch", {"least": 1, "best": 1, "most": 64}))
        engine = dict(target.get("engine", {}))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"the target cannot be read ({type(error).__name__}: {error}); wanted batch, engine and candidates") from error
    chosen = runtime or next((name for name in candidates if name in RUNTIMES), None)
    if chosen is None:
        raise UserError(f"the target {target.get('name', '')} runs no TensorRT engine; its runtimes are {_listed(candidates)}")
    if unknown := sorted(set(engine) - _ENGINE_KEYS):
        raise UserError(f"the target's engine has unknown keys {', '.join(unknown)}; known are {', '.join(sorted(_ENGINE_KEYS))}")
    named = engine.get("compute_capability")
    return EngineSettings(
        runtime=cast(EngineRuntime, chosen),
        batches=(batch,),
        compute_capabilities=() if named is None else (str(named),),
        workspace_mib=engine.get("workspace_mib"),
        version_compatible=bool(engine.get("version_compatible", False)),
        hardware_compatibility="ampere_plus" if engine.get("hardware_compatible") else "none",
        refittable=bool(engine.get("refittable", False)),
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(dict.fromkeys(names)) or "none"
