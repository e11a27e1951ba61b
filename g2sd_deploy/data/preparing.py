"""Re-encode a data set to shards or class folders: by several processes, whole or resumable, the same to the byte each time."""

import errno
import hashlib
import itertools
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.artifact import write_text_whole
from g2sd_deploy.data.encoding import Encoded, Encoding, encode_image, encoder_version
from g2sd_deploy.data.images import BadImage, Samples, Skipped
from g2sd_deploy.data.manifest import MANIFEST
from g2sd_deploy.data.naming import check_class_folders, class_folder_stems
from g2sd_deploy.data.parts import FolderWriter, PartRecord, PartWriter, ShardWriter, read_record
from g2sd_deploy.data.process_pool import map_in_order
from g2sd_deploy.data.sources import Source
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.locks import lock

Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""

FORMAT = 1
FOLDERS_MANIFEST = "prepared.json"
UNFINISHED = ".unfinished"
_OPTIONS = "options.json"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_PER_TASK = 16
_MORE_BAD = 100
"""Bad images above the limit after which it is no use to look for more."""


@dataclass(frozen=True)
class Options:
    """What the prepared bytes are a function of, beside the source.

    Attributes:
        encoding: Size and quality.
        shards: Tar shards; else class folders.
        images_per_part: Images of a shard, bad ones included.
        splits: Splits to prepare.
    """

    encoding: Encoding
    shards: bool
    images_per_part: int
    splits: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """What is there when it is done.

    Attributes:
        manifest: File that lists it all.
        num: Images of each split.
        skipped: Images that were left out.
        fresh: False where everything was there already.
    """

    manifest: Path
    num: dict[str, int]
    skipped: list[Skipped]
    fresh: bool


class TooManyBad(RunFailed):
    """More images are bad than allowed."""

    def __init__(self, skipped: list[Skipped], max_bad: int, message: str) -> None:
        super().__init__(skipped, max_bad, message)
        self.skipped = skipped
        self.message = message

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True)
class _Split:
    """One split's images, and the order in which they are stored."""

    name: str
    samples: Samples
    order: Int64[np.ndarray, "num"]


@dataclass(frozen=True)
class _Part:
    """A stretch of a split's stored order."""

    split: _Split
    number: int
    start: int
    stop: int

    @property
    def title(self) -> str:
        return f"{self.split.name}-{self.number:06d}"

    @property
    def num(self) -> int:
        """Images, bad ones included."""
        return self.stop - self.start

    def tasks(self) -> Iterator[tuple[str, list[int]]]:
        """Indices of neighbours, for one call of a worker each."""
        for start in range(self.start, self.stop, _PER_TASK):
            yield self.split.name, self.split.order[start : min(start + _PER_TASK, self.stop)].tolist()


def prepare(source: Source, name: str, target: Path, options: Options, *, workers: int, max_bad: int, tick: Tick) -> Outcome:
    """Prepare a data set in `target`, going on where an earlier process stopped.

    Args:
        source: Where the images come from.
        name: The source's name, for the manifest; no path.
        target: New or empty folder, or one that the same call left unfinished.
        options: What to make; other options on a begun folder are refused.
        workers: Processes; they do not change a byte.
        max_bad: Images that may be left out.
        tick: Told how far it is.

    Raises:
        UserError: The folder holds something else, another process prepares it, or the source cannot be read.
        TooManyBad: More than `max_bad` images cannot be used; what is prepared is kept.
        RunFailed: The disk is full, or a worker died.
    """
    if not options.shards:
        check_class_folders(source.class_names)
    splits = [_listed(source, split) for split in options.splits]
    identity = _identity(options, name, source.class_names, splits)
    manifest = target / (MANIFEST if options.shards else FOLDERS_MANIFEST)
    with _disk_errors(target), _claimed(target, identity | {"images": source.fingerprint(), "encoder": encoder_version()}) as unfinished:
        fresh = not manifest.is_file()
        if fresh:
            parts = [part for split in splits for part in _parts(split, options.images_per_part)]
            writer_of = _shard_writers(target, unfinished) if options.shards else _folder_writers(splits, source.class_names, target)
            work = _Work(parts, writer_of, unfinished, _records(parts, target, unfinished), max_bad, tick)
            work.run(partial(_encode_task, {split.name: split.samples for split in splits}, options.encoding), workers)
            _check_bad(work.skipped, max_bad, whole=True)
            if not options.shards and hasattr(os, "sync"):
                os.sync()  # files of class folders are not synced one by one, which would take longer than encoding them
            described = _described(identity, source.class_names, parts, work)
            write_text_whole(manifest, json.dumps(described, indent=2) + "\n")
    shutil.rmtree(target / UNFINISHED, ignore_errors=True)
    return _outcome(manifest, fresh=fresh)


def stored_order(names: Sequence[str], *, shuffled: bool) -> Int64[np.ndarray, "num"]:
    """Order in which images are stored: that of the listing, or one that mixes classes and depends on the names alone."""
    if not shuffled:
        return np.arange(len(names), dtype=np.int64)
    digests = [hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest() for name in names]
    return np.argsort(np.array([int.from_bytes(digest, "big") for digest in digests], dtype=np.uint64), kind="stable").astype(np.int64)


def _listed(source: Source, split: str) -> _Split:
    samples = source.samples(split, None)
    names = [samples.name(i) for i in range(len(samples))]
    return _Split(split, samples, stored_order(names, shuffled=split.startswith("train")))


def _identity(options: Options, name: str, class_names: tuple[str, ...], splits: list[_Split]) -> dict[str, Any]:
    """What tells one prepared data set from another, by the names that a person knows."""
    listing = hashlib.sha256(json.dumps(class_names).encode())
    for split in splits:
        labels = split.samples.labels
        for i in range(len(split.samples)):
            listing.update(f"{split.name}\0{split.samples.name(i)}\0{int(labels[i])}\n".encode("utf-8", "surrogateescape"))
    return {
        "source": name,
        "layout": "shards" if options.shards else "class folders",
        "splits": list(options.splits),
        "short_side": options.encoding.short_side,
        "quality": options.encoding.quality,
        "images_per_shard": options.images_per_part if options.shards else None,
        "listing": listing.hexdigest(),
    }


@contextmanager
def _claimed(target: Path, wanted: Mapping[str, Any]) -> Iterator[Path]:
    """The folder for what is unfinished, with nobody else in it and made with the same options."""
    target.mkdir(parents=True, exist_ok=True)
    done = next((target / name for name in (MANIFEST, FOLDERS_MANIFEST) if (target / name).is_file()), None)
    unfinished = target / UNFINISHED
    if done is not None:
        held = _read_json(done).get("prepared", {})
        _check_same(target, held, {key: value for key, value in wanted.items() if key not in ("images", "encoder")})
        yield unfinished
        return
    if not unfinished.is_dir() and any(target.iterdir()):
        raise UserError(f"{target}: holds something else; give a new or an empty folder")
    unfinished.mkdir(exist_ok=True)
    with (unfinished / "lock").open("w") as file:
        if not lock(file, wait=False):
            raise UserError(f"{target}: another process is preparing it; wait for it, or give another folder")
        if (unfinished / _OPTIONS).is_file():
            _check_same(target, _read_json(unfinished / _OPTIONS), wanted)
        else:
            write_text_whole(unfinished / _OPTIONS, json.dumps(wanted) + "\n")
        yield unfinished


def _read_json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path}: is damaged ({error}); remove {path.parent} and prepare it again") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: was not written by g2sd data prepare; give a new or an empty folder")
    return found


def _check_same(target: Path, held: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    words = {"listing": "the source's list of images is another one", "images": "the source's images were changed since"}
    differing = [key for key in wanted if held.get(key) != wanted[key]]
    told = [words.get(key) or f"{key} {_told(held.get(key))} there, {_told(wanted[key])} now" for key in differing]
    if told:
        raise UserError(f"{target}: was prepared otherwise ({'; '.join(told)}); use another folder, or remove it to begin anew")


def _told(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)


def _parts(split: _Split, size: int) -> list[_Part]:
    num = len(split.samples)
    return [_Part(split, i, start, min(start + size, num)) for i, start in enumerate(range(0, num, size))]


@dataclass
class _Work:
    """Makes the parts that are not there; `records` ends with one of each part, in their order."""

    parts: list[_Part]
    writer_of: Callable[[_Part], PartWriter]
    unfinished: Path
    records: dict[str, PartRecord]
    max_bad: int
    tick: Tick

    def __post_init__(self) -> None:
        self._total = sum(part.num for part in self.parts)
        self._done = sum(part.num for part in self.parts if part.title in self.records)

    @property
    def skipped(self) -> list[Skipped]:
        """Images that were left out of the finished parts, in stored order."""
        return [one for part in self.parts if part.title in self.records for one in self.records[part.title].skipped]

    def run(self, encode: Callable[[tuple[str, list[int]]], list[Encoded | Skipped]], workers: int) -> None:
        """Encode in `workers` processes and write here."""
        self.tick(self._done, self._total)
        missing = [part for part in self.parts if part.title not in self.records]
        tasks = itertools.chain.from_iterable(part.tasks() for part in missing)
        with closing(map_in_order(encode, tasks, workers=workers)) as answers:
            for part in missing:
                self.records[part.title] = self._write(part, answers)
                self.records[part.title].write(self.unfinished / f"{part.title}.json")

    def _write(self, part: _Part, answers: Iterator[list[Encoded | Skipped]]) -> PartRecord:
        before, skipped = self.skipped, list[Skipped]()
        writer = self.writer_of(part)
        try:
            for position, index, made in _made(part, answers):
                if isinstance(made, Encoded):
                    writer.add(position, index, made)
                else:
                    skipped.append(made)
                    if len(before) + len(skipped) > self.max_bad + _MORE_BAD:
                        _check_bad(before + skipped, self.max_bad, whole=False)
                self._done += 1
                self.tick(self._done, self._total)
            return writer.finish(skipped)
        except BaseException:
            writer.discard()
            raise


def _made(part: _Part, answers: Iterator[list[Encoded | Skipped]]) -> Iterator[tuple[int, int, Encoded | Skipped]]:
    """Place in the stored order, index and result of each image of a part."""
    position = part.start
    for _, indices in part.tasks():
        for index, made in zip(indices, next(answers), strict=True):
            yield position, index, made
            position += 1


def _encode_task(samples: Mapping[str, Samples], encoding: Encoding, task: tuple[str, list[int]]) -> list[Encoded | Skipped]:
    """What a worker does: read and encode some images of one split."""
    split, indices = task
    return [_encode(samples[split], index, encoding) for index in indices]


def _encode(samples: Samples, index: int, encoding: Encoding) -> Encoded | Skipped:
    try:
        return encode_image(samples.read(index), encoding)
    except BadImage as bad:
        return Skipped(index, samples.name(index), str(bad))


def _shard_writers(target: Path, unfinished: Path) -> Callable[[_Part], PartWriter]:
    def begin(part: _Part) -> PartWriter:
        labels = part.split.samples.labels
        return ShardWriter(unfinished / f"{part.title}.tar", target / f"{part.title}.tar", lambda index: int(labels[index]))

    return begin


def _folder_writers(splits: list[_Split], class_names: tuple[str, ...], target: Path) -> Callable[[_Part], PartWriter]:
    stems = {split.name: class_folder_stems(split.name, split.samples, class_names) for split in splits}
    return lambda part: FolderWriter(target, stems[part.split.name].__getitem__)


def _records(parts: list[_Part], target: Path, unfinished: Path) -> dict[str, PartRecord]:
    """Records of the parts that are there as a whole."""
    found = {part.title: read_record(unfinished / f"{part.title}.json") for part in parts}
    return {title: record for title, record in found.items() if record is not None and record.is_there(target)}


def _check_bad(skipped: list[Skipped], max_bad: int, *, whole: bool) -> None:
    if len(skipped) <= max_bad:
        return
    if whole:
        advice = f"add --max-bad {len(skipped)} to leave them out (what is prepared is kept), or repair or remove them and begin anew"
    else:
        advice = "the search for more was stopped; is this the right source? `g2sd data verify` lists them all"
    raise TooManyBad(skipped, max_bad, f"{len(skipped)} images cannot be used and --max-bad is {max_bad}: {advice}")


def _described(identity: Mapping[str, Any], class_names: tuple[str, ...], parts: list[_Part], work: _Work) -> dict[str, Any]:
    """The manifest; nothing in it depends on the machine or the moment."""
    splits: dict[str, Any] = {split: {"shards": [], "num": 0} for split in identity["splits"]}
    for part in parts:
        record, entry = work.records[part.title], splits[part.split.name]
        entry["num"] += record.num
        if identity["layout"] == "shards":
            ((file, size),) = record.files.items()
            entry["shards"].append({"file": file, "num": record.num, "bytes": size, "sha256": record.sha256})
    if identity["layout"] != "shards":
        splits = {split: {"num": entry["num"]} for split, entry in splits.items()}
    return {
        "format": FORMAT,
        "class_names": list(class_names),
        "splits": splits,
        "prepared": {**identity, "encoder": encoder_version(), "skipped": [asdict(one) for one in work.skipped]},
    }


def _outcome(manifest: Path, *, fresh: bool) -> Outcome:
    held = _read_json(manifest)
    for split in held["splits"].values():
        for shard in split.get("shards", ()):
            path = manifest.parent / shard["file"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise UserError(f"{path}: is not there with its {shard['bytes']} bytes; remove {manifest.parent} and prepare it again")
    num = {split: int(entry["num"]) for split, entry in held["splits"].items()}
    return Outcome(manifest, num, [Skipped(**one) for one in held["prepared"]["skipped"]], fresh)


@contextmanager
def _disk_errors(target: Path) -> Iterator[None]:
    """Say of the target folder what the system says when it cannot be written."""
    try:
        yield
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise RunFailed(
                f"{target}: the disk is full; what is finished is kept, and the same command goes on from there once there is room"
            ) from None
        raise UserError(f"{error.filename or target}: {error.strerror}; correct it, and give the same command again") from None
