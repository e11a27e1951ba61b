"""Ways of running a model, with the accuracy of the very file: read from bundles and from the exports of runs."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.errors import UserError

if TYPE_CHECKING:
    from g2sd_export.bundle import Bundle, Variant

EXPORT, PROFILE, BUNDLE, MANIFEST = "export", "profile", "bundle", "manifest.json"


@dataclass(frozen=True)
class Images:
    """What an accuracy is of: the same trained weights on the same images can be compared image by image.

    Attributes:
        weights: Digest of the student as it was trained.
        where: Which images, for people.
        num: How many.
    """

    weights: str
    where: str
    num: int


@dataclass(frozen=True)
class Accuracy:
    """Top-1 of one file.

    Attributes:
        images: What it is of.
        hits: Images that it gets right.
        lost: Images that the trained student gets right and this one may not: of merging and of the number format together, so no fewer
            than there are.
        gained: The other way round.
    """

    images: Images
    hits: int
    lost: int
    gained: int

    @property
    def top1(self) -> float:
        """A share in [0, 1]."""
        return self.hits / self.images.num

    @property
    def interval(self) -> tuple[float, float]:
        """95 %, by Wilson's formula."""
        from g2sd_deploy.evaluation.intervals import wilson_interval

        return wilson_interval(self.hits, self.images.num)


@dataclass(frozen=True)
class Point:
    """A way of running a model.

    Attributes:
        model: Name of the run or bundle.
        variant: As in the bundle: number format and runtime.
        precision: Number format.
        runtime: Who computes.
        merged_per_block: Tokens that each block merges.
        bundle: Digest of the bundle.
        accuracy: Of the file; None where it is not known.
        file_bytes: Size of the model file.
        why_not: Why it is not to be chosen, whatever its latency; empty where it may be.
    """

    model: str
    variant: str
    precision: str
    runtime: str
    merged_per_block: int
    bundle: str
    accuracy: Accuracy | None
    file_bytes: int | None
    why_not: str = ""

    @property
    def name(self) -> str:
        """Of run and variant, and what it merges."""
        return f"{self.model} {self.variant}" + (f" (merging {self.merged_per_block})" if self.merged_per_block else "")


@dataclass(frozen=True)
class Found:
    """What one argument of the command holds.

    Attributes:
        model: Its name.
        folder: The bundle.
        points: Every candidate of the export.
        profile: What the run's profile stage measured; None where there is none.
        race: Latency by variant, as it was measured while exporting; empty where that is not known.
    """

    model: str
    folder: Path
    points: tuple[Point, ...]
    profile: Mapping[str, Any] | None
    race: Mapping[str, Mapping[str, Any]]


def gather(arguments: Sequence[Path]) -> list[Found]:
    """Open runs, export stages and bundles.

    Raises:
        UserError: One is none of these, was changed, or comes twice.
    """
    names = Counter(path.resolve().name for path in arguments)
    found = [_open(path, path.resolve().name if names[path.resolve().name] == 1 else str(path)) for path in arguments]
    for one, other in ((one, other) for at, one in enumerate(found) for other in found[:at]):
        if one.points and other.points and one.points[0].bundle == other.points[0].bundle:
            raise UserError(f"{one.model} and {other.model} hold the same bundle; name each once")
    return found


def _open(path: Path, name: str) -> Found:
    if (path / MANIFEST).is_file():
        return _found(path, name, None, None)
    for folder in (path / EXPORT, path):
        artifact = read_artifact(folder) if folder.is_dir() else None
        if artifact is not None and artifact.stage == EXPORT:
            profile = read_artifact(folder.parent / PROFILE)
            return _found(folder / BUNDLE, name, artifact, profile)
    if not path.exists():
        raise UserError(f"{path}: there is no such folder; give the folder of a run, of its export, or a bundle")
    raise UserError(f"{path}: holds no export that is finished; give the folder of a run with one, its export stage, or a bundle")


def _found(folder: Path, name: str, export: Artifact | None, profile: Artifact | None) -> Found:
    from g2sd_export.bundle import open_bundle

    bundle = open_bundle(folder)
    if bundle.task is not None:
        raise UserError(
            f"{name}: its model is one of {bundle.task.kind}, and the front is of top-1, which classifiers have; its figures and latencies "
            f"are side by side in `g2sd bundle show {folder}`"
        )
    of_bundle = profile is not None and export is not None and profile.parents.get(EXPORT) == export.digest
    rows = profile.metrics if profile is not None and of_bundle and isinstance(profile.metrics.get("rows"), list) else None
    race = export.metrics.get("latency", {}) if export is not None else {}
    return Found(name, folder, tuple(_points(bundle, name)), rows, race)


def _points(bundle: "Bundle", name: str) -> list[Point]:
    """Variants of the bundle, and candidates that did not get into it."""
    made = [_variant_point(bundle, variant, name) for variant in bundle.variants]
    have = {point.variant for point in made}
    tried = [one for one in bundle.provenance.get("candidates") or () if one["name"] not in have]
    return [*made, *(_candidate_point(bundle, one, name) for one in tried)]


def _variant_point(bundle: "Bundle", variant: "Variant", name: str) -> Point:
    point = Point(
        model=name,
        variant=variant.name,
        precision=variant.precision,
        runtime=variant.runtime,
        merged_per_block=_merged(bundle),
        bundle=bundle.digest,
        accuracy=_accuracy(bundle, variant),
        file_bytes=bundle.files[variant.file].bytes,
    )
    if variant.verdict == "failed" or bundle.verdict == "failed":
        return replace(point, why_not=f"its proof failed: {variant.reason or bundle.reason}")
    if variant.verdict == "not_run":
        return replace(point, why_not=f"its accuracy was not measured: {variant.reason}")
    return point if point.accuracy is not None else replace(point, why_not="its proof holds no accuracy")


def _candidate_point(bundle: "Bundle", tried: Mapping[str, Any], name: str) -> Point:
    why = tried.get("reason") or "it passed, but the target ships its default alone"
    told = {"failed": f"its proof failed: {why}", "not_run": f"its accuracy was not measured: {why}"}.get(tried["verdict"], why)
    return Point(
        model=name,
        variant=tried["name"],
        precision=tried["precision"],
        runtime=tried["runtime"],
        merged_per_block=_merged(bundle),
        bundle=bundle.digest,
        accuracy=None,
        file_bytes=tried.get("file_bytes"),
        why_not=told,
    )


def _merged(bundle: "Bundle") -> int:
    """Tokens that each block of the model merges."""
    return int((bundle.provenance.get("token_merging") or {}).get("merged_per_block", 0))


def _accuracy(bundle: "Bundle", variant: "Variant") -> Accuracy | None:
    """From the last comparison of the proof, of the file with the torch model, and what that lost by merging tokens."""
    whole = variant.hops[-1] if variant.hops else None
    if whole is None or whole.get("top1_candidate") is None or not whole.get("num_images"):
        return None
    provenance, num = bundle.provenance, int(whole["num_images"])
    images = Images(str(provenance.get("weights_sha256", bundle.digest)), str(provenance.get("evaluated_on", "")), num)
    changes = [whole.get("drop"), (provenance.get("token_merging") or {}).get("drop")]
    lost, gained = (sum(int(one[key]) for one in changes if one) for key in ("lost", "gained"))
    return Accuracy(images, round(float(whole["top1_candidate"]) * num), lost, gained)


def difference(better: Accuracy, other: Accuracy) -> tuple[float, float, float]:
    """Accuracy of the first minus that of the second, with its 95 % interval.

    Of the same student on the same images it is paired, through the trained student with which both were compared: at most so many images
    can have changed sides as changed for either. Else the two are independent samples.

    Returns:
        Difference, low and high, as shares.

    Source: Tango 1998 for pairs; Newcombe 1998, method 10, for independent shares.
    """
    gap = better.top1 - other.top1
    if better.images == other.images:
        from g2sd_export.paired import score_interval

        lost, gained = other.lost + better.gained, other.gained + better.lost
        if lost - gained == better.hits - other.hits and lost + gained <= better.images.num:
            return (gap, *score_interval(lost, gained, better.images.num))
    (low, high), (other_low, other_high) = better.interval, other.interval
    down = math.hypot(better.top1 - low, other_high - other.top1)
    up = math.hypot(high - better.top1, other.top1 - other_low)
    return gap, gap - down, gap + up
