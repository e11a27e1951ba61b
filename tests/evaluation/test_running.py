"""The pass over images: each is decoded once, counted once, and shown to every model, whoever does how much of the work."""

import io
import pickle
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from g2sd_deploy.data.images import BadImage, ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.evaluation.outcomes import Outcomes, concatenate
from g2sd_deploy.evaluation.running import Case, Pass, Passed, batch_size_for, run_pass
from g2sd_deploy.evaluation.variants import Clean, Corrupted, Occluded
from g2sd_deploy.ranks import Ranks
from g2sd_export.edge.preprocess import Preprocessing, normalise

PRE = Preprocessing(image_px=16, resize_px=16, num_channels=1, mean=(0.5,), std=(0.5,))
NUM = 23


class Brightness:
    """Three logits from the mean of each image; remembers what it was shown."""

    name, version = "brightness", "1"

    def __init__(self, preprocessing: Preprocessing = PRE, scale: float = 1.0) -> None:
        self.preprocessing, self.scale = preprocessing, scale
        self.shown: list[np.ndarray] = []

    def prepare(self, images: np.ndarray) -> np.ndarray:
        return normalise(images, self.preprocessing)

    def forward(self, inputs: np.ndarray) -> np.ndarray:
        mean = self.scale * inputs.mean(axis=(1, 2, 3))
        return np.stack([-mean, mean, -9 * np.ones_like(mean)], axis=1).astype(np.float32)

    def infer(self, images: np.ndarray) -> np.ndarray:
        self.shown.append(images)
        return self.forward(self.prepare(images))


@dataclass(frozen=True)
class Labels:
    """The plainest view."""

    labels: np.ndarray
    columns: np.ndarray | None = None
    several: np.ndarray | None = None

    def right(self, indices: np.ndarray) -> np.ndarray | None:
        return None if self.several is None else self.several[indices]


class Files:
    """PNG files in memory; counts how often each is read, some of them are bad."""

    def __init__(self, images: np.ndarray, labels: np.ndarray, bad: Sequence[int] = (), wrong: type[Exception] = BadImage) -> None:
        self.images, self.labels, self.bad, self.wrong = images, labels, set(bad), wrong
        self.reads = np.zeros(len(images), dtype=int)
        self._lock = threading.Lock()

    @property
    def block_sizes(self) -> np.ndarray:
        return np.array([len(self)])

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        return f"class/{index}.png"

    def read(self, index: int) -> bytes:
        with self._lock:
            self.reads[index] += 1
        if index in self.bad:
            raise self.wrong(f"image {index} is gone")
        buffer = io.BytesIO()
        Image.fromarray(self.images[index, :, :, 0]).save(buffer, "PNG")
        return buffer.getvalue()


def image_set(num: int = NUM) -> ImageSet:
    random, labels = np.random.default_rng(0), np.arange(num, dtype=np.int64) % 2
    pixels = random.integers(0, 140, (num, 16, 16, 1)) + 110 * labels[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels)


def files(**options: Any) -> Files:
    found = image_set()
    return Files(found.images, found.labels, **options)


def asked(samples: Any, **options: Any) -> Pass:
    runners = options.pop("runners", None) or {"m": Brightness()}
    views = options.pop("views", None) or {"set": {name: Labels(samples.labels) for name in runners}}
    return Pass(samples, runners, views, **options)


def ran(one: Pass, *, workers: int = 1, ranks: Ranks | None = None) -> list[Passed]:
    return list(run_pass(one, workers=workers, tick=lambda done, total: None, ranks=ranks))


def whole(chunks: Sequence[Passed]) -> dict[Case, Outcomes]:
    return {case: concatenate([chunk.outcomes[case] for chunk in chunks]) for case in chunks[0].outcomes}


def same(one: dict[Case, Outcomes], other: dict[Case, Outcomes]) -> bool:
    return one.keys() == other.keys() and all(
        np.array_equal(getattr(one[case], name), getattr(other[case], name), equal_nan=name not in ("label", "top5", "rank"))
        for case in one
        for name in ("label", "top5", "rank", "label_logit", "label_prob", "top1_prob", "nll", "brier")
    )


@pytest.mark.parametrize("batch_size", [1, 4, NUM, 100])
@pytest.mark.parametrize("workers", [1, 4])
def test_every_image_is_read_once_and_scored_once_in_order(batch_size: int, workers: int) -> None:
    samples = files()
    chunks = ran(asked(samples, batch_size=batch_size), workers=workers)
    assert samples.reads.tolist() == [1] * NUM
    assert np.concatenate([chunk.index["set"] for chunk in chunks]).tolist() == list(range(NUM))
    (outcomes,) = whole(chunks).values()
    logits = Brightness().infer(image_set().images)
    np.testing.assert_array_equal(outcomes.top5[:, 0], logits.argmax(axis=1))
    np.testing.assert_array_equal(outcomes.label, image_set().labels)


def test_the_default_batch_holds_as_many_pixels_as_a_cache_takes() -> None:
    sizes = {px: batch_size_for({"m": Brightness(replace(PRE, image_px=px, resize_px=px))}) for px in (28, 64, 224, 1024)}
    assert sizes == {28: 512, 64: 98, 224: 8, 1024: 1}


class FakeRanks:
    """Several processes as threads that meet at a barrier."""

    def __init__(self, num: int) -> None:
        self.barrier, self.slots, self.num = threading.Barrier(num), [None] * num, num

    def make(self, rank: int) -> Ranks:
        outer = self

        class Meeting(Ranks):
            def gather(self, value: Any) -> list[Any]:
                outer.slots[rank] = value
                outer.barrier.wait(10)
                found = pickle.loads(pickle.dumps(outer.slots))
                outer.barrier.wait(10)
                return found

        return Meeting(rank, self.num, rank)

    def run(self, work: Callable[[Ranks], Any]) -> list[Any]:
        results: list[Any] = [None] * self.num

        def one(rank: int) -> None:
            try:
                results[rank] = work(self.make(rank))
            except Exception as error:  # handed to the test
                results[rank] = error

        threads = [threading.Thread(target=one, args=(rank,)) for rank in range(self.num)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
        return results


@pytest.mark.parametrize("num", [2, 3, 7])
def test_several_processes_count_every_image_once_and_all_get_the_result_of_one(num: int) -> None:
    alone, samples = whole(ran(asked(files(), batch_size=4))), files()
    found = FakeRanks(num).run(lambda ranks: whole(ran(asked(samples, batch_size=4), ranks=ranks)))
    assert samples.reads.tolist() == [1] * NUM
    assert all(same(alone, one) for one in found)


def test_an_error_of_one_process_ends_all_of_them() -> None:
    samples = files(bad=[5], wrong=UserError)
    found = FakeRanks(2).run(lambda ranks: ran(asked(samples, batch_size=4), ranks=ranks))
    assert [type(one) for one in found] == [UserError, UserError]
    assert [getattr(one, "told", None) for one in found] == [False, True]


def test_chunks_bound_the_rows_that_are_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("g2sd_deploy.evaluation.running._ROWS_AT_ONCE", 10)
    chunks = ran(asked(files(), batch_size=4))
    assert [len(chunk.index["set"]) for chunk in chunks] == [8, 8, 7]
    assert same(whole(chunks), whole(ran(asked(files(), batch_size=4))))


def test_bad_images_are_left_out_and_named_up_to_the_number_allowed() -> None:
    chunks = ran(asked(files(bad=[3, 20]), batch_size=4, max_bad=2))
    assert [(bad.index, bad.name) for chunk in chunks for bad in chunk.skipped] == [(3, "class/3.png"), (20, "class/20.png")]
    assert [i for chunk in chunks for i in chunk.index["set"]] == [i for i in range(NUM) if i not in (3, 20)]
    with pytest.raises(RunFailed, match=r"class/3\.png: image 3 is gone; class/20\.png: .* 2 bad images, and at most 1 are allowed"):
        ran(asked(files(bad=[3, 20]), batch_size=NUM, max_bad=1))


def test_a_batch_of_bad_images_only_is_no_error() -> None:
    chunks = ran(asked(files(bad=[0, 1, 2, 3]), batch_size=4, max_bad=4))
    assert len(chunks[0].index["set"]) == NUM - 4


def test_models_of_one_size_are_shown_the_same_pixels_and_each_size_is_cut_from_one_decoding() -> None:
    samples = files()
    runners = {"a": Brightness(), "b": Brightness(replace(PRE, mean=(0.1,))), "small": Brightness(replace(PRE, image_px=8, resize_px=8))}
    ran(asked(samples, runners=runners, batch_size=NUM))
    assert samples.reads.tolist() == [1] * NUM
    assert runners["a"].shown[0] is runners["b"].shown[0]
    assert runners["small"].shown[0].shape == (NUM, 8, 8, 1)


def test_images_that_are_not_scored_reach_no_figure() -> None:
    samples, labels = files(), np.where(np.arange(NUM) % 3 == 0, -1, image_set().labels)
    chunks = ran(asked(samples, views={"part": {"m": Labels(labels)}, "all": {"m": Labels(samples.labels)}}, batch_size=4))
    found = whole(chunks)
    assert len(found[Case("part", "", "m")].rank) == (labels >= 0).sum() and len(found[Case("all", "", "m")].rank) == NUM
    assert [i for chunk in chunks for i in chunk.index["part"]] == np.flatnonzero(labels >= 0).tolist()


def test_a_scoring_may_keep_some_logits_only_and_allow_several_answers() -> None:
    samples = files()
    cut = Labels(np.zeros(NUM, dtype=np.int64), columns=np.array([2, 0]))
    several = Labels(np.zeros(NUM, dtype=np.int64), several=np.tile([True, True, False], (NUM, 1)))
    found = whole(ran(asked(samples, views={"cut": {"m": cut}, "several": {"m": several}}, batch_size=4)))
    assert (found[Case("cut", "", "m")].rank == 1).all(), "logit 2 is the lowest of all"
    assert (found[Case("several", "", "m")].rank == 0).all()


def test_models_are_compared_with_the_teacher_where_their_logits_mean_the_same() -> None:
    samples = files()
    runners = {"teacher": Brightness(), "sharper": Brightness(scale=3.0)}
    found = whole(ran(asked(samples, runners=runners, teacher="teacher", batch_size=4)))
    assert found[Case("set", "", "teacher")].same is None
    sharper = found[Case("set", "", "sharper")]
    assert sharper.same is not None and sharper.same.all() and sharper.kl is not None and (sharper.kl > 0).all()
    cut = {"teacher": Labels(samples.labels), "sharper": Labels(samples.labels, columns=np.array([0, 1]))}
    assert whole(ran(asked(samples, runners=runners, views={"set": cut}, teacher="teacher")))[Case("set", "", "sharper")].same is None


def test_a_corruption_depends_on_the_name_of_an_image_and_on_nothing_else() -> None:
    shown = []
    for picks, batch_size in ((None, 4), (np.array([2, 3, 9]), 2)):
        runner = Brightness()
        ran(asked(files(), runners={"m": runner}, picks=picks, batch_size=batch_size, variants=[Corrupted("gaussian_noise", 5, 0)]))
        shown.append(np.concatenate(runner.shown))
    np.testing.assert_array_equal(shown[0][[2, 3, 9]], shown[1])
    assert not np.array_equal(shown[0], image_set().images)


def test_occlusion_paints_each_models_own_mean_colour_where_the_teacher_looks() -> None:
    runners = {"a": Brightness(), "b": Brightness(replace(PRE, mean=(0.1,)))}
    salience = np.arange(16.0)
    variants = [Clean(), Occluded("salient_first", 0.25, 4, 0), Occluded("salient_last", 0.25, 4, 0), Occluded("random", 1.0, 4, 0)]
    seen: list[int] = []

    def look(images: np.ndarray) -> np.ndarray:
        seen.append(len(images))
        return np.tile(salience, (len(images), 1))

    ran(asked(files(), runners=runners, variants=variants, salience=look, salience_fit=PRE, batch_size=NUM))
    assert seen == [NUM], "salience is computed once for all variants and models"
    clean, first, last, gone = runners["a"].shown
    assert (first[:, 12:] == 128).all() and (first[:, :12] == clean[:, :12]).all()
    assert (last[:, :4] == 128).all() and (last[:, 4:] == clean[:, 4:]).all()
    assert (gone == 128).all() and (runners["b"].shown[3] == 26).all()


def test_stored_images_are_cropped_and_never_resized() -> None:
    runner, wide = Brightness(replace(PRE, image_px=8, resize_px=8)), files()
    ran(asked(wide, runners={"m": runner}, as_stored=True, batch_size=NUM))
    np.testing.assert_array_equal(runner.shown[0], image_set().images[:, 4:12, 4:12])
    large = Brightness(replace(PRE, image_px=24, resize_px=24))
    with pytest.raises(RunFailed, match="is stored with 16 x 16 pixels and not resized, but the model wants 24"):
        ran(asked(wide, runners={"m": large}, as_stored=True))


def test_logits_that_are_no_numbers_or_too_few_are_told_with_the_models_name() -> None:
    class Broken(Brightness):
        def infer(self, images: np.ndarray) -> np.ndarray:
            return np.full((len(images), 3), np.nan, np.float32)

    class Short(Brightness):
        def infer(self, images: np.ndarray) -> np.ndarray:
            return np.zeros((1, 3), np.float32)

    with pytest.raises(RunFailed, match=r"^broken on set: logits of 4 of 4 images are not finite"):
        ran(asked(files(), runners={"broken": Broken()}, batch_size=4))
    with pytest.raises(RunFailed, match=r"^short: gives logits of shape \[1, 3\] for 4 images; wanted one row per image"):
        ran(asked(files(), runners={"short": Short()}, batch_size=4))


def test_progress_is_told_in_images() -> None:
    told: list[tuple[int, int]] = []
    list(run_pass(asked(files(), batch_size=10), workers=1, tick=lambda done, total: told.append((done, total))))
    assert told == [(0, NUM), (10, NUM), (20, NUM), (NUM, NUM)]


def test_each_thread_computes_on_one_core_and_torchs_setting_is_left_as_it_was() -> None:
    seen: list[int] = []

    class Watching(Brightness):
        def infer(self, images: np.ndarray) -> np.ndarray:
            seen.append(torch.get_num_threads())
            return super().infer(images)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        ran(asked(files(), runners={"m": Watching()}, batch_size=4), workers=3)
        with ThreadPoolExecutor(1) as pool:
            after = pool.submit(torch.get_num_threads).result()
        assert set(seen) == {1} and (torch.get_num_threads(), after) == (2, 2)
    finally:
        torch.set_num_threads(before)
