"""Time bundles on devices, several side by side."""

import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from g2sd_deploy.devices.connection import Connection, LostConnection
from g2sd_deploy.devices.copying import Tree, key_of, send, tree_of, tree_of_edge
from g2sd_deploy.devices.device import Device
from g2sd_deploy.devices.merging import profile_from
from g2sd_deploy.devices.options import DeviceOptions, DeviceProfiles
from g2sd_deploy.devices.requirements import venv_for
from g2sd_deploy.errors import Stopped, UserError
from g2sd_export.edge.manifest import MANIFEST, Bundle, Variant, open_bundle

_GIB = 1 << 30


@dataclass(frozen=True)
class Work:
    """What every device is to do.

    Attributes:
        bundles: By digest of the tree: the bundle as the user named it, opened, and the variants to time.
        trees: What has to lie on the device: the bundles, and last the code that measures.
        options: What to time.
    """

    bundles: Mapping[str, tuple[Path, Bundle, Sequence[Variant]]]
    trees: Sequence[Tree]
    options: DeviceOptions

    def job(self, device: Device, platform: str) -> dict[str, Any]:
        """What the detached work on a device reads."""
        runtimes = {variant.runtime for _, _, variants in self.bundles.values() for variant in variants}
        compared = self.options.reference and self.options.scenario == "single_stream"
        return {
            "code": self.trees[-1].digest,
            "bundles": [_asked(digest, *taken, reference=compared) for digest, taken in self.bundles.items()],
            "cases": [
                {"batch": batch, "told": self.options.told(batch), "arguments": self.options.arguments(batch)}
                for batch in self.options.batches
            ],
            "venv": venv_for(runtimes) if device.makes_venv else None,
            "platform": platform,
            "python": device.interpreter,
        }


@dataclass
class _Open:
    """Connections that are open, so that an interruption can end them."""

    connections: list[Connection] = field(default_factory=list)

    def kill(self) -> None:
        for connection in list(self.connections):
            connection.kill()


def profile_on(
    devices: Sequence[Device], bundles: Sequence[Path], options: DeviceOptions, *, tell: Callable[[str], None]
) -> DeviceProfiles:
    """Time bundles on devices, side by side; what is asked again goes on where a lost connection left it.

    Args:
        devices: Where; each once.
        bundles: Folders of bundles.
        options: What to time.
        tell: Told each line of progress, from several threads; it begins with the name of the device.

    Returns:
        Profiles of the devices that answered, and why the others did not.

    Raises:
        UserError: The bundles or the options are wrong, so that no device was asked.
        Stopped: Ctrl-C; benches that were started go on.
    """
    if len({device.name for device in devices}) < len(devices):
        raise UserError("a device is named twice; name each once")
    work = _work(bundles, options)
    found, failures, still_open = {}, {}, _Open()
    with ThreadPoolExecutor(max(1, len(devices))) as pool:
        asked = {device.name: pool.submit(_profile, device, work, still_open, tell) for device in devices}
        try:
            for name, future in asked.items():
                try:
                    found[name] = future.result()
                except UserError as error:
                    failures[name] = str(error)
        except KeyboardInterrupt:
            still_open.kill()
            message = "stopped; benches that were started go on on the devices, and the same command picks them up"
            raise Stopped(signal.SIGINT, message) from None
    return DeviceProfiles(found, failures)


def _work(bundles: Sequence[Path], options: DeviceOptions) -> Work:
    taken, trees = {}, []
    for folder in bundles:
        if not (folder / MANIFEST).is_file():
            raise UserError(f"{folder}: is no bundle, and only bundles go to a device; make one of it first: g2sd export")
        bundle, tree = open_bundle(folder), tree_of(folder)
        taken[tree.digest] = (folder, bundle, _chosen(bundle, options))
        trees.append(tree)
    have = sorted({variant.name for _, bundle, _ in taken.values() for variant in bundle.variants})
    if missing := [name for name in options.variants if name not in have]:
        raise UserError(f"there is no variant {missing[0]!r} in the bundles; they have {', '.join(have)}")
    if not any(variants for _, _, variants in taken.values()):
        raise UserError(f"no variant is left to time with these runtimes and variants; the bundles have {', '.join(have) or 'none'}")
    return Work(taken, [*trees, tree_of_edge()], options)


def _asked(digest: str, path: Path, bundle: Bundle, variants: Sequence[Variant], *, reference: bool) -> dict[str, Any]:
    """One bundle of a job; what float32 variants it has is what others may be compared with."""
    references = sorted(variant.name for variant in variants if variant.precision == "fp32") if reference else []
    return {"tree": digest, "name": str(path), "variants": [variant.name for variant in variants], "references": references}


def _chosen(bundle: Bundle, options: DeviceOptions) -> list[Variant]:
    return [
        variant
        for variant in bundle.variants
        if (not options.variants or variant.name in options.variants) and (not options.runtimes or variant.runtime in options.runtimes)
    ]


def _profile(device: Device, work: Work, still_open: _Open, tell: Callable[[str], None]) -> dict[str, Any]:
    """Everything on one device, from the first login to the last file removed."""

    def told(line: str) -> None:
        tell(f"{device.name}: {line}")

    try:
        with Connection(device, connect_timeout_s=work.options.connect_timeout_s) as connection:
            still_open.connections.append(connection)
            facts = connection.facts
            free_gib = facts["free_bytes"] / _GIB
            told(f"{facts['platform']}, {facts['cpus']} CPUs, Python {facts['python']}, {free_gib:.1f} GiB free in {facts['root']}")
            _copy(connection, work, told)
            job = work.job(device, facts["platform"])
            key = key_of(job)
            result = _follow(connection, key, job, told)
            machine = {key: facts[key] for key in ("system", "machine", "cpus", "python")}
            try:
                if "error" in result:
                    raise UserError(result["error"])
                profile = profile_from(result, work.bundles, work.options, machine)
            finally:
                _tidy(connection, work, key, job, told)
    except UserError as error:
        raise UserError(f"{device.name} ({device.address}): {error}") from error
    return {**profile, "device": {"name": device.name, "address": device.address}}


def _copy(connection: Connection, work: Work, told: Callable[[str], None]) -> None:
    try:
        send(connection, work.trees, told)
    except LostConnection as error:
        raise UserError(f"{error} while files were copied; those that came whole are kept, and the same command goes on") from error


def _follow(connection: Connection, key: str, job: Mapping[str, Any], told: Callable[[str], None]) -> dict[str, Any]:
    try:
        started = connection.request("start", key=key, job=job)
        if started["state"] == "running":
            told("the bench of an earlier call still runs; it is followed, not started anew")
        elif started["state"] == "finished":
            ago_s = max(0.0, time.time() - started["finished_at"])
            told(f"the bench of an earlier call has finished ({ago_s / 60:.0f} minutes ago); its result is taken")
        answer: dict[str, Any] = connection.request("follow", key=key, progress=told)["result"]
    except LostConnection as error:
        raise UserError(f"{error} while the bench ran; it goes on there, and the same command picks it up") from error
    return answer


def _tidy(connection: Connection, work: Work, key: str, job: Mapping[str, Any], told: Callable[[str], None]) -> None:
    """Remove what was put there, unless it is to stay; that something may be left is no reason to lose a result."""
    keep = connection.device.keep or work.options.keep
    venv = [job["venv"]["name"]] if job["venv"] and not (keep or connection.device.make_venv) else []
    try:
        trees = [] if keep else [tree.digest for tree in work.trees]
        left = connection.request("remove", key=key, trees=trees, venvs=venv)["left"]
        if left:
            told(f"left there: {'; '.join(left)}")
    except LostConnection as error:
        told(f"{error} while files were removed; remove the rest with: g2sd devices clean {connection.device.name}")
