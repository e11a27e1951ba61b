"""Train the ViT-Ti/16 and ViT-S/16 that the deployment measurements use, on Imagenette and a CPU.

No pretrained ViT is needed: the network learns at 96 px, where a step costs a quarter, then its positions are stretched to 224 px and it
learns on for a part of an epoch. The result is a model with real margins and real outliers, not a good one.

    python benchmarks/imagenette_vits.py --data FOLDER --size tiny --out vit_tiny.safetensors
"""

import argparse
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from g2sd_deploy.models.adapt import at_image_size
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_export.edge.preprocess import Preprocessing

SHAPES = {"tiny": (192, 3), "small": (384, 6)}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SMALL_PX, FULL_PX = 96, 224


def build(size: str, image_px: int, num_classes: int) -> Classifier:
    """A classifier of the shape that is asked for."""
    width, heads = SHAPES[size]
    return Classifier(EncoderSpec(image_px, 16, 3, width, 12, heads), num_classes, pooling="mean")


def train(model: Classifier, folder: Path, image_px: int, *, epochs: float, lr: float, batch: int = 64) -> None:
    """AdamW with a warm-up and a cosine, bf16 autocast."""
    crop = v2.Compose([v2.RandomResizedCrop(image_px, scale=(0.3, 1), antialias=True), v2.RandomHorizontalFlip(), v2.PILToTensor()])
    loader = DataLoader(ImageFolder(folder, crop), batch, shuffle=True, drop_last=True)
    steps = max(1, round(epochs * len(loader)))
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1, (step + 1) / (0.1 * steps)) * (0.02 + 0.49 * (1 + math.cos(math.pi * min(1, step / steps))))
    )
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    step, started, shown = 0, time.monotonic(), 0.0
    model.train()
    while step < steps:
        for images, labels in loader:
            with torch.autocast("cpu", torch.bfloat16):
                loss = F.cross_entropy(model((images - mean) / std).float(), labels, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            step, shown = step + 1, shown * 0.98 + loss.item() * 0.02
            if step % 50 == 0 or step == steps:
                print(
                    f"{image_px} px  step {step}/{steps}  loss {shown / (1 - 0.98**step):.3f}  {time.monotonic() - started:.0f} s",
                    flush=True,
                )
            if step == steps:
                return


@torch.inference_mode()
def top1(model: Classifier, folder: Path, image_px: int) -> float:
    """Share of right decisions on images of this size."""
    view = v2.Compose([v2.Resize(image_px, antialias=True), v2.CenterCrop(image_px), v2.PILToTensor()])
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) * 255 for values in (MEAN, STD))
    model.eval()
    right: list[Tensor] = []
    for images, labels in DataLoader(ImageFolder(folder, view), 64):
        right.append(model((images - mean) / std).argmax(1) == labels)
    return float(torch.cat(right).float().mean())


def main() -> None:
    """Train, say the accuracy, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder with train/ and val/ of Imagenette")
    parser.add_argument("--size", choices=sorted(SHAPES), required=True)
    parser.add_argument("--out", type=Path, required=True, help=".safetensors file to write")
    parser.add_argument("--epochs", type=float, default=10, help="at 96 px")
    parser.add_argument("--full-epochs", type=float, default=0.5, help="at 224 px")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    classes = tuple(ImageFolder(arguments.data / "train").classes)
    model = build(arguments.size, SMALL_PX, len(classes))
    train(model, arguments.data / "train", SMALL_PX, epochs=arguments.epochs, lr=1e-3)
    print(f"top-1 at {SMALL_PX} px: {top1(model, arguments.data / 'val', SMALL_PX):.2%}", flush=True)
    model = at_image_size(model, FULL_PX)
    train(model, arguments.data / "train", FULL_PX, epochs=arguments.full_epochs, lr=2e-4, batch=32)
    print(f"top-1 at {FULL_PX} px: {top1(model, arguments.data / 'val', FULL_PX):.2%}", flush=True)
    pre = Preprocessing(FULL_PX, FULL_PX, 3, MEAN, STD)
    save_classifier(arguments.out, ClassifierFile(model, pre, classes))


if __name__ == "__main__":
    main()
