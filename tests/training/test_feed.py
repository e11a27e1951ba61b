"""The feed's promises about batches: which images, in which order, whoever asks."""

from itertools import islice

import numpy as np
import pytest
import torch
from torch import Tensor

from g2sd_deploy.data.images import BadImage, ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.ranks import Ranks
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import AugmentSettings, TrainSettings
from g2sd_deploy.training.feed import Batch, Feed

STILL = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)


def image_set(num: int = 22) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(0)
    labels = np.arange(num, dtype=np.int64) % 2
    pixels = random.integers(0, 100, (num, 8, 8, 1)) + 120 * labels[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels)


def feed_of(
    num: int = 22, *, seed: int = 0, ranks: Ranks | None = None, micro_batch: int | None = None, in_pairs: bool = False, **settings: object
) -> Feed:
    chosen = {"epochs": 2.0, "batch_size": 4, "base_lr": 0.1, **settings}
    runtime = Runtime(torch.device("cpu"), ranks or Ranks(), micro_batch=micro_batch)
    return Feed(image_set(num), TrainSettings.model_validate(chosen), seed, 8, (0.25,), (0.5,), runtime, in_pairs=in_pairs)


def test_an_epoch_visits_each_image_at_most_once_and_drops_the_last_incomplete_batch() -> None:
    feed = feed_of(22, epochs=2.0)
    batches = list(feed.batches())
    assert (feed.steps_per_epoch, feed.num_steps, len(batches)) == (5, 10, 10)
    for epoch in range(2):
        visited = np.concatenate([batch.turn.indices for batch in batches[5 * epoch : 5 * epoch + 5]])
        assert len(set(visited.tolist())) == 20
    assert [batch.turn.epoch for batch in batches] == [0] * 5 + [1] * 5
    assert [batch.turn.step for batch in batches] == list(range(10))
    assert not np.array_equal(batches[0].turn.indices, batches[5].turn.indices)


@pytest.mark.parametrize(("epochs", "num_steps"), [(0.01, 1), (0.4, 2), (1.5, 8), (3.0, 15)])
def test_epochs_may_be_fractions_and_one_step_is_always_made(epochs: float, num_steps: int) -> None:
    assert len(list(feed_of(22, epochs=epochs).batches())) == num_steps


def test_labels_stay_with_their_images() -> None:
    for batch in feed_of(augment=STILL).batches():
        assert batch.truth.tolist() == (batch.turn.indices % 2).tolist()
        assert torch.equal(batch.images.mean(dim=(1, 2, 3)) > 0.3, batch.truth == 1)


def test_images_are_channels_first_scaled_to_one_and_normalised() -> None:
    feed = feed_of(augment=STILL)
    batch = next(feed.batches())
    expected = (image_set().images[batch.turn.indices].astype(np.float64).transpose(0, 3, 1, 2) / 255 - 0.25) / 0.5
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=2e-6)


def test_colours_are_normalised_each_by_its_own_constants() -> None:
    pixels = np.full((4, 8, 8, 3), (0, 51, 255), dtype=np.uint8)
    settings = TrainSettings(epochs=1.0, batch_size=4, base_lr=0.1)
    feed = Feed(ImageSet(pixels, np.zeros(4, np.int64)), settings, 0, 8, (0.5, 0.2, 0.0), (0.5, 1.0, 2.0), Runtime(torch.device("cpu")))
    torch.testing.assert_close(next(feed.batches()).images[0, :, 0, 0], torch.tensor([-1.0, 0.0, 0.5]))


def same(one: Batch, two: Batch) -> bool:
    tensors = torch.equal(one.images, two.images) and torch.equal(one.truth, two.truth)
    return tensors and np.array_equal(one.turn.indices, two.turn.indices)


def test_batches_are_the_same_at_every_reading_and_do_not_depend_on_what_ran_before() -> None:
    np.random.seed(3)
    first = list(feed_of().batches())
    torch.manual_seed(9)
    torch.rand(100)
    again = list(feed_of().batches())
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    longer = list(islice(feed_of(epochs=50.0).batches(), 10))
    assert all(same(one, two) for one, two in zip(first, longer, strict=True))


def test_another_seed_gives_another_order_and_other_crops() -> None:
    one, two = next(feed_of(seed=0).batches()), next(feed_of(seed=1).batches())
    assert not np.array_equal(one.turn.indices, two.turn.indices)


def test_an_image_is_cropped_alike_whatever_batch_it_is_in_and_otherwise_in_the_next_epoch() -> None:
    def crops(feed: Feed, epoch: int) -> dict[int, Tensor]:
        batches = [batch for batch in feed.batches() if batch.turn.epoch == epoch]
        return {int(i): image for batch in batches for i, image in zip(batch.turn.indices, batch.images, strict=True)}

    small, large = crops(feed_of(24, batch_size=4), 0), crops(feed_of(24, batch_size=12), 0)
    assert all(torch.equal(small[i], large[i]) for i in range(24))
    later = crops(feed_of(24, batch_size=4), 1)
    assert not any(torch.equal(small[i], later[i]) for i in range(24))


def joined(feeds: list[Feed]) -> list[list[int]]:
    """Indices of each step, the processes' parts one after the other."""
    steps: list[list[int]] = []
    for feed in feeds:
        for turn in feed.turns():
            steps += [[]] * (turn.step + 1 - len(steps))
            steps[turn.step] = steps[turn.step] + turn.indices.tolist()
    return steps


@pytest.mark.parametrize(("num_ranks", "micro_batch"), [(2, None), (1, 4), (2, 2), (4, None), (1, 5), (4, 3)])
def test_processes_and_pieces_see_the_images_of_one_batch_in_one_piece(num_ranks: int, micro_batch: int | None) -> None:
    whole = [turn.indices.tolist() for turn in feed_of(50, batch_size=12).turns()]
    parts = [feed_of(50, batch_size=12, ranks=Ranks(rank, num_ranks), micro_batch=micro_batch) for rank in range(num_ranks)]
    assert joined(parts) == whole
    for feed in parts:
        by_step: dict[int, list[tuple[float, bool]]] = {}
        for turn in feed.turns():
            by_step.setdefault(turn.step, []).append((turn.share, turn.ends_step))
            assert len(turn.indices) <= (micro_batch or 12)
        for pieces in by_step.values():
            assert sum(share for share, _ in pieces) == pytest.approx(1.0)
            assert [ends for _, ends in pieces] == [False] * (len(pieces) - 1) + [True]


def test_what_is_left_from_a_step_on_is_what_comes_after_it_in_the_whole() -> None:
    whole = list(feed_of(epochs=3.0).batches())
    assert all(same(one, two) for one, two in zip(whole[7:], feed_of(epochs=3.0).batches(7), strict=True))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 23}, "batch_size is 23, but there are only 22 training images; lower batch_size"),
        ({"batch_size": 9, "ranks": Ranks(0, 2)}, "batch_size is 9, which 2 processes cannot share evenly; make it a multiple of 2"),
        ({"batch_size": 6, "ranks": Ranks(0, 2), "in_pairs": True}, "mixup pairs neighbours, so each of 2 processes needs an even number"),
        ({"batch_size": 8, "micro_batch": 3, "in_pairs": True}, "--micro-batch 3: mixup pairs neighbours; give an even number"),
    ],
)
def test_batches_that_cannot_be_shared_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        next(feed_of(**options).batches())  # type: ignore[arg-type]


class WithBad:
    """Samples of which some cannot be used."""

    def __init__(self, num: int, bad: set[int]) -> None:
        self._images, self._bad = image_set(num), bad

    @property
    def labels(self) -> np.ndarray:
        return self._images.labels

    @property
    def block_sizes(self) -> np.ndarray:
        return self._images.block_sizes

    def __len__(self) -> int:
        return len(self._images)

    def name(self, index: int) -> str:
        return f"{index}.jpg"

    def read(self, index: int) -> np.ndarray:
        if index in self._bad:
            raise BadImage("the file is empty")
        return self._images.read(index)


def feed_with(bad: set[int], max_bad: int, told: list[str]) -> Feed:
    settings = TrainSettings(epochs=2.0, batch_size=4, base_lr=0.1, augment=STILL)
    runtime = Runtime(torch.device("cpu"), workers=0)
    return Feed(WithBad(22, bad), settings, 0, 8, (0.25,), (0.5,), runtime, max_bad=max_bad, warn=told.append)


def test_a_bad_image_is_told_of_once_counted_and_replaced_by_the_next() -> None:
    told: list[str] = []
    feed = feed_with({5, 6}, 2, told)
    for batch in feed.batches():
        wanted = [7 if index in (5, 6) else index for index in batch.turn.indices.tolist()]
        assert batch.truth.tolist() == [index % 2 for index in wanted]
    assert sorted(feed.bad) == [5, 6] and feed.bad[5] == "5.jpg: the file is empty"
    assert sorted(told) == [f"{index}.jpg: the file is empty; the next image is used in its place" for index in (5, 6)]


def test_more_bad_images_than_allowed_end_the_training_by_name() -> None:
    message = r"2 training images cannot be used, data.max_bad_images allows 1 \(\d\.jpg: the file is empty; .*g2sd data verify"
    with pytest.raises(RunFailed, match=message):
        list(feed_with({5, 6}, 1, []).batches())
