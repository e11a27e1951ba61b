"""The work of `g2sd profile`: models that a person names, timed on this machine or on devices."""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from g2sd_deploy.errors import UserError
from g2sd_deploy.profiling.candidate import RUNTIMES, Candidate
from g2sd_deploy.profiling.profile import Profile, layers_of, profile_of
from g2sd_deploy.profiling.sessions import Plan
from g2sd_deploy.profiling.subjects import Wanted, candidates_of
from g2sd_deploy.settings.profile import RuntimeName

if TYPE_CHECKING:
    from g2sd_deploy.devices.options import DeviceOptions
    from g2sd_deploy.progress import Progress

_TITLE = "profile"
_LOCAL = "local"


@dataclass(frozen=True)
class Request:
    """What a person asks for.

    Attributes:
        models: Classifiers, stages' folders, bundles, ONNX files, engines, names of timm.
        plan: Cases and scenarios.
        runtimes: Those to time; empty for every one that fits a model.
        shapes: Sizes of inputs of foreign ONNX files, by name.
        layers: Tell the time of each layer, too.
    """

    models: tuple[str, ...]
    plan: Plan = field(default_factory=Plan)
    runtimes: tuple[RuntimeName, ...] = ()
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    layers: bool = False


def profile_here(request: Request, progress: "Progress") -> Profile:
    """Time models on this machine.

    Returns:
        The profile, as `--json` prints it.

    Raises:
        UserError: A model cannot be opened, or nothing can be timed here.
    """
    with tempfile.TemporaryDirectory(prefix="g2sd-profile.") as scratch:
        wanted = Wanted(request.runtimes, request.shapes, Path(scratch))
        candidates = [one for name in request.models for one in candidates_of(name, wanted)]
        _check_shapes_used(request)
        if request.layers:
            _check_layers(candidates)
        progress.begin(_TITLE)
        try:
            found = profile_of(candidates, request.plan, progress.update)
            if request.layers:
                found["layers"] = layers_of(candidates, request.plan, progress.update)
        except BaseException:
            progress.abort()
            raise
        progress.end()
    return found


def record_here(profile: Profile) -> None:
    """Add a profile to this machine's history.

    Raises:
        UserError: The store cannot be written.
    """
    from g2sd_deploy.devices.store import record

    record(_LOCAL, profile)


def profile_there(request: Request, devices: Sequence[str], tell: Callable[[str], None]) -> tuple[dict[str, Profile], dict[str, str]]:
    """Time bundles on devices, side by side, and add what comes back to their histories.

    Args:
        request: Its models have to be bundles.
        devices: Names in the store, or addresses (`ssh://user@host`).
        tell: Told each line of progress.

    Returns:
        By device: the profiles of those that answered, and why the others did not.

    Raises:
        UserError: A model is no bundle, an option is none for devices, or a device is not known.
    """
    from g2sd_deploy.devices import profile_on
    from g2sd_deploy.devices.store import find, record

    if request.layers:
        raise UserError("--layers: the time of layers is told on this machine alone; leave out --layers or --device")
    bundles = [_bundle_for_a_device(name) for name in request.models]
    places = [find(name) for name in devices]
    profiles: dict[str, Profile] = {}
    failures: dict[str, str] = {}
    *earlier, last = _device_options(request)
    for options in (*(replace(one, keep=True) for one in earlier), last):  # files are copied once for all scenarios
        answered = profile_on([one for one in places if one.name not in failures], bundles, options, tell=tell)
        failures |= answered.failures
        for name, profile in answered.profiles.items():
            record(name, profile)
            profiles[name] = profile if name not in profiles else {**profiles[name], "rows": [*profiles[name]["rows"], *profile["rows"]]}
    return profiles, failures


def runtime_from_name(text: str) -> RuntimeName:
    """One of the names of runtimes.

    Raises:
        UserError: There is none of this name.
    """
    for name in RUNTIMES:
        if name == text:
            return name
    raise UserError(f"--runtime {text}: is none that is known; wanted one of {', '.join(RUNTIMES)}")


def _check_shapes_used(request: Request) -> None:
    """Refuse a size of an input that no file has."""
    if not request.shapes:
        return
    from g2sd_deploy.profiling.raw_onnx import read_raw_onnx

    files = [Path(name).expanduser() for name in request.models if name.lower().endswith(".onnx")]
    known = {one.name for file in files for one in read_raw_onnx(str(file), file, request.shapes).inputs}
    if unknown := [name for name in request.shapes if name not in known]:
        have = f"they have {', '.join(sorted(known))}" if known else "there are none among the models"
        raise UserError(f"--shape {unknown[0]}=...: no ONNX file has such an input; {have}")


def _bundle_for_a_device(name: str) -> Path:
    from g2sd_deploy.predictors import bundle_folder

    folder = bundle_folder(Path(name).expanduser())
    if folder is None:
        raise UserError(
            f"{name}: is no bundle, and only bundles go to a device; make one of it first: g2sd export {name} --on IMAGES --out FOLDER"
        )
    return folder


def _device_options(request: Request) -> "list[DeviceOptions]":
    """One for each scenario."""
    from g2sd_deploy.devices.options import DeviceOptions

    plan = request.plan
    return [
        DeviceOptions(
            batches=plan.batches,
            threads=plan.threads,
            runtimes=tuple(_runtime_of_bundles(name) for name in request.runtimes),
            scenario=scenario,
            rate_per_s=plan.rate_per_s if scenario == "server" else None,
            streams=plan.streams,
            percentile=plan.percentile,
            seconds=plan.seconds,
        )
        for scenario in plan.scenarios
    ]


def _runtime_of_bundles(name: RuntimeName) -> str:
    """As manifests write it."""
    if name.startswith("torch"):
        raise UserError(f"--runtime {name}: bundles hold no weights for torch; name a runtime of the bundle, or leave --runtime out")
    return name.replace("-", "_") if name.startswith("tensorrt") else name.partition("-")[0]


def _check_layers(candidates: Sequence[Candidate]) -> None:
    """Refuse to look for layers where no runtime tells of them, before anything is timed."""
    if not any(one.layers is not None and not one.refusal for one in candidates):
        have = ", ".join(dict.fromkeys(one.runtime for one in candidates))
        raise UserError(f"--layers: no layers are told here by {have}; add --runtime onnxruntime or openvino")
