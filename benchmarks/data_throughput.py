"""Images per second of one core: this package's loader against torchvision's ImageFolder and transforms, side by side.

    python benchmarks/data_throughput.py FOLDER [--images 512] [--rounds 9] [--batch 64]

FOLDER holds train/CLASS/IMAGE (Imagenette at 224 px). Measured are the images as they are, and the same photographs enlarged to 500 x 375
at JPEG quality 90, which is what most of ImageNet looks like; each from plain folders and from shards made by `g2sd data prepare
--short-side 256 --shards`, without and with RandAugment. Every round loads each batch once with each contender, in turn, in one process on
one thread, out of the page cache; seconds are those of the processor, so that a busy machine disturbs little. Ratios are of medians.

torchvision: RandomResizedCrop(224), RandomHorizontalFlip, timm's RandAugment where named, ToTensor, Normalize, stacked to a float batch.
This package: the same boxes' distribution, filter and policy, to a uint8 batch (as it goes to a GPU, which normalises it), and to the same
normalised float batch. Prints a table and, last, one JSON line.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.table import Table
from timm.data.auto_augment import RandAugment, rand_augment_transform
from torchvision import transforms
from torchvision.datasets import ImageFolder

from g2sd_deploy.data.crop_maker import CropMaker
from g2sd_deploy.data.encoding import Encoding
from g2sd_deploy.data.images import Samples, evenly_spread
from g2sd_deploy.data.loading import Loader, Ticket
from g2sd_deploy.data.preparing import Options, prepare
from g2sd_deploy.data.rand_augment import fill_from_mean
from g2sd_deploy.data.sources import open_source
from g2sd_deploy.environment import machine
from g2sd_deploy.settings import ClassifyAugmentSettings

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
POLICY = "rand-m9-mstd0.5-inc1"
IMAGE_PX, LARGE, LARGE_QUALITY = 224, (500, 375), 90
GOALS = {"folder": 2.0, "shards": 3.0}

Load = Callable[[np.ndarray], torch.Tensor]


@dataclass
class Contender:
    """Loads the images of given indices to a batch; `seconds` holds the processor time of each batch."""

    name: str
    load: Load
    seconds: list[float]


def rival(folder: Path, policy: str | None) -> Load:
    """torchvision's own way: one image after the other to a normalised float tensor."""
    hparams = {"translate_const": 100, "img_mean": fill_from_mean(MEAN), "interpolation": Image.Resampling.BILINEAR}
    steps = [transforms.RandomResizedCrop(IMAGE_PX), transforms.RandomHorizontalFlip()]
    steps += [runnable(rand_augment_transform(policy, hparams))] if policy else []
    data = ImageFolder(str(folder), transforms.Compose([*steps, transforms.ToTensor(), transforms.Normalize(MEAN, STD)]))
    return lambda indices: torch.stack([data[int(index)][0] for index in indices])


def runnable(policy: RandAugment) -> RandAugment:
    """timm's policy, changed only so that it runs: one image in 700 is posterised to no bits, which Pillow 13 answers with an error."""
    for operation in policy.ops:
        if operation.name.startswith("Posterize"):
            posterize = operation.aug_fn
            operation.aug_fn = lambda image, bits, _own=posterize, **keywords: _own(image, max(bits, 1), **keywords)
    return policy


def ours(samples: Samples, policy: str | None, *, normalised: bool) -> Load:
    """This package's loader, in this process."""
    augment = ClassifyAugmentSettings(crop_scale=(0.08, 1.0), rand_augment=policy)
    maker = CropMaker(samples, augment, seed=0, image_px=IMAGE_PX, num_channels=3, mean=MEAN)
    loader = Loader(maker, workers=0, pin_memory=False)
    mean, std = (255 * torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))

    def load(indices: np.ndarray) -> torch.Tensor:
        pixels = next(iter(loader.load([Ticket(0, indices)]))).pixels
        return pixels.float().sub_(mean).div_(std) if normalised else pixels

    return load


def measure(contenders: list[Contender], num_images: int, *, batch: int, rounds: int) -> None:
    """Fill in the seconds: batches in turn, after one that is not counted."""
    for turn in range(rounds + 1):
        for start in range(0, num_images, batch):
            indices = np.arange(start, min(start + batch, num_images))
            for contender in contenders:
                before = time.process_time()
                contender.load(indices)
                if turn:
                    contender.seconds.append((time.process_time() - before) / len(indices))


def small_copy(folder: Path, target: Path, num: int) -> None:
    """Links to `num` images, spread evenly."""
    files = sorted(path for path in folder.glob("train/*/*") if path.is_file())
    for pick in evenly_spread(len(files), min(num, len(files))):
        link = target / files[pick].relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        link.write_bytes(files[pick].read_bytes())


def enlarged_copy(folder: Path, target: Path) -> None:
    """The same images at the size of most photographs of ImageNet."""
    for path in sorted(folder.glob("train/*/*")):
        link = target / path.relative_to(folder)
        link.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            image.convert("RGB").resize(LARGE, Image.Resampling.BICUBIC).save(link, "JPEG", quality=LARGE_QUALITY)


def shards_of(folder: Path, target: Path) -> Samples:
    """What `g2sd data prepare --short-side 256 --shards` makes of a folder, opened."""
    options = Options(Encoding(256, 95), shards=True, images_per_part=1000, splits=("train",))
    prepare(open_source("folder", str(folder)), folder.name, target, options, workers=1, max_bad=0, tick=lambda done, wanted: None)
    return open_source("shards", str(target)).samples("train", None)


def mean_bytes(samples: Samples) -> float:
    return statistics.mean(len(samples.read(index)) for index in range(len(samples)))


def compare(name: str, folder: Path, shards: Path, args: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """All contenders on one set of images."""
    stored = {"folder": open_source("folder", str(folder)).samples("train", None), "shards": shards_of(folder, shards)}
    for policy in (None, POLICY):
        contenders = [Contender("torchvision", rival(folder / "train", policy), [])]
        for where, samples in stored.items():
            contenders += [
                Contender(f"{where} uint8", ours(samples, policy, normalised=False), []),
                Contender(f"{where} float", ours(samples, policy, normalised=True), []),
            ]
        measure(contenders, len(stored["folder"]), batch=args.batch, rounds=args.rounds)
        rates = {contender.name: 1 / statistics.median(contender.seconds) for contender in contenders}
        for where, samples in stored.items():
            yield {
                "images": name,
                "rand_augment": policy,
                "from": where,
                "kib_per_image": mean_bytes(samples) / 1024,
                "torchvision_per_s": rates["torchvision"],
                "uint8_per_s": rates[f"{where} uint8"],
                "float_per_s": rates[f"{where} float"],
                "ratio_uint8": rates[f"{where} uint8"] / rates["torchvision"],
                "ratio_float": rates[f"{where} float"] / rates["torchvision"],
                "goal": GOALS[where],
            }


def show(rows: list[dict[str, Any]]) -> None:
    table = Table(title="Images per second of one core")
    for column in ("images", "RandAugment", "from", "KiB", "torchvision", "uint8", "float", "ratio uint8", "ratio float", "goal"):
        table.add_column(column, justify="left" if column in ("images", "RandAugment", "from") else "right")
    for row in rows:
        numbers = [f"{row[key]:,.0f}" for key in ("kib_per_image", "torchvision_per_s", "uint8_per_s", "float_per_s")]
        ratios = [f"{row['ratio_uint8']:.2f}", f"{row['ratio_float']:.2f}", f"{row['goal']:.0f}"]
        table.add_row(row["images"], "yes" if row["rand_augment"] else "no", row["from"], *numbers, *ratios)
    Console(width=140).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as text:
        small, large = Path(text) / "small", Path(text) / "large"
        small_copy(args.folder, small, args.images)
        enlarged_copy(small, large)
        for name, folder in (("as they are", small), (f"{LARGE[0]} x {LARGE[1]}", large)):
            rows += compare(name, folder, folder.with_suffix(".shards"), args)
    show(rows)
    print(json.dumps({"images": args.images, "rounds": args.rounds, "batch": args.batch, "machine": machine(), "rows": rows}))


if __name__ == "__main__":
    main()
