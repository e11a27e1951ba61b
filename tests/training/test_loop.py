"""The feed's promises about batches, and the loop on problems small enough to know the answer."""

from collections.abc import Callable
from itertools import islice

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.settings import AugmentSettings, ClassifyTrainSettings, TrainSettings
from g2sd_deploy.training.loop import LOG_EVERY_STEPS, Batch, Feed, Row, TrainLog, train
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.schedule import learning_rate

CPU = torch.device("cpu")
STILL = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)


def image_set(num: int = 22) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(0)
    labels = np.arange(num, dtype=np.int64) % 2
    pixels = random.integers(0, 100, (num, 8, 8, 1)) + 120 * labels[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels)


def feed_of(num: int = 22, *, seed: int = 0, **settings: object) -> Feed:
    chosen = {"epochs": 2.0, "batch_size": 4, "base_lr": 0.1, **settings}
    return Feed(image_set(num), TrainSettings.model_validate(chosen), seed, 8, (0.25,), (0.5,), CPU)


def ignore(row: Row, num_steps: int, images_per_s: float) -> None:
    pass


def cross_entropy_of(model: nn.Module) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda batch: {"loss": F.cross_entropy(model(batch.images), batch.labels)}


def classify(feed: Feed, model: nn.Module | None = None) -> tuple[nn.Module, TrainLog]:
    """Supervised training of a tiny ViT."""
    if model is None:
        torch.manual_seed(1)
        model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=2, heads=2), 2, pooling="cls")
    log = train(model, build_optimizer(model, feed.settings), feed, cross_entropy_of(model), ignore)
    return model, log


def test_an_epoch_visits_each_image_at_most_once_and_drops_the_last_incomplete_batch() -> None:
    feed = feed_of(22, epochs=2.0)
    batches = list(feed.batches())
    assert (feed.steps_per_epoch, feed.num_steps, len(batches)) == (5, 10, 10)
    for epoch in range(2):
        visited = np.concatenate([batch.indices for batch in batches[5 * epoch : 5 * epoch + 5]])
        assert len(set(visited.tolist())) == 20
    assert [batch.epoch for batch in batches] == [0] * 5 + [1] * 5
    assert [batch.step for batch in batches] == list(range(10))
    assert not np.array_equal(batches[0].indices, batches[5].indices)


@pytest.mark.parametrize(("epochs", "num_steps"), [(0.01, 1), (0.4, 2), (1.5, 8), (3.0, 15)])
def test_epochs_may_be_fractions_and_one_step_is_always_made(epochs: float, num_steps: int) -> None:
    assert len(list(feed_of(22, epochs=epochs).batches())) == num_steps


def test_labels_stay_with_their_images() -> None:
    for batch in feed_of(augment=STILL).batches():
        assert batch.labels.tolist() == (batch.indices % 2).tolist()
        assert torch.equal(batch.images.mean(dim=(1, 2, 3)) > 0.3, batch.labels == 1)


def test_images_are_channels_first_scaled_to_one_and_normalised() -> None:
    feed = feed_of(augment=STILL)
    batch = next(feed.batches())
    expected = (feed.data.images[batch.indices].astype(np.float64).transpose(0, 3, 1, 2) / 255 - 0.25) / 0.5
    np.testing.assert_allclose(batch.images.numpy(), expected, atol=2e-6)


def test_colours_are_normalised_each_by_its_own_constants() -> None:
    pixels = np.full((4, 8, 8, 3), (0, 51, 255), dtype=np.uint8)
    settings = TrainSettings(epochs=1.0, batch_size=4, base_lr=0.1)
    feed = Feed(ImageSet(pixels, np.zeros(4, np.int64)), settings, 0, 8, (0.5, 0.2, 0.0), (0.5, 1.0, 2.0), CPU)
    torch.testing.assert_close(next(feed.batches()).images[0, :, 0, 0], torch.tensor([-1.0, 0.0, 0.5]))


def same(one: Batch, two: Batch) -> bool:
    return torch.equal(one.images, two.images) and torch.equal(one.labels, two.labels) and np.array_equal(one.indices, two.indices)


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
    assert not np.array_equal(one.indices, two.indices)


def test_an_image_is_cropped_alike_whatever_batch_it_is_in_and_otherwise_in_the_next_epoch() -> None:
    def crops(feed: Feed, epoch: int) -> dict[int, Tensor]:
        return {
            int(i): image for batch in feed.batches() if batch.epoch == epoch for i, image in zip(batch.indices, batch.images, strict=True)
        }

    small, large = crops(feed_of(24, batch_size=4), 0), crops(feed_of(24, batch_size=12), 0)
    assert all(torch.equal(small[i], large[i]) for i in range(24))
    later = crops(feed_of(24, batch_size=4), 1)
    assert not any(torch.equal(small[i], later[i]) for i in range(24))


def test_a_batch_larger_than_the_data_is_refused() -> None:
    with pytest.raises(UserError, match="batch_size is 23, but there are only 22 training images; lower batch_size"):
        classify(feed_of(batch_size=23))


def test_training_twice_gives_the_same_weights_and_losses_bit_for_bit() -> None:
    (one, one_log), (two, two_log) = classify(feed_of(epochs=3.0)), classify(feed_of(epochs=3.0))
    assert one_log.history == two_log.history
    assert all(torch.equal(value, two.state_dict()[name]) for name, value in one.state_dict().items())


def test_the_loss_goes_down_on_an_easy_problem_and_the_images_are_counted() -> None:
    model, log = classify(feed_of(epochs=30.0, base_lr=0.3, augment=STILL))
    assert log.history[0]["loss"] == pytest.approx(0.69, abs=0.01)
    assert log.history[-1]["loss"] < 0.05
    assert log.images_seen == 30 * 20
    assert log.images_per_s == pytest.approx(log.images_seen / log.seconds)
    assert model.training


def test_history_holds_every_tenth_step_and_the_last_with_epoch_and_rate() -> None:
    seen: list[tuple[Row, int]] = []
    feed = feed_of(epochs=4.6, base_lr=0.64, min_lr=1e-3, warmup_epochs=1.0)  # 23 steps
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    optimizer = build_optimizer(model, feed.settings)
    log = train(model, optimizer, feed, cross_entropy_of(model), lambda row, num_steps, _: seen.append((row, num_steps)))
    assert LOG_EVERY_STEPS == 10
    assert [row["step"] for row in log.history] == [0, 10, 20, 22]
    assert [row["epoch"] for row in log.history] == pytest.approx([0.0, 2.0, 4.0, 4.4])
    rates = [learning_rate(step, num_steps=23, warmup_steps=5, peak=0.01, floor=1e-3) for step in (0, 10, 20, 22)]
    assert [row["lr"] for row in log.history] == pytest.approx(rates)
    assert seen == [(row, 23) for row in log.history]
    assert all(set(row) == {"step", "epoch", "loss", "lr"} for row in log.history)


def test_a_loss_of_several_terms_is_their_sum_and_history_names_each() -> None:
    feed, model = feed_of(epochs=0.4, base_lr=1e-9), nn.Linear(1, 1, bias=False)

    def terms_of(batch: Batch) -> dict[str, Tensor]:
        weight = model.weight.sum()
        return {"near": weight * 2, "far": weight * 0 + 7.0}

    with torch.no_grad():
        model.weight.fill_(1.5)
    log = train(model, build_optimizer(model, feed.settings), feed, terms_of, ignore)
    assert model.weight.grad is not None and model.weight.grad.item() == 2.0
    assert [set(row) for row in log.history] == [{"step", "epoch", "loss", "loss_near", "loss_far", "lr"}] * 2
    assert (log.history[0]["loss"], log.history[0]["loss_near"], log.history[0]["loss_far"]) == (10.0, 3.0, 7.0)


class Slope(nn.Module):
    """A loss whose slope is 1 in every weight: Adam then moves each weight by its learning rate."""

    def __init__(self) -> None:
        super().__init__()
        self.near = nn.Parameter(torch.zeros(()))
        self.far = nn.Parameter(torch.zeros(()))


def test_each_group_moves_at_its_own_share_of_the_schedules_rate() -> None:
    feed, model = feed_of(epochs=3.0, base_lr=0.64, min_lr=1e-3), Slope()
    groups = [{"params": [model.near], "lr_scale": 1.0}, {"params": [model.far], "lr_scale": 0.25}]
    optimizer = torch.optim.AdamW(groups, lr=0.0, weight_decay=0.0)
    train(model, optimizer, feed, lambda _: {"loss": model.near + model.far}, ignore)
    total = sum(learning_rate(step, num_steps=15, warmup_steps=0, peak=0.64 * 4 / 256, floor=1e-3) for step in range(15))
    assert -model.near.item() == pytest.approx(total, rel=1e-5)
    assert -model.far.item() == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_decides_the_format_of_the_matrix_products(precision: str, dtype: torch.dtype) -> None:
    model, dtypes = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), set()

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images)
        dtypes.add(logits.dtype)
        return {"loss": F.cross_entropy(logits.float(), batch.labels)}

    feed = feed_of(epochs=1.0, precision=precision)
    train(model, build_optimizer(model, feed.settings), feed, loss_of, ignore)
    assert dtypes == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def diverging(model: nn.Module, at_step: int, value: float) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda batch: {"loss": model(batch.images).square().mean() * (value if batch.step >= at_step else 1.0)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize(("at_step", "noticed"), [(0, 1), (3, 10)])
def test_a_loss_that_is_not_finite_stops_the_run(value: float, at_step: int, noticed: int) -> None:
    feed, model = feed_of(), nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    optimizer = build_optimizer(model, feed.settings)
    with pytest.raises(
        RunFailed, match=rf"the loss became (nan|inf) at step {noticed} of 10; lower base_lr, set clip_grad or use precision fp32"
    ):
        train(model, optimizer, feed, diverging(model, at_step, value), ignore)


def test_the_model_is_put_into_training_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    modes: list[bool] = []
    feed = feed_of(epochs=0.2)

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        modes.append(model.training)
        return {"loss": model(batch.images).square().mean()}

    train(model, build_optimizer(model, feed.settings), feed, loss_of, ignore)
    assert modes == [True]


def slopes(model: Slope, near: float, far: float) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda _: {"loss": near * model.near + far * model.far}


@pytest.mark.parametrize(("clip_grad", "share"), [(None, 1.0), (1.0, 0.2), (5.5, 1.0)])
def test_a_gradient_longer_than_the_limit_is_shortened_and_keeps_its_direction(clip_grad: float | None, share: float) -> None:
    feed, model = feed_of(epochs=0.2, base_lr=64.0, clip_grad=clip_grad), Slope()  # one step at rate 1
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.0)
    train(model, optimizer, feed, slopes(model, 3.0, 4.0), ignore)  # of length 5
    assert (model.near.item(), model.far.item()) == pytest.approx((-3.0 * share, -4.0 * share), rel=1e-5)


def weights_after_each_step(feed: Feed) -> list[dict[str, Tensor]]:
    """Of the same training without an average."""
    torch.manual_seed(1)
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=2, heads=2), 2, pooling="cls")
    seen: list[dict[str, Tensor]] = []

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return cross_entropy_of(model)(batch)

    train(model, build_optimizer(model, feed.settings), feed, loss_of, ignore)
    return [*seen[1:], model.state_dict()]


def classify_feed(**settings: object) -> Feed:
    chosen = {"epochs": 2.0, "batch_size": 4, "base_lr": 0.3, **settings}
    return Feed(image_set(), ClassifyTrainSettings.model_validate(chosen), 0, 8, (0.25,), (0.5,), CPU)


def test_a_moving_average_of_the_weights_is_what_the_model_holds_at_the_end() -> None:
    steps = weights_after_each_step(classify_feed())
    model, log = classify(classify_feed(ema_decay=0.8))
    assert len(steps) == log.num_steps == 10
    for name, value in model.state_dict().items():
        average = steps[0][name].double()
        for step in steps[1:]:
            average = 0.8 * average + 0.2 * step[name].double()
        torch.testing.assert_close(value, average.float(), rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.allclose(model.state_dict()["head.weight"], steps[-1]["head.weight"], rtol=1e-3)


def test_without_an_average_the_model_holds_the_last_weights() -> None:
    last = weights_after_each_step(classify_feed())[-1]
    assert all(torch.equal(value, last[name]) for name, value in classify(classify_feed())[0].state_dict().items())
