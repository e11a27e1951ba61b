"""Write the folder that a user copies to a device: model, labels, a real sample with its answers, and the code that runs them."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jaxtyping import Float32, UInt8
from PIL import Image

from .edge.agreement import ParityTolerance
from .edge.errors import UserError
from .edge.manifest import (
    FORMAT,
    LABELS,
    MANIFEST,
    MANIFEST_DIGEST,
    MODEL,
    SAMPLE,
    SAMPLE_IMAGE,
    Bundle,
    open_bundle,
    record_of,
    sha256_of,
)
from .edge.preprocess import Preprocessing, load_image
from .edge.runner import INPUT_NAME, OUTPUT_NAME
from .edge.selftest import run_selftest

__all__ = ["Bundle", "open_bundle", "write_bundle"]

_README = """\
# {name}

An image classifier that carries its own proof. It needs Python 3.10 or newer and three packages, and talks to no network.

```sh
python -m pip install numpy pillow onnxruntime
python -m edge selftest
python -m edge predict {sample_image}
```

Run them inside this folder. `selftest` compares every file with `{manifest}`, then runs {num_sample} stored images and compares the
answers with those of the model that was trained: exit status 0 means that this machine reproduces them, 1 that it does not.
`predict` takes any image; `--json` makes either command print one JSON object.

| | |
| --- | --- |
| input | `{input_name}`: float32 [batch, {num_channels}, {image_px}, {image_px}], (pixel / 255 - mean) / std |
| preparation | short side to {resize_px} px ({interpolation}), centre crop of {image_px} px, {colour} |
| mean; std | {mean}; {std} |
| output | `{output_name}`: float32 [batch, {num_classes}] |
| classes | `{labels}`, one per line, in the order of the output |
| parity at export | {parity} |

In Python: `from edge.manifest import open_bundle`, then `open_bundle(folder).runner().infer(images)` with images as uint8
[batch, height, width, channels].
"""


def write_bundle(
    folder: Path,
    *,
    name: str,
    onnx_path: Path,
    preprocessing: Preprocessing,
    class_names: Sequence[str],
    sample_images: UInt8[np.ndarray, "num height width channels"],
    expected_logits: Float32[np.ndarray, "num classes"],
    tolerance: ParityTolerance,
    parity: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> Path:
    """Write a bundle, whole or not at all, and only if it passes its own self-test.

    Args:
        folder: The bundle's folder; must not exist, or be empty.
        name: Name of the model, for the manifest and the README.
        onnx_path: The model, as ``export_onnx`` writes it.
        preprocessing: How the model wants its images.
        class_names: One per logit, in order.
        sample_images: A few real images, at least one.
        expected_logits: What the reference model, not the exported one, answers for them.
        tolerance: How far a device may differ from ``expected_logits``.
        parity: ``ParityResult.to_dict()``; "failed" is refused.
        provenance: JSON values: recipe, digests, versions.

    Returns:
        ``folder``.

    Raises:
        UserError: The folder is not empty, parity failed, the class names do not fit, or the bundle fails its self-test.
    """
    _refuse_bad_input(folder, class_names, sample_images, expected_logits, parity)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        part = Path(scratch) / folder.name
        part.mkdir()
        shutil.copyfile(onnx_path, part / MODEL)
        (part / LABELS).write_bytes("".join(f"{label}\n" for label in class_names).encode())
        _write_sample(part, sample_images, expected_logits, preprocessing)
        _copy_edge(part / "edge")
        facts = _facts(name, preprocessing, len(class_names), tolerance, parity, provenance)
        (part / "README.md").write_bytes(_readme(facts, preprocessing, len(class_names), len(sample_images)).encode())
        _write_manifest(part, facts)
        if (result := run_selftest(part)).verdict != "passed":
            raise UserError(f"the bundle fails its own self-test, so it is not written: {result.reason}")
        _move_into_place(part, folder)
    return folder


def _refuse_bad_input(
    folder: Path, class_names: Sequence[str], images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], parity: Mapping[str, Any]
) -> None:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(f"{folder}: exists and is not empty; give the bundle a folder of its own")
    if parity["verdict"] == "failed":
        raise UserError(f"parity failed, so no bundle is written: {parity['reason']}")
    if bad := [label for label in class_names if not label.strip() or "\n" in label or "\r" in label]:
        raise UserError(f"class name {bad[0]!r} is empty or holds a line break; {LABELS} holds one name per line")
    if logits.shape != (len(images), len(class_names)) or len(images) == 0:
        raise UserError(f"the sample has {len(images)} images, logits of shape {list(logits.shape)} and {len(class_names)} class names")


def _write_sample(folder: Path, images: npt.NDArray[np.uint8], logits: npt.NDArray[np.float32], preprocessing: Preprocessing) -> None:
    Image.fromarray(images[0, :, :, 0] if images.shape[-1] == 1 else images[0]).save(folder / SAMPLE_IMAGE)
    decoded = load_image(folder / SAMPLE_IMAGE, preprocessing)
    np.savez_compressed(folder / SAMPLE, images=images, logits=logits.astype(np.float32), decoded=decoded)


def _copy_edge(target: Path) -> None:
    """Copy the edge package through importlib, which also reads it from a zipped wheel."""
    target.mkdir()
    for source in files(f"{__package__}.edge").iterdir():
        if source.is_file():
            (target / source.name).write_bytes(source.read_bytes())


def _facts(
    name: str,
    preprocessing: Preprocessing,
    num_classes: int,
    tolerance: ParityTolerance,
    parity: Mapping[str, Any],
    provenance: Mapping[str, Any],
) -> dict[str, Any]:
    image = [preprocessing.num_channels, preprocessing.image_px, preprocessing.image_px]
    return {
        "format": FORMAT,
        "name": name,
        "model": MODEL,
        "labels": LABELS,
        "sample": SAMPLE,
        "sample_image": SAMPLE_IMAGE,
        "input": {"name": INPUT_NAME, "dtype": "float32", "shape": ["batch", *image]},
        "output": {"name": OUTPUT_NAME, "dtype": "float32", "shape": ["batch", num_classes]},
        "preprocessing": preprocessing.to_dict(),
        "tolerance": tolerance.to_dict(),
        "parity": dict(parity),
        "provenance": dict(provenance),
    }


def _readme(facts: Mapping[str, Any], preprocessing: Preprocessing, num_classes: int, num_sample: int) -> str:
    parity = facts["parity"]
    images = f" on {parity['num_images']} images" if parity["verdict"] == "passed" else f": {parity['reason']}"
    return _README.format(
        image_px=preprocessing.image_px,
        resize_px=preprocessing.resize_px,
        interpolation=preprocessing.interpolation,
        num_channels=preprocessing.num_channels,
        colour="grey" if preprocessing.num_channels == 1 else "RGB",
        mean=", ".join(f"{value:g}" for value in preprocessing.mean),
        std=", ".join(f"{value:g}" for value in preprocessing.std),
        name=facts["name"],
        num_classes=num_classes,
        num_sample=num_sample,
        parity=parity["verdict"] + images,
        input_name=INPUT_NAME,
        output_name=OUTPUT_NAME,
        labels=LABELS,
        manifest=MANIFEST,
        sample_image=SAMPLE_IMAGE,
    )


def _write_manifest(folder: Path, facts: Mapping[str, Any]) -> None:
    """The manifest and its digest go last: a folder without them is no bundle."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    records = {path.relative_to(folder).as_posix(): dataclasses.asdict(record_of(path)) for path in paths}
    content = (json.dumps({**facts, "files": records}, indent=2, allow_nan=False, ensure_ascii=False) + "\n").encode()
    (folder / MANIFEST).write_bytes(content)
    (folder / MANIFEST_DIGEST).write_bytes(f"{sha256_of(content)}  {MANIFEST}\n".encode())


def _move_into_place(part: Path, folder: Path) -> None:
    """Flush every file, then rename: the bundle appears under its name at once and complete."""
    for path in [*part.rglob("*"), part] if os.name == "posix" else []:  # Windows flushes no folder and no read-only handle
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    if folder.exists():
        folder.rmdir()  # empty, as checked: some systems do not rename onto a folder
    part.rename(folder)
