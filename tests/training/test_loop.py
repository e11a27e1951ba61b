"""The loop on problems small enough to know the answer."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import AugmentSettings, TrainSettings
from g2sd_deploy.training.feed import Batch, Feed
from g2sd_deploy.training.loop import train
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.record import LOG_EVERY_STEPS, Listener, Row, TrainLog
from g2sd_deploy.training.schedule import learning_rate

STILL = AugmentSettings(crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), flip=False)
SILENT = Listener(begun=lambda *_: None, row=lambda *_: None, warn=lambda _: None)


def image_set(num: int = 22) -> ImageSet:
    """Two classes that differ in brightness."""
    random = np.random.default_rng(0)
    labels = np.arange(num, dtype=np.int64) % 2
    pixels = random.integers(0, 100, (num, 8, 8, 1)) + 120 * labels[:, None, None, None]
    return ImageSet(pixels.astype(np.uint8), labels)


def feed_of(num: int = 22, *, seed: int = 0, micro_batch: int | None = None, **settings: object) -> Feed:
    chosen = {"epochs": 2.0, "batch_size": 4, "base_lr": 0.1, **settings}
    runtime = Runtime(torch.device("cpu"), micro_batch=micro_batch)
    return Feed(image_set(num), TrainSettings.model_validate(chosen), seed, 8, (0.25,), (0.5,), runtime)


class Learner(nn.Module):
    """A network with the loss that a test gives it."""

    def __init__(self, model: nn.Module, terms_of: Callable[[Batch], dict[str, Tensor]]) -> None:
        super().__init__()
        self.model = model
        self.terms_of = terms_of

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        return self.terms_of(batch)


def cross_entropy_of(model: nn.Module) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda batch: {"loss": F.cross_entropy(model(batch.images), batch.truth)}


def run(
    feed: Feed,
    model: nn.Module,
    terms_of: Callable[[Batch], dict[str, Tensor]] | None = None,
    *,
    optimizer: torch.optim.Optimizer | None = None,
    listener: Listener = SILENT,
    ema_decay: float | None = None,
) -> TrainLog:
    """Train on cross-entropy, or on what the test gives."""
    learner = Learner(model, terms_of or cross_entropy_of(model))
    return train(learner, optimizer or build_optimizer(model, feed.settings), feed, lambda batch: batch, listener, ema_decay=ema_decay)


def tiny_vit() -> nn.Module:
    torch.manual_seed(1)
    return Classifier(EncoderSpec(8, 4, 1, width=16, depth=2, heads=2), 2, pooling="cls")


def classify(feed: Feed, **options: float) -> tuple[nn.Module, TrainLog]:
    """Supervised training of a tiny ViT."""
    model = tiny_vit()
    return model, run(feed, model, **options)  # type: ignore[arg-type]


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
    log = run(feed, model, listener=Listener(lambda *_: None, lambda row, num_steps, _: seen.append((row, num_steps)), lambda _: None))
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
    log = run(feed, model, terms_of)
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
    run(feed, model, lambda _: {"loss": model.near + model.far}, optimizer=optimizer)
    total = sum(learning_rate(step, num_steps=15, warmup_steps=0, peak=0.64 * 4 / 256, floor=1e-3) for step in range(15))
    assert -model.near.item() == pytest.approx(total, rel=1e-5)
    assert -model.far.item() == pytest.approx(total / 4, rel=1e-5)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_precision_decides_the_format_of_the_matrix_products(precision: str, dtype: torch.dtype) -> None:
    model, dtypes = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), set()

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        logits = model(batch.images)
        dtypes.add(logits.dtype)
        return {"loss": F.cross_entropy(logits.float(), batch.truth)}

    feed = feed_of(epochs=1.0, precision=precision)
    run(feed, model, loss_of)
    assert dtypes == {dtype}
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def diverging(model: nn.Module, at_step: int, value: float) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda batch: {"loss": model(batch.images).square().mean() * (value if batch.turn.step >= at_step else 1.0)}


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("at_step", [0, 3])
def test_a_loss_that_is_not_finite_stops_the_run_and_its_first_step_is_named(value: float, at_step: int) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2))
    with pytest.raises(RunFailed, match=rf"the loss is not finite at step {at_step + 1} of 10; lower base_lr, set clip_grad or use"):
        run(feed_of(), model, diverging(model, at_step, value))


def test_the_model_is_put_into_training_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    modes: list[bool] = []
    feed = feed_of(epochs=0.2)

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        modes.append(model.training)
        return {"loss": model(batch.images).square().mean()}

    run(feed, model, loss_of)
    assert modes == [True]


def slopes(model: Slope, near: float, far: float) -> Callable[[Batch], dict[str, Tensor]]:
    return lambda _: {"loss": near * model.near + far * model.far}


@pytest.mark.parametrize(("clip_grad", "share"), [(None, 1.0), (1.0, 0.2), (5.5, 1.0)])
def test_a_gradient_longer_than_the_limit_is_shortened_and_keeps_its_direction(clip_grad: float | None, share: float) -> None:
    feed, model = feed_of(epochs=0.2, base_lr=64.0, clip_grad=clip_grad), Slope()  # one step at rate 1
    optimizer = torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.0)
    run(feed, model, slopes(model, 3.0, 4.0), optimizer=optimizer)  # of length 5
    assert (model.near.item(), model.far.item()) == pytest.approx((-3.0 * share, -4.0 * share), rel=1e-5)


def weights_after_each_step(feed: Feed) -> list[dict[str, Tensor]]:
    """Of the same training without an average."""
    torch.manual_seed(1)
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=2, heads=2), 2, pooling="cls")
    seen: list[dict[str, Tensor]] = []

    def loss_of(batch: Batch) -> dict[str, Tensor]:
        seen.append({name: value.clone() for name, value in model.state_dict().items()})
        return cross_entropy_of(model)(batch)

    run(feed, model, loss_of)
    return [*seen[1:], model.state_dict()]


def test_a_moving_average_of_the_weights_is_what_the_model_holds_at_the_end() -> None:
    steps = weights_after_each_step(feed_of(base_lr=0.3))
    model, log = classify(feed_of(base_lr=0.3), ema_decay=0.8)
    assert len(steps) == log.num_steps == 10
    for name, value in model.state_dict().items():
        average = steps[0][name].double()
        for step in steps[1:]:
            average = 0.8 * average + 0.2 * step[name].double()
        torch.testing.assert_close(value, average.float(), rtol=1e-5, atol=1e-6, msg=name)
    assert not torch.allclose(model.state_dict()["head.weight"], steps[-1]["head.weight"], rtol=1e-3)


def test_without_an_average_the_model_holds_the_last_weights() -> None:
    last = weights_after_each_step(feed_of(base_lr=0.3))[-1]
    assert all(torch.equal(value, last[name]) for name, value in classify(feed_of(base_lr=0.3))[0].state_dict().items())


@pytest.mark.parametrize("micro_batch", [2, 3, 1])
def test_a_batch_in_pieces_gives_the_gradient_of_the_whole_batch(micro_batch: int) -> None:
    found = []
    for size in (None, micro_batch):
        model = tiny_vit()
        descent = torch.optim.SGD([{"params": list(model.parameters()), "lr_scale": 1.0}], lr=0.0)
        found.append((run(feed_of(base_lr=3.0, micro_batch=size), model, optimizer=descent), model.state_dict()))
    (whole_log, whole), (pieces_log, pieces) = found
    assert [row["loss"] for row in pieces_log.history] == pytest.approx([row["loss"] for row in whole_log.history], rel=1e-5)
    for name, value in whole.items():
        torch.testing.assert_close(pieces[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_fp16_is_refused_where_there_is_no_gpu() -> None:
    with pytest.raises(UserError, match="precision fp16 needs a GPU"):
        classify(feed_of(precision="fp16"))
