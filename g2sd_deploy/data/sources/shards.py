"""Tar shards as webdataset writes them, read at random places.

webdataset's own reader streams: what it yields depends on what was read before, so an interrupted epoch cannot go on where it stopped, and
the number of workers changes the order. Here each image is found by its place in an uncompressed tar (the offset of the member), so the
order of the samples is a function of counters alone, like that of image files, and few large files lie on the disk or in the bucket.
"""

import hashlib
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Int64

from g2sd_deploy.data.images import BadImage, picks_of
from g2sd_deploy.data.manifest import MANIFEST, Manifest, read_manifest
from g2sd_deploy.data.sources.base import CLASSES, is_remote, listed_classes, numbered_classes
from g2sd_deploy.data.sources.handles import Handles
from g2sd_deploy.data.sources.listing import Listing, Names
from g2sd_deploy.data.sources.storage import Shard, Storage, expand_braces, open_storage
from g2sd_deploy.data.sources.tar_index import TarIndex, index_tar
from g2sd_deploy.errors import UserError


def open_shards(root: str, splits: tuple[str, ...], cache_gib: float | None) -> "ShardsSource":
    """Shards in a folder or at an address.

    Raises:
        UserError: The folder is missing, or a library for this kind of address is.
    """
    return ShardsSource(open_storage(root, cache_gib), splits)


class ShardsSource:
    """Tars of one folder or address: those of its manifest, or by their names."""

    def __init__(self, storage: Storage, splits: tuple[str, ...]) -> None:
        self._storage = storage
        self._splits = splits
        self._indexed: dict[str, tuple[Shard, TarIndex]] = {}

    @property
    def description(self) -> str:
        return f"Tar shards of {self._storage.title}."

    @cached_property
    def _manifest(self) -> Manifest | None:
        text = self._storage.text(MANIFEST)
        return None if text is None else read_manifest(text, f"{self._storage.root}/{MANIFEST}")

    @cached_property
    def class_names(self) -> tuple[str, ...]:
        """Those of the manifest or of classes.txt, else the labels."""
        if self._manifest is not None:
            return self._manifest.class_names
        listed = self._storage.text(CLASSES)
        if listed is not None:
            return listed_classes(listed)
        return numbered_classes([self._index(shard)[1].labels for split in self._splits for shard in self._shards(split)])

    def fingerprint(self) -> str:
        """Changes with the manifest, the class names, and the name, size or time of a shard."""
        digest = hashlib.sha256()
        for name in (MANIFEST, CLASSES):
            digest.update(f"{self._storage.text(name)}\0".encode())
        remote_with_hashes = is_remote(self._storage.root) and self._manifest is not None
        for split in self._splits if not remote_with_hashes else ():
            for shard in self._shards(split):
                digest.update(f"{shard.file}\0{self._storage.stamp(shard.file)}\n".encode())
        return digest.hexdigest()

    def samples(self, split: str, limit: int | None) -> "ShardSamples":
        shards = self._shards(split)
        known = [shard.num for shard in shards if shard.num is not None]
        nums = known if len(known) == len(shards) else [len(self._index(shard)[1].members) for shard in shards]
        picks = picks_of(sum(nums), limit)
        firsts = np.cumsum([0, *nums])
        which = np.searchsorted(firsts, picks, side="right") - 1
        used = np.unique(which)
        parts = [(self._index(shards[i]), picks[which == i] - firsts[i]) for i in used]
        names = Names.pack([index.members[row] for (_, index), rows in parts for row in rows])
        arrays = {
            "names": names.text,
            "name_ends": names.ends,
            "shard": np.repeat(np.arange(len(parts)), [len(rows) for _, rows in parts]),
            "offsets": _joined([index.offsets[rows] for (_, index), rows in parts]),
            "sizes": _joined([index.sizes[rows] for (_, index), rows in parts]),
            "labels": _joined([index.labels[rows] for (_, index), rows in parts]),
        }
        about = {"shards": [vars(shard) for (shard, _), _ in parts]}
        samples = ShardSamples(Listing("shards", about, self._storage.where(), arrays))
        self._check_labels(samples)
        return samples

    def _check_labels(self, samples: "ShardSamples") -> None:
        wrong = np.flatnonzero(samples.labels >= len(self.class_names))
        if len(wrong):
            raise UserError(
                f"{self._storage.root}/{samples.name(int(wrong[0]))}: has label {samples.labels[wrong[0]]}, "
                f"but there are {len(self.class_names)} class names"
            )

    def _shards(self, split: str) -> list[Shard]:
        """Shards of a split in order, with what the manifest knows of them."""
        if self._manifest is not None:
            if split not in self._manifest.splits:
                have = ", ".join(self._manifest.splits) or "none"
                raise UserError(
                    f"{self._storage.root}/{MANIFEST}: names no split {split} (found {have}); set data.train_split and data.test_split"
                )
            return [Shard(one.file, one.num, one.bytes, one.sha256) for one in self._manifest.splits[split].shards]
        names = expand_braces(split) if split.endswith(".tar") else self._storage.listed(split)
        return [Shard(name) for name in names]

    def _index(self, shard: Shard) -> tuple[Shard, TarIndex]:
        """A shard's index, and the shard with its size (and, of a fetched one, its hash) as they are."""
        if shard.file not in self._indexed:
            found, path = self._storage.fetch(shard)
            shown = f"{self._storage.root}/{shard.file}"
            index = index_tar(path, shown)
            if shard.num is not None and len(index.members) != shard.num:
                raise UserError(f"{shown}: holds {len(index.members)} images, but {MANIFEST} states {shard.num}; fetch or prepare it again")
            self._indexed[shard.file] = (found, index)
        return self._indexed[shard.file]


def _joined(parts: list[np.ndarray]) -> Int64[np.ndarray, "num"]:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


class ShardSamples:
    """Images inside tars, as they were when the tars were indexed."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._shards = [Shard(**shard) for shard in listing.about["shards"]]
        self._names = listing.names()
        self._shard, self._offsets, self._sizes = (listing.arrays[name] for name in ("shard", "offsets", "sizes"))
        self._handles = Handles(self._open)

    def __reduce__(self) -> tuple[Any, ...]:
        return (ShardSamples, (self.listing,))

    @property
    def labels(self) -> Int64[np.ndarray, "num"]:
        return self.listing.arrays["labels"]

    @property
    def block_sizes(self) -> Int64[np.ndarray, "blocks"]:
        """Images of each shard."""
        return np.bincount(self._shard, minlength=len(self._shards)).astype(np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        return str(PurePosixPath(self._shards[self._shard[index]].file) / self._names[index])

    def gib_at_once(self, window: int | None) -> float:
        """Room for the shards that are in use at one time, in GiB: any `window` of them, or all."""
        sizes = sorted((shard.bytes or 0 for shard in self._shards), reverse=True)
        return sum(sizes[:window]) / (1 << 30)

    def read(self, index: int) -> bytes:
        size = int(self._sizes[index])
        content = self._handles.read(int(self._shard[index]), size, int(self._offsets[index]))
        if len(content) != size:
            raise BadImage(f"the shard ends {size - len(content)} bytes before the image does: it was cut since it was indexed")
        return content

    def _open(self, shard: int) -> Path:
        """The shard's file, fetched where it has to be.

        Raises:
            UserError: It is gone, or not the one that was indexed.
        """
        storage = open_storage(self.listing.where["root"], self.listing.where["cache_gib"])
        return storage.fetch(self._shards[shard])[1]
