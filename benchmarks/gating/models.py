"""Real models for the gate study: a trained student, retrained ones, and damaged ones, with what each got right."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from g2sd_deploy.models.checkpoint import load_classifier, load_generic
from g2sd_deploy.models.vit import Classifier, start_from
from g2sd_export.bundle import open_bundle
from g2sd_export.edge.opening import open_variant

_BATCH = 250
SIGMAS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4)
"""Weight noise relative to the deviation of each tensor."""
BITS = (6, 5, 4, 3)
"""Bits that weights are rounded to."""


@dataclass(frozen=True)
class Images:
    """A split as the network takes it.

    Attributes:
        pixels: Normalised, [num, channels, px, px].
        labels: [num].
    """

    pixels: torch.Tensor
    labels: torch.Tensor


def images_of(run: Path, split: str) -> Images:
    """A split of the run's data, normalised as its student wants it."""
    pre = load_classifier(run / "specific" / "classifier.safetensors").preprocessing
    raw = torch.from_numpy(np.load(run / "data" / f"{split}_images.npy")).permute(0, 3, 1, 2).float() / 255
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (pre.mean, pre.std))
    return Images((raw - mean) / std, torch.from_numpy(np.load(run / "data" / f"{split}_labels.npy")).long())


def student_of(run: Path) -> Classifier:
    """The run's student, in evaluation mode."""
    return load_classifier(run / "specific" / "classifier.safetensors").model.eval()


def right_of(model: torch.nn.Module, images: Images) -> np.ndarray:
    """Whether the model is right, by image."""
    model.eval()
    with torch.inference_mode():
        answers = [model(images.pixels[start : start + _BATCH]).argmax(1) for start in range(0, len(images.labels), _BATCH)]
    found: np.ndarray = (torch.cat(answers) == images.labels).numpy()
    return found


def exported(run: Path, threads: int) -> Iterator[tuple[str, np.ndarray]]:
    """Every variant of the run's bundle that opens here, and what it got right."""
    raw, labels = np.load(run / "data" / "test_images.npy"), np.load(run / "data" / "test_labels.npy")
    bundle = open_bundle(run / "export" / "bundle")
    for variant in bundle.variants:
        runner = open_variant(bundle, variant, threads=threads)
        answers = [runner.infer(raw[start : start + _BATCH]).argmax(1) for start in range(0, len(labels), _BATCH)]
        yield variant.name, np.concatenate(answers) == labels


def retrained(run: Path, images: Images, *, seed: int, epochs: float) -> Classifier:
    """The run's student trained again on labels alone, from its generic stage: other batches, another head."""
    like = student_of(run)
    torch.manual_seed(seed)
    model = Classifier(like.encoder.spec, like.head.out_features, pooling=like.pooling, token=like.token)
    start_from(model, load_generic(run / "generic" / "generic.safetensors").encoder)
    rng, batch = np.random.default_rng(seed), 64
    steps = round(epochs * len(images.labels) / batch)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-3, total_steps=steps, pct_start=0.1)
    model.train()
    for _ in range(steps):
        picks = torch.from_numpy(rng.integers(0, len(images.labels), batch))
        pixels = images.pixels[picks]
        flips = torch.from_numpy(rng.random(batch) < 0.5)
        pixels[flips] = pixels[flips].flip(-1)
        optimizer.zero_grad()
        F.cross_entropy(model(pixels), images.labels[picks], label_smoothing=0.1).backward()
        optimizer.step()
        schedule.step()
    return model.eval()


def damaged(model: Classifier, *, sigma: float, seed: int) -> Classifier:
    """A copy with noise added to every matrix of weights."""
    noisy, generator = copy.deepcopy(model), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in noisy.parameters():
            if weight.dim() > 1:
                weight += sigma * weight.std() * torch.randn(weight.shape, generator=generator)
    return noisy


def rounded(model: Classifier, *, bits: int) -> Classifier:
    """A copy whose matrices of weights are rounded to so many bits, symmetrically, by tensor."""
    coarse, most = copy.deepcopy(model), 2 ** (bits - 1) - 1
    with torch.no_grad():
        for weight in coarse.parameters():
            if weight.dim() > 1:
                step = weight.abs().max() / most
                weight.copy_((weight / step).round() * step)
    return coarse
