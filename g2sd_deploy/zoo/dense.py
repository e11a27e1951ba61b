"""What `g2sd teacher verify` says of a segmenter or a detector of ours."""

from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import load_encoder
from g2sd_deploy.models.dense.network_file import FILES, load_network

KINDS = tuple(FILES)


def findings(path: Path, kind: str) -> dict[str, Any]:
    """Open it, account for every key, and say what it can be used for.

    Args:
        path: The weight file.
        kind: One of `KINDS`.

    Returns:
        Findings for people, in the order to show them.

    Raises:
        UserError: It is damaged, or its weights are not those of the model that it describes.
    """
    file = load_network(path, kind)
    spec, task = file.model.spec.encoder, file.task
    uses = f"teacher.{kind} of a recipe with task {task.kind}, for data of its classes, image_px, mean and std"
    return {
        "file": str(path),
        "sha256": sha256_of(path),
        "recognised_as": f"{kind} of g2sd",
        "kind": kind,
        "encoder": f"width {spec.width}, depth {spec.depth}, {spec.heads} heads, {spec.patch_px} px patches of {spec.image_px} px images",
        "images": f"{task.image_px} px, {task.num_channels} channels, mean {_numbers(task.mean)}, deviation {_numbers(task.std)}",
        "num_parameters": sum(p.numel() for p in file.model.parameters()),
        "classes": len(file.class_names),
        "can_be_used_as": uses + ("; its encoder as teacher.encoder" if _has_plain_encoder(path) else ""),
    }


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _has_plain_encoder(path: Path) -> bool:
    """Whether its encoder works without what the task adds to attention."""
    try:
        load_encoder(path)
    except UserError:
        return False
    return True
