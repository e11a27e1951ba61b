"""Look at every image of a dense data set, and at its truth, before a training run does."""

import hashlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import NamedTuple

import numpy as np

from g2sd_deploy.data.dense.annotations import IGNORED, Annotated, DenseSamples
from g2sd_deploy.data.dense.reading import DenseSource, FromFiles
from g2sd_deploy.data.findings import Finding, Problems, finder
from g2sd_deploy.data.images import BadImage
from g2sd_deploy.data.process_pool import map_in_order
from g2sd_deploy.data.verifying import PROBLEMS as IMAGE_PROBLEMS
from g2sd_deploy.data.verifying import Tick, Verified, look_at

# Problem -> how bad it is, and what to do. An error is what training or evaluation stops at or has to skip.
PROBLEMS: Problems = {
    **{name: entry for name, entry in IMAGE_PROBLEMS.items() if entry[0] == "error"},
    "unusable image": ("error", "mend or remove it; training skips it, if data.max_bad_images allows for it"),
    **{name: entry for name, entry in IMAGE_PROBLEMS.items() if entry[0] == "warning"},
    "no pixel of a class": ("warning", "look at the masks and class names; add images if the class matters in this split"),
    "no object of a class": ("warning", "look at the annotations; add images if the class matters in this split"),
    "nothing asked": ("warning", "remove it, or see that its mask is the right one: no pixel of it has a class"),
    "object left out": ("warning", "mend or remove it: nothing of it lies in the image, so neither training nor evaluation sees it"),
    "box beyond the image": ("warning", "see that boxes are left, top, width, height; what lies in the image is used"),
    **{name: entry for name, entry in IMAGE_PROBLEMS.items() if entry[0] == "note"},
    "turned by EXIF": ("warning", "turn the pixels, and see that the annotation fits: the tag is not looked at"),
    "object without a mask": ("note", "nothing for boxes; its mask is taken to be its filled box"),
    "images without objects": ("note", "nothing: they are trained and tested on"),
}
_PER_TASK = 16

noted = finder(PROBLEMS)


class _Looked(NamedTuple):
    """What a worker tells of one image: a digest of its content, its problems with details, and what it shows (None: unusable)."""

    digest: bytes
    problems: list[tuple[str, str]]
    shown: "_Shown | None"


class _Shown(NamedTuple):
    """What is to be seen in an image."""

    kind: str
    classes: frozenset[int]


def verify_dense(source: DenseSource, splits: Sequence[str], *, workers: int, tick: Tick) -> Verified:
    """Look at every image of some splits, and at its truth.

    Args:
        source: The data set.
        splits: Splits to look at.
        workers: Processes; they change nothing in the findings.
        tick: Told how many images are done.

    Returns:
        How many images there are, and the findings: errors first, then warnings, then notes.

    Raises:
        UserError: It cannot be opened, or the place where it lies cannot be read.
        RunFailed: A worker died.
    """
    samples = {split: source.samples(split, None) for split in splits}
    work = partial(_look_at_task, samples)
    with closing(map_in_order(work, _tasks(samples), workers=workers)) as answers:
        findings = _findings(samples, answers, source.class_names, tick)
    return Verified({split: len(some) for split, some in samples.items()}, findings)


def check_split(samples: DenseSamples, tick: Tick, *, class_names: Sequence[str] = ()) -> list[Finding]:
    """What training or evaluation would trip over in one split, looked for in this process.

    Args:
        samples: Its images.
        tick: Told how many images are done.
        class_names: Classes of which one wants to know whether they are there.
    """
    held = {"": samples}
    return _findings(held, (_look_at_task(held, task) for task in _tasks(held)), class_names, tick)


def _findings(
    splits: Mapping[str, DenseSamples], answers: Iterator[list[_Looked]], class_names: Sequence[str], tick: Tick
) -> list[Finding]:
    total, done = sum(map(len, splits.values())), 0
    seen: dict[bytes, tuple[str, str]] = {}
    shown: dict[str, list[_Shown]] = {split: [] for split in splits}
    findings: list[Finding] = []
    for (split, indices), looked in zip(_tasks(splits), answers, strict=True):
        for index, one in zip(indices, looked, strict=True):
            name = splits[split].name(index)
            findings += [noted(problem, name, detail) for problem, detail in one.problems]
            shown[split] += [one.shown] if one.shown else []
            first_split, first = seen.setdefault(one.digest, (split, name))
            if first_split != split:
                findings.append(noted("in two splits", name, f"the same as {first}"))
        done += len(indices)
        tick(done, total)
    findings += [finding for split, some in shown.items() for finding in _of_split(split, some, class_names)]
    rank = {problem: i for i, problem in enumerate(PROBLEMS)}
    return sorted(findings, key=lambda finding: (("error", "warning", "note").index(finding.severity), rank[finding.problem]))


def _of_split(split: str, shown: Sequence[_Shown], class_names: Sequence[str]) -> Iterator[Finding]:
    """What only all images together tell."""
    if not shown:
        return
    kind = shown[0].kind
    present = Counter(label for one in shown for label in one.classes)
    for label, name in enumerate(class_names):
        if not present[label]:
            yield noted(f"no {kind} of a class", f"{split}: {name}" if split else name)
    if kind == "object" and (empty := sum(not one.classes for one in shown)):
        yield noted("images without objects", split or "the split", f"{empty:,} of {len(shown):,}")


def _tasks(splits: Mapping[str, DenseSamples]) -> Iterator[tuple[str, range]]:
    for split, samples in splits.items():
        for start in range(0, len(samples), _PER_TASK):
            yield split, range(start, min(start + _PER_TASK, len(samples)))


def _look_at_task(splits: Mapping[str, DenseSamples], task: tuple[str, range]) -> list[_Looked]:
    """What a worker does: look at some images of one split."""
    split, indices = task
    return [_look_at(splits[split], index) for index in indices]


def _look_at(samples: DenseSamples, index: int) -> _Looked:
    digest, problems = _digest(samples.name(index).encode("utf-8", "surrogateescape")), list[tuple[str, str]]()
    try:
        if isinstance(samples, FromFiles):
            content = samples.content(index)
            digest, problems = _digest(content), look_at(content, samples.name(index))
        if any(PROBLEMS[problem][0] == "error" for problem, _ in problems):
            return _Looked(digest, problems, None)
        annotated = samples.read(index)
        problems += samples.remarks(index) if isinstance(samples, FromFiles) else []
    except BadImage as bad:
        return _Looked(digest, [*problems, ("unusable image", str(bad))], None)
    shown = _shown(annotated)
    if shown.kind == "pixel" and not shown.classes:
        problems.append(("nothing asked", ""))
    return _Looked(digest, problems, shown)


def _shown(annotated: Annotated) -> _Shown:
    if annotated.classes is not None:
        return _Shown("pixel", frozenset(np.unique(annotated.classes).tolist()) - {IGNORED})
    assert annotated.instances is not None
    return _Shown("object", frozenset(annotated.instances.labels.tolist()))


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
