"""Counter-based randomness: every draw is a pure function of a seed, a named stream and counters.

Nothing here keeps state, so sample order, masks and augmentation of step k do not depend on what ran before, on the number of
loader workers or on the number of ranks.
"""

import hashlib

import numpy as np
from jaxtyping import Float64, Int64, UInt64

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def _stream_key(seed: int, stream: str, counters: tuple[int, ...]) -> int:
    text = f"{seed}/{stream}/" + "/".join(str(c) for c in counters)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")


def _mix(x: UInt64[np.ndarray, "..."]) -> UInt64[np.ndarray, "..."]:
    """The finaliser of SplitMix64. Source: Steele, Lea, Flood 2014, doi 10.1145/2660193.2660195; the constants are Stafford's mix 13."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: UInt64[np.ndarray, "..."] = x ^ (x >> np.uint64(31))
    return mixed


def uniform(seed: int, stream: str, epoch: int, indices: Int64[np.ndarray, "batch"], num: int) -> Float64[np.ndarray, "batch {num}"]:
    """Draw `num` uniform numbers in [0, 1) for each sample index.

    Args:
        seed: The recipe's seed.
        stream: What the numbers are for ("mask", "crop"); two streams are independent.
        epoch: Pass over the data, from 0.
        indices: Position of each sample in its data set; a sample's numbers depend on its own index only.
        num: Numbers per sample.
    """
    key = np.uint64(_stream_key(seed, stream, (epoch,)))
    with np.errstate(over="ignore"):
        rows = _mix(key + _GOLDEN * (indices.astype(np.uint64) + np.uint64(1)))
        bits = _mix(rows[:, None] + _GOLDEN * np.arange(1, num + 1, dtype=np.uint64))
    return (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, stream: str, epoch: int, size: int) -> Int64[np.ndarray, "{size}"]:
    """Order in which the samples 0..size-1 are visited in one epoch."""
    draws = uniform(seed, stream, epoch, np.arange(size, dtype=np.int64), 1)[:, 0]
    return np.argsort(draws, kind="stable").astype(np.int64)


def order_in_windows(
    seed: int, stream: str, epoch: int, block_sizes: Int64[np.ndarray, "blocks"], window: int | None
) -> Int64[np.ndarray, "num"]:
    """Order in which samples that lie in blocks (shards) are visited in one epoch, reading few blocks at a time.

    Args:
        seed: The recipe's seed.
        stream: What the order is for.
        epoch: Pass over the data, from 0.
        block_sizes: Samples in each block; the samples of a block are neighbours.
        window: Blocks whose samples are shuffled together: the blocks are shuffled, then the samples within each run of so many blocks.
            None shuffles all samples at once.
    """
    size = int(block_sizes.sum())
    if window is None or window >= len(block_sizes):
        return permutation(seed, stream, epoch, size)
    ends = np.cumsum(block_sizes)
    samples = permutation(seed, stream, epoch, size)
    turn = np.empty(len(block_sizes), np.int64)
    turn[permutation(seed, f"{stream}/blocks", epoch, len(block_sizes))] = np.arange(len(block_sizes)) // window
    window_of = turn[np.searchsorted(ends, samples, side="right")]
    return samples[np.argsort(window_of, kind="stable")]


def generator(seed: int, stream: str, *counters: int) -> np.random.Generator:
    """A NumPy generator for draws that belong to a whole batch rather than to a sample (mixup's ratio of one step)."""
    return np.random.Generator(np.random.Philox(key=_stream_key(seed, stream, counters)))


def torch_seed(seed: int, stream: str) -> int:
    """Seed for `torch.manual_seed`, used only to initialise weights."""
    return _stream_key(seed, stream, ()) >> 1
