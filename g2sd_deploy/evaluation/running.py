"""One pass over images: each is read and decoded once, for all models, variants and ways to score.

The batches are shared out to threads, each of which decodes its images and runs every model on them on one core. On a CPU that is up to
twice as fast as one forward pass on all cores: small batches stay in the caches, and no core waits for another one. Which images make a
batch does not depend on the number of threads or processes, so no figure does.
"""

import zlib
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache, partial
from itertools import islice
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, UInt8

from g2sd_deploy.data.decoding import fit_to_all
from g2sd_deploy.data.images import BadImage, Samples, Skipped
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.evaluation.outcomes import Outcomes, concatenate, outcomes_of
from g2sd_deploy.evaluation.variants import Batch, Clean, Variant, geometry
from g2sd_deploy.ranks import Ranks
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Runner

Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""
Salience = Callable[[UInt8[np.ndarray, "batch height width channels"]], Float64[np.ndarray, "batch patches"]]
"""From images of the teacher's size to the importance of each patch."""

_PIXELS_AT_ONCE = 401_408
"""Of a batch on a CPU: 8 images of 224 px, whose activations stay in the cache of one core."""
_LARGEST_BATCH = 512
GPU_BATCH = 256
_NAMED = 3
_ROWS_AT_ONCE = 200_000
"""Outcomes held before they are handed over: about 20 MB."""


@runtime_checkable
class View(Protocol):
    """How the logits of one model are scored on one set of images."""

    @property
    def columns(self) -> Int64[np.ndarray, "kept"] | None:
        """Logits that are kept, in this order; None keeps all."""
        ...

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        """Right class of every image among the kept logits; -1 where it is not scored."""
        ...

    def right(self, indices: Int64[np.ndarray, "batch"]) -> Bool[np.ndarray, "batch kept"] | None:
        """Right classes of some images where there are several; None where `labels` says it."""
        ...


class Case(NamedTuple):
    """Whose outcomes: of a scoring of the images, a variant of them ("" is clean) and a model."""

    scoring: str
    variant: str
    model: str


@dataclass(frozen=True)
class Pass:
    """What is to be run.

    Attributes:
        samples: The images.
        runners: Models by name; safe to be called by several threads.
        views: How each model is scored, by the name of the scoring and of the model.
        picks: Images that are looked at, by index, ascending; None for all.
        as_stored: Images are cropped, not resized.
        variants: What is done to the images.
        teacher: The model that the others are compared with.
        salience: Tells the variants how important patches are to the teacher, of which `salience_fit` is the preprocessing.
        batch_size: Images of a batch; None chooses what suits a CPU.
        max_bad: Images that may be unusable; they are left out and counted.
    """

    samples: Samples
    runners: Mapping[str, Runner]
    views: Mapping[str, Mapping[str, View]]
    picks: Int64[np.ndarray, "picks"] | None = None
    as_stored: bool = False
    variants: Sequence[Variant] = (Clean(),)
    teacher: str | None = None
    salience: Salience | None = None
    salience_fit: Preprocessing | None = None
    batch_size: int | None = None
    max_bad: int = 0


@dataclass(frozen=True)
class Passed:
    """What was found of some images that follow one another.

    Attributes:
        outcomes: One row per scored image, in the order of the set.
        index: Which image each of these rows is, by scoring.
        skipped: Images that could not be used.
    """

    outcomes: Mapping[Case, Outcomes]
    index: Mapping[str, Int64[np.ndarray, "num"]]
    skipped: tuple[Skipped, ...]


@dataclass
class _Found:
    """What one batch gave."""

    outcomes: dict[Case, Outcomes] = field(default_factory=dict)
    index: dict[str, Int64[np.ndarray, "num"]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def batch_size_for(runners: Mapping[str, Runner]) -> int:
    """Images of a batch on a CPU that suit the largest input."""
    largest = max(runner.preprocessing.image_px for runner in runners.values())
    return max(1, min(_LARGEST_BATCH, _PIXELS_AT_ONCE // largest**2))


def run_pass(asked: Pass, *, workers: int, tick: Tick, ranks: Ranks | None = None) -> Iterator[Passed]:
    """Show every image to every model.

    Args:
        asked: What to run.
        workers: Threads; they change no figure.
        tick: Told how far this process is, in images.
        ranks: The processes that share the work; every one gets all of the result.

    Yields:
        What was found of some images after the other, in the order of the set, so that memory does not grow with their number.

    Raises:
        RunFailed: More images are unusable than allowed, or a model gives logits that are no numbers or of another shape.
        UserError: The place where the images lie cannot be read.
    """
    ranks = ranks or Ranks()
    picks = np.arange(len(asked.samples), dtype=np.int64) if asked.picks is None else asked.picks
    size = asked.batch_size or batch_size_for(asked.runners)
    batches = [picks[start : start + size] for start in range(0, len(picks), size)]
    per_chunk = max(1, _ROWS_AT_ONCE // (size * len(asked.views) * len(asked.variants) * len(asked.runners)))
    own = batches[ranks.rank :: ranks.num]
    results = _in_threads(partial(_run_batch, asked), own, workers)
    done, total = 0, sum(map(len, own))
    skipped: list[Skipped] = []
    tick(0, total)
    for start in range(0, len(batches), per_chunk):
        numbers = range(start, min(start + per_chunk, len(batches)))
        found: list[_Found] = []
        error: RunFailed | UserError | None = None
        try:
            for number in (number for number in numbers if number % ranks.num == ranks.rank):
                found.append(next(results))
                done += len(batches[number])
                tick(done, total)
        except (RunFailed, UserError) as failed:
            error = failed
        shares, errors = zip(*ranks.gather((found, error)), strict=True)
        if first := next((one for one in errors if one is not None), None):
            raise ranks.told_once(first)
        queues = [iter(share) for share in shares]
        in_order = [next(queues[number % ranks.num]) for number in numbers]
        chunk = _passed(in_order)
        skipped += chunk.skipped
        if len(skipped) > asked.max_bad:
            raise ranks.told_once(_too_many_bad(asked, skipped))
        yield chunk


def _in_threads(work: Callable[[np.ndarray], _Found], batches: Sequence[np.ndarray], workers: int) -> Iterator[_Found]:
    """Results in order; only a few batches are under way at a time, so that memory does not grow with their number."""
    waiting: deque[Future[_Found]] = deque()
    rest, before = iter(batches), torch.get_num_threads()
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:  # torch keeps it for each thread
        try:
            waiting.extend(pool.submit(work, batch) for batch in islice(rest, 2 * workers))
            while waiting:
                yield waiting.popleft().result()
                waiting.extend(pool.submit(work, batch) for batch in islice(rest, 1))
        finally:
            pool.shutdown(cancel_futures=True)
            torch.set_num_threads(before)  # what threads that begin later take


def _run_batch(asked: Pass, indices: Int64[np.ndarray, "batch"]) -> _Found:
    found = _Found()
    usable, images = _decoded(asked, indices, found)
    if not len(usable):
        return found
    batch = Batch(_keys(asked.samples, usable), _salience_of(asked, images))
    for scoring, views in asked.views.items():
        found.index[scoring] = usable[_scored(views, usable)]
    for variant in asked.variants:
        logits = _logits(asked, variant, images, batch)
        for scoring in asked.views:
            found.outcomes.update(_reduced(asked, logits, usable, scoring, variant.name))
    return found


def _decoded(asked: Pass, indices: np.ndarray, found: _Found) -> tuple[np.ndarray, dict[Hashable, np.ndarray]]:
    """The usable images of a batch, and their pixels in each size that a model wants."""
    fits = {geometry(runner.preprocessing): runner.preprocessing for runner in asked.runners.values()}
    if asked.salience_fit is not None:
        fits.setdefault(geometry(asked.salience_fit), asked.salience_fit)
    usable: list[int] = []
    pixels: list[list[np.ndarray]] = []
    for index in indices.tolist():
        try:
            pixels.append(fit_to_all(asked.samples.read(index), tuple(fits.values()), as_stored=asked.as_stored))
            usable.append(index)
        except BadImage as bad:
            found.skipped.append(Skipped(index, asked.samples.name(index), str(bad)))
    stacks = [np.stack(column) for column in zip(*pixels, strict=True)]
    return np.array(usable, dtype=np.int64), dict(zip(fits, stacks, strict=False))


def _keys(samples: Samples, indices: Int64[np.ndarray, "batch"]) -> Int64[np.ndarray, "batch"]:
    """CRC-32 of each image's name."""
    names = (samples.name(int(index)).encode("utf-8", "surrogateescape") for index in indices)
    return np.array([zlib.crc32(name) for name in names], dtype=np.int64)


def _salience_of(asked: Pass, images: Mapping[Hashable, np.ndarray]) -> Callable[[], np.ndarray] | None:
    salience, fit = asked.salience, asked.salience_fit
    if salience is None or fit is None:
        return None
    return cache(lambda: salience(images[geometry(fit)]))


def _scored(views: Mapping[str, View], indices: Int64[np.ndarray, "batch"]) -> Int64[np.ndarray, "kept"]:
    """Places in a batch of the images that a scoring counts; the same for every model."""
    return np.flatnonzero(next(iter(views.values())).labels[indices] >= 0)


def _logits(asked: Pass, variant: Variant, images: Mapping[Hashable, np.ndarray], batch: Batch) -> dict[str, np.ndarray]:
    """Answers of every model to one variant of a batch."""
    shown: dict[Hashable, np.ndarray] = {}
    logits = {}
    for name, runner in asked.runners.items():
        pre, group = runner.preprocessing, variant.group(runner.preprocessing)
        if group not in shown:
            shown[group] = variant.apply(images[geometry(pre)], pre, batch)
        found = runner.infer(shown[group])
        if found.ndim != 2 or len(found) != len(batch.keys):
            raise RunFailed(f"{name}: gives logits of shape {list(found.shape)} for {len(batch.keys)} images; wanted one row per image")
        logits[name] = found
    return logits


def _reduced(
    asked: Pass, logits: Mapping[str, np.ndarray], usable: Int64[np.ndarray, "batch"], scoring: str, variant: str
) -> Iterator[tuple[Case, Outcomes]]:
    """What is kept of a batch's logits: a few numbers for each image that the scoring counts."""
    views = asked.views[scoring]
    rows = _scored(views, usable)
    if not len(rows):
        return
    indices = usable[rows]
    cut = {name: logits[name][rows] if view.columns is None else logits[name][rows][:, view.columns] for name, view in views.items()}
    teacher = cut.get(asked.teacher or "")
    for name, view in views.items():
        against = teacher if name != asked.teacher and teacher is not None and teacher.shape == cut[name].shape else None
        try:
            outcomes = outcomes_of(cut[name], view.labels[indices], right=view.right(indices), teacher=against)
        except ValueError as error:
            raise RunFailed(f"{name} on {scoring}{f' ({variant})' if variant else ''}: {error}") from None
        yield Case(scoring, variant, name), outcomes


def _passed(parts: Sequence[_Found]) -> Passed:
    """Neighbouring batches as one."""
    cases = dict.fromkeys(case for part in parts for case in part.outcomes)
    scorings = dict.fromkeys(name for part in parts for name in part.index)
    return Passed(
        {case: concatenate([part.outcomes[case] for part in parts if case in part.outcomes]) for case in cases},
        {name: np.concatenate([part.index[name] for part in parts if name in part.index]) for name in scorings},
        tuple(bad for part in parts for bad in part.skipped),
    )


def _too_many_bad(asked: Pass, skipped: Sequence[Skipped]) -> RunFailed:
    told = "; ".join(f"{bad.name}: {bad.reason}" for bad in skipped[:_NAMED])
    more = f" and {len(skipped) - _NAMED} more" if len(skipped) > _NAMED else ""
    count = f"{len(skipped)} bad image{'s' if len(skipped) > 1 else ''}"
    return RunFailed(
        f"{told}{more}: {count}, and at most {asked.max_bad} are allowed; mend the set (g2sd data verify lists all of them), or have "
        "them left out and counted (--max-bad, evaluate.max_bad_images)"
    )
