"""``python -m g2sd_export``: build TensorRT engines where they will run, from an ONNX file or from a bundle, without torch.

Exit status: 0 done, 2 a mistake in what was asked, or a file that TensorRT refuses (one line on stderr).
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .edge.command_line import Parser, refuse
from .edge.errors import UserError
from .tensorrt_build import EngineInfo, build_engine
from .tensorrt_settings import HARDWARE, RUNTIMES, BatchRange, EngineSettings, settings_from_target

_PROGRAM = "g2sd_export"
_MIB = 1 << 20


def main(argv: Sequence[str] | None = None) -> int:
    """Parse, call one function, write its result to stdout.

    Args:
        argv: Arguments without the program's name; None takes those of the process.

    Returns:
        The exit status.
    """
    arguments = _parser().parse_args(argv)
    try:
        arguments.command(arguments)
    except UserError as error:
        return refuse(_PROGRAM, str(error))
    except ModuleNotFoundError as error:
        return refuse(_PROGRAM, f"the Python package {error.name} is not installed; install it with: pip install {error.name}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog=_PROGRAM, description="Build TensorRT engines where they will run.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)

    build = commands.add_parser("build", help="build an engine from an ONNX file, or the engines of a bundle")
    build.set_defaults(command=_build)
    build.add_argument("model", type=Path, metavar="BUNDLE_OR_ONNX", help="a bundle's folder or an ONNX file")
    build.add_argument("--out", type=Path, metavar="PATH", help="the engine; for a bundle a new folder (default: the bundle itself)")
    build.add_argument("--variant", action="append", default=[], metavar="NAME", help="a bundle's variant; may be repeated (default: all)")
    build.add_argument("--default", default="", metavar="NAME", help="make this variant the bundle's default")
    build.add_argument("--target-json", type=Path, metavar="FILE", help="a target as JSON (default: the bundle's own)")
    build.add_argument("--layers", type=Path, metavar="FILE", help="write the engine's layers as JSON")
    _add_settings(build)

    refit = commands.add_parser("refit", help="put the weights of another student of the same shape into an engine")
    refit.set_defaults(command=_refit)
    refit.add_argument("engine", type=Path, metavar="ENGINE", help="built with --refittable")
    refit.add_argument("model", type=Path, metavar="ONNX", help="the same graph with other weights")
    refit.add_argument("--out", type=Path, required=True, metavar="ENGINE", help="the new engine")
    refit.add_argument("--runtime", choices=RUNTIMES, default="tensorrt", help="the package that built it (default tensorrt)")

    for command in (build, refit):
        command.add_argument("--json", action="store_true", help="write one JSON object instead of text")
    return parser


def _add_settings(build: argparse.ArgumentParser) -> None:
    """Options that take the place of what the target says."""
    build.add_argument("--runtime", choices=RUNTIMES, help="which TensorRT (default: the target's, else tensorrt)")
    build.add_argument("--compute-capability", action="append", metavar="SM", help="GPU architecture, as SM86 or 8.6; may be repeated")
    build.add_argument(
        "--batch",
        nargs=3,
        type=int,
        action="append",
        metavar=("LEAST", "BEST", "MOST"),
        help="batch sizes of an optimisation profile; may be repeated",
    )
    build.add_argument("--workspace-mib", type=int, metavar="N", help="most scratch memory for a layer")
    build.add_argument("--optimisation-level", type=int, metavar="N", help="0 (quick build) to 5 (quick engine)")
    build.add_argument("--timing-cache", type=Path, metavar="FILE", help="kernel timings, read and written (tensorrt)")
    build.add_argument("--hardware-compatibility", choices=HARDWARE, help="run on other GPU architectures too (tensorrt)")
    build.add_argument("--version-compatible", action="store_true", default=None, help="run under later TensorRT versions too (tensorrt)")
    build.add_argument("--refittable", action="store_true", default=None, help="weights can be replaced")
    build.add_argument("--tf32", action="store_true", default=None, help="let FP32 products round their operands to TF32")


def _build(arguments: argparse.Namespace) -> None:
    if arguments.model.is_dir():
        _build_bundle(arguments)
        return
    if arguments.out is None or arguments.variant or arguments.default:
        raise UserError(f"{arguments.model} is no bundle's folder; name the engine with --out, and leave out --variant and --default")
    target = {} if arguments.target_json is None else _read_json(arguments.target_json)
    info = build_engine(arguments.model, _settings(arguments, target), path=arguments.out)
    _write_layers(arguments.layers, info.layers.to_dict())
    _write(info.to_dict(), _told(info), as_json=arguments.json)


def _build_bundle(arguments: argparse.Namespace) -> None:
    from .edge.manifest import read_manifest
    from .tensorrt_bundle import build_into

    own = read_manifest(arguments.model)[0]["target"]
    settings = _settings(arguments, own if arguments.target_json is None else _read_json(arguments.target_json))
    built = build_into(arguments.model, settings, variants=arguments.variant, default=arguments.default, out=arguments.out)
    _write_layers(arguments.layers, {one.variant: one.info.layers.to_dict() for one in built})
    lines = [line for one in built for line in (f"{one.variant}, from {one.source}", *_told(one.info))]
    lines.append(f"now run, inside {arguments.out or arguments.model}: python -m edge selftest --variant {built[0].variant}")
    _write({"engines": [one.to_dict() for one in built]}, lines, as_json=arguments.json)


def _settings(arguments: argparse.Namespace, target: dict[str, Any]) -> EngineSettings:
    """The target's settings with what was named on the command line in their place."""
    settings = settings_from_target(target, arguments.runtime or (None if target else "tensorrt"))
    named: dict[str, Any] = {
        "compute_capabilities": None if arguments.compute_capability is None else tuple(arguments.compute_capability),
        "batches": None if arguments.batch is None else tuple(BatchRange(*sizes) for sizes in arguments.batch),
    }
    plain = ("workspace_mib", "optimisation_level", "timing_cache", "hardware_compatibility", "version_compatible", "refittable", "tf32")
    named.update({name: getattr(arguments, name) for name in plain})
    return dataclasses.replace(settings, **{name: value for name, value in named.items() if value is not None})


def _refit(arguments: argparse.Namespace) -> None:
    from .tensorrt_refit import refit_engine

    info = refit_engine(arguments.engine, arguments.model, runtime=arguments.runtime, path=arguments.out)
    _write(info.to_dict(), [f"engine   {info.path}, {info.bytes / _MIB:.1f} MiB, sha256 {info.sha256}"], as_json=arguments.json)


def _told(info: EngineInfo) -> list[str]:
    """What a person wants to know of an engine; above all, what does not compute as it was asked."""
    weights = "" if info.weights_bytes is None else f" ({info.weights_bytes / _MIB:.1f} MiB of weights)"
    where = ", ".join(info.compute_capabilities) or "every architecture of the package"
    ran = ", ".join(f"{number} in {name}" for name, number in info.layers.ran.items()) or "unknown"
    lines = [
        f"engine   {info.path}, {info.bytes / _MIB:.1f} MiB{weights}, sha256 {info.sha256}",
        f"for      {where}, {info.settings.runtime} {info.version}" + (f", on {info.gpu}" if info.gpu else ""),
        f"layers   {len(info.layers.layers)}; matrix products and convolutions: {ran} (by the {info.layers.source})",
    ]
    lines += [f"fell back: {one}" for one in info.layers.fell_back]
    lines += [f"not found in the engine: {node}" for node in info.layers.unseen]
    return lines


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error}); wanted a target, as a bundle's manifest holds it") from error
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds no JSON object; wanted a target, as a bundle's manifest holds it")
    return values


def _write_layers(path: Path | None, values: dict[str, Any]) -> None:
    if path is not None:
        path.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _write(values: dict[str, object], lines: Sequence[str], *, as_json: bool) -> None:
    sys.stdout.write(json.dumps(values) + "\n" if as_json else "\n".join(lines) + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
