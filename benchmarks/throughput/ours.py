"""Our side: the public pieces that the stages put together, in the order in which the loop runs them."""

import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn

from g2sd_deploy.data.mixing import NUM_MIX_DRAWS, mix_pairs
from g2sd_deploy.methods.classification import ClassifierLearner, smoothed_one_hot
from g2sd_deploy.methods.g2sd import G2sdLearner
from g2sd_deploy.methods.specific import hard_distillation_loss
from g2sd_deploy.methods.views import LabelledViews, Views
from g2sd_deploy.models.frozen import cast_frozen
from g2sd_deploy.models.masked import GenericStudent, Mask, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier
from g2sd_deploy.randomness import uniform
from g2sd_deploy.settings import ClassifyTrainSettings, MixSettings, TrainSettings
from g2sd_deploy.training.optimizer import build_optimizer
from g2sd_deploy.training.schedule import learning_rate
from throughput.cases import CUTMIX, LAYER_DECAY, MASK_RATIO, MIXUP, SMOOTHING, Case

NUM_STEPS = 100_000
LOG_EVERY = 10
Scope = Callable[[str], AbstractContextManager[object]]


def unnoted(_: str) -> AbstractContextManager[object]:
    return nullcontext()


class Ours:
    """Trains a case with our code, on a batch of bytes.

    Args:
        precision: fp32, or the autocast type bf16 or fp16 (fp16 with a loss scaler).
        compiled: Compile the learner with torch.compile.
        scope: Entered with the name of each phase of a step; a profiler's.
    """

    def __init__(self, case: Case, batch: int, device: torch.device, precision: str, compiled: bool, scope: Scope = unnoted) -> None:
        self.scope = scope
        self.case, self.batch_size, self.device, self.precision, self.compiled = case, batch, device, precision, compiled
        self.scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
        self.step = 0

    def build(self) -> None:
        """Make both networks, the optimiser and a batch."""
        case, batch, device = self.case, self.batch_size, self.device
        draws = torch.Generator().manual_seed(0)
        px = case.student.image_px
        pixels = torch.randint(256, (batch, 3, px, px), dtype=torch.uint8, generator=draws)
        labels = torch.randint(case.num_classes, (batch,), generator=draws)
        self.batch = (pixels.pin_memory(), labels.pin_memory()) if device.type == "cuda" else (pixels, labels)
        self.indices = np.arange(batch)
        self.mean, self.std = (torch.tensor(v, device=device).view(1, -1, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        torch.manual_seed(0)
        learner, settings = (_generic if case.stage == "generic" else _specific)(case, batch, AUTOCAST[self.precision], device, self.scope)
        learner.to(device).train()
        depth, decay = case.student.depth, settings.layer_decay if isinstance(settings, ClassifyTrainSettings) else 1.0
        trained = learner.model if isinstance(learner, ClassifierLearner) else learner
        self.optimizer = build_optimizer(trained, settings, depth=depth, layer_decay=decay, no_decay=Classifier.no_weight_decay)
        if self.compiled:
            learner.compile()
        self.learner = learner

    def run(self, steps: int) -> list[float]:
        """Seconds of each of some steps; on a GPU by events, so that nothing waits for it in between."""
        marks = [_mark(self.device)]
        for _ in range(steps):
            self._train_step()
            marks.append(_mark(self.device))
        return _seconds(marks)

    def _train_step(self) -> None:
        rate = learning_rate(self.step, num_steps=NUM_STEPS, warmup_steps=0, peak=1e-4, floor=1e-6)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["lr_scale"]
        with self.scope("inputs"):
            pixels, labels = (part.to(self.device, non_blocking=True) for part in self.batch)
            images = (pixels.float() / 255 - self.mean) / self.std
            given = self._views(images) if self.case.stage == "generic" else self._labelled(images, labels)
        dtype = AUTOCAST[self.precision]
        with self.scope("forward"), torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
            terms: Mapping[str, Tensor] = self.learner(given)
            loss = torch.stack(list(terms.values())).sum()
        self.optimizer.zero_grad(set_to_none=True)
        with self.scope("backward"):
            self.scaler.scale(loss).backward()
        with self.scope("optimizer"):
            self.scaler.step(self.optimizer)
            self.scaler.update()
        if self.step % LOG_EVERY == 0:
            loss.item()
        self.step += 1

    def _views(self, images: Tensor) -> Views:
        noise = uniform(0, "mask", self.step, self.indices, self.case.student.num_patches)
        draws = uniform(0, "drop_path", self.step, self.indices, 2 * self.case.student.depth)
        noise_on, draws_on = (torch.from_numpy(value).to(self.device, non_blocking=True) for value in (noise, draws))
        return Views(images, images, noise_on, draws_on.view(-1, self.case.student.depth, 2))

    def _labelled(self, images: Tensor, labels: Tensor) -> LabelledViews:
        targets = smoothed_one_hot(labels, self.case.num_classes, SMOOTHING)
        draws = uniform(0, "mix", self.step, self.indices[::2], NUM_MIX_DRAWS)
        mixed = mix_pairs(images, targets, MixSettings(mixup=MIXUP, cutmix=CUTMIX), draws)
        return LabelledViews(mixed.images, mixed.targets)


AUTOCAST = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def _generic(case: Case, batch: int, dtype: torch.dtype, device: torch.device, scope: Scope) -> tuple[nn.Module, TrainSettings]:
    teacher = MaskedAutoencoder(case.teacher, case.teacher_decoder).to(device).requires_grad_(False).eval()
    cast_frozen(teacher, dtype)
    student = GenericStudent(case.student, case.student_decoder, case.teacher_decoder.width)

    def target(images: Tensor, mask: Mask) -> Tensor:
        with scope("teacher"):
            return teacher.hidden_states(images, mask, case.teacher_blocks)

    settings = TrainSettings(epochs=1, batch_size=batch, base_lr=1e-4, betas=(0.9, 0.95))
    return G2sdLearner(student, target, mask_ratio=MASK_RATIO), settings


def _specific(case: Case, batch: int, dtype: torch.dtype, device: torch.device, scope: Scope) -> tuple[nn.Module, TrainSettings]:
    teacher = Classifier(case.teacher, case.num_classes, pooling="mean").to(device).requires_grad_(False).eval()
    cast_frozen(teacher, dtype)
    student = Classifier(case.student, case.num_classes, pooling="cls", token="g2sd")

    def loss(logits: Tensor, dist_logits: Tensor | None, views: LabelledViews) -> Tensor:
        assert dist_logits is not None
        with torch.no_grad(), scope("teacher"):
            decided = teacher(views.images)
        return hard_distillation_loss(logits, dist_logits, views.targets, decided)

    settings = ClassifyTrainSettings(epochs=1, batch_size=batch, base_lr=1e-4, layer_decay=LAYER_DECAY)
    return ClassifierLearner(student, loss), settings


def _mark(device: torch.device) -> "float | torch.cuda.Event":
    if device.type != "cuda":
        return time.perf_counter()
    event = torch.cuda.Event(enable_timing=True)
    event.record()
    return event


def _seconds(marks: "list[float | torch.cuda.Event]") -> list[float]:
    if isinstance(marks[0], float):
        return [float(b) - float(a) for a, b in pairwise(marks)]
    torch.cuda.synchronize()
    return [a.elapsed_time(b) / 1000 for a, b in pairwise(marks)]
