"""ImageNet-C: CORRUPTION/SEVERITY/CLASS folders of the same images, stored at 224 px, which are cropped and never resized.

Source: hendrycks/robustness@8190fe3, ImageNet-C/test.py (CenterCrop(224), ToTensor, Normalize).
"""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

from g2sd_deploy.data.corruptions import EXTRA_CORRUPTIONS, MEAN_CORRUPTIONS, SEVERITIES
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.testsets.class_folders import ClassFolders, entries, is_image, list_class_folders, refuse_images
from g2sd_deploy.data.testsets.protocols import KnownSet
from g2sd_deploy.errors import UserError

_GROUPS = ("noise", "blur", "weather", "digital", "extra")
"""Folders that some people unpack the archives into."""


@dataclass(frozen=True)
class Case:
    """The images of one corruption and severity."""

    corruption: str
    severity: int
    samples: FileSamples


@dataclass(frozen=True)
class Cases:
    """What there is of ImageNet-C.

    Attributes:
        cases: In the order of the corruptions and severities; the same images in the same order in each.
        num_images: Images of each case before a limit.
        note: What is missing or in no mean; empty where nothing.
        num_ignored: Files that are no images.
    """

    cases: tuple[Case, ...]
    num_images: int
    note: str
    num_ignored: int


def find_cases(known: KnownSet, place: Path, limit: int | None) -> Cases:
    """List every severity of every corruption that there is.

    Args:
        known: The set.
        place: Its folder.
        limit: Images of each case; they are spread evenly, and the same ones in each.

    Raises:
        UserError: There is none, or one lacks images that another one has, or holds what is no part of the set.
    """
    folders = _case_folders(known, _root(known, place))
    cases: list[Case] = []
    reference: tuple[str, bytes] | None = None
    num_images = num_ignored = 0
    for (corruption, severity), folder in folders.items():
        listed = list_class_folders(known, folder)
        case, names = f"{corruption}/{severity}", _digest(listed)
        if reference is not None and names != reference[1]:
            raise UserError(
                f"{folder}: has other images than {reference[0]}, so a mean over both would compare different images; "
                f"`g2sd data check {known.name} {place}` tells which"
            )
        reference = reference or (case, names)
        samples = listed.samples(limit)
        cases.append(Case(corruption, severity, _sharing(samples, cases[0].samples) if cases else samples))
        num_images, num_ignored = len(listed.names), num_ignored + listed.num_ignored
    return Cases(tuple(cases), num_images, _note(known, [(case.corruption, case.severity) for case in cases]), num_ignored)


def _root(known: KnownSet, place: Path) -> Path:
    """The folder of the corruptions."""
    for inside in known.inside:
        if _corruption_folders(known, place / inside):
            return place / inside
    raise UserError(
        f"{place}: holds no folder CORRUPTION/SEVERITY of {known.name}, such as {known.corruptions[0]}/1; give the folder of the set, or "
        f"fetch it with `g2sd data pull {known.name}`"
    )


def _corruption_folders(known: KnownSet, root: Path) -> dict[str, Path]:
    """Folder of each corruption that is there; also where the archives' groups have folders of their own."""
    places = [root, *(root / group for group in _GROUPS)]
    found: dict[str, Path] = {}
    for name in known.corruptions:
        there = [place / name for place in places if (place / name).is_dir()]
        if len(there) > 1:
            raise UserError(f"{there[1]}: is also {there[0]}; keep one of the two folders")
        if there:
            found[name] = there[0]
    return found


def _case_folders(known: KnownSet, root: Path) -> dict[tuple[str, int], Path]:
    """Folder of each severity of each corruption, in order; whatever else holds images is refused."""
    folders = _corruption_folders(known, root)
    above = {folder.parent for folder in folders.values()}
    for parent in sorted({root, *above}):
        for name, is_folder in entries(parent):
            own = parent / name in folders.values() or parent / name in above
            if not own:
                _refuse(parent / name, is_folder, f"is no corruption of {known.name}")
    cases: dict[tuple[str, int], Path] = {}
    for corruption, folder in folders.items():
        there = dict(entries(folder))
        for name, is_folder in there.items():
            if name not in map(str, SEVERITIES):
                _refuse(folder / name, is_folder, "is no severity from 1 to 5")
        cases |= {(corruption, severity): folder / str(severity) for severity in SEVERITIES if there.get(str(severity))}
    return cases


def _refuse(path: Path, is_folder: bool, what: str) -> None:
    if is_folder:
        refuse_images(path, what)
    elif is_image(path.name):
        raise UserError(f"{path}: is an image outside of the class folders; move it out of the set's folder")


def _digest(listed: ClassFolders) -> bytes:
    """Of the names of all images, below the folder of the case."""
    return hashlib.sha256("\n".join(listed.names).encode("utf-8", "surrogateescape")).digest()


def _sharing(samples: FileSamples, first: FileSamples) -> FileSamples:
    """The same samples with the names and labels of the first case, which are equal, in its memory: 75 cases would hold 75 copies."""
    shared = {name: first.listing.arrays[name] for name in ("names", "name_ends", "labels")}
    return FileSamples(replace(samples.listing, arrays={**samples.listing.arrays, **shared}))


def _note(known: KnownSet, there: list[tuple[str, int]]) -> str:
    have = {corruption for corruption, _ in there}
    wanted = [name for name in known.corruptions if name in MEAN_CORRUPTIONS] or list(known.corruptions)
    parts = []
    if missing := [name for name in wanted if name not in have]:
        parts.append(f"without {', '.join(missing)}")
    if cut := [f"{name}/{severity}" for name in have for severity in SEVERITIES if (name, severity) not in there]:
        parts.append(f"without {', '.join(sorted(cut))}")
    if parts and wanted != list(known.corruptions):
        parts.append("so there is no mCE")
    if wanted != list(known.corruptions) and (extra := [name for name in EXTRA_CORRUPTIONS if name in have]):
        parts.append(f"{', '.join(extra)} are extra and in no mean")
    return "; ".join(parts)
