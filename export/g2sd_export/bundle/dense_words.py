"""What the model card and the bill of materials say of a segmenter or a detector in place of what they say of a classifier."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

METRICS = {"miou": "mIoU", "ap": "box AP", "mask_ap": "mask AP"}
"""Of the task, by their names in a hop."""

_WHAT = {
    "segmentation": "A network that names the class of each pixel",
    "detection": "A network that finds objects, their boxes and masks,",
}
_TAGS = {"segmentation": "image-segmentation", "detection": "object-detection"}
_TASKS = {"segmentation": "semantic segmentation", "detection": "object detection and instance segmentation"}
_HOP_HEADS = {
    "segmentation": ("pixels changed", "worst image", "mIoU before", "mIoU"),
    "detection": ("without partner", "largest score difference", "mask cells changed", "box AP before", "box AP", "mask AP"),
}
_HOP_KEYS = {
    "segmentation": ("changed_share", "worst_changed_share", "miou_reference", "miou_candidate"),
    "detection": ("unmatched_share", "max_score_diff", "mask_changed_share", "ap_reference", "ap_candidate", "mask_ap_candidate"),
}


def metrics_of(variant: Mapping[str, Any]) -> tuple[dict[str, float], int]:
    """Metrics in [0, 1] of a variant in its proof, by their names for people, and on how many images; none where it was not measured."""
    for hop in reversed(variant["hops"]):
        found = {name: hop[f"{key}_candidate"] for key, name in METRICS.items() if hop.get(f"{key}_candidate") is not None}
        if hop["verdict"] != "not_run" and found:
            return found, int(hop.get("num_images", 0))
    return {}, 0


def tag_of(facts: Mapping[str, Any]) -> str:
    """The task as the Hugging Face Hub calls it."""
    return _TAGS[facts["task"]["kind"]]


def task_of(facts: Mapping[str, Any]) -> str:
    """The task in words."""
    return _TASKS[facts["task"]["kind"]]


def summary_of(facts: Mapping[str, Any]) -> str:
    """What it is, without a full stop: the number of classes and the device follow."""
    return _WHAT[facts["task"]["kind"]]


def use_of(facts: Mapping[str, Any]) -> str:
    """How a program asks it."""
    return (
        "`python -m edge predict IMAGE --out DIR` draws the answers on the images.\n\n"
        "In Python: `from edge.manifest import open_bundle` and `from edge.dense.answering import Observer`, then\n"
        "`Observer(open_bundle(folder)).observe(image)` with the path of an image, or its bytes."
    )


def preparation_of(task: Mapping[str, Any]) -> str:
    """How an image becomes the input."""
    colour = "grey" if task["num_channels"] == 1 else "RGB"
    px = task["image_px"]
    if task["inference"] == "slide":
        return f"short side to {px} px (bilinear), windows of {px} px every {task['stride']} px, whose logits are averaged, {colour}"
    square = f"resized into a square of {px} px (bilinear, the aspect is kept)"
    return f"{square}, padded at the right and the bottom with the mean colour, {colour}"


def output_notes_of(task: Mapping[str, Any], output: str) -> str:
    """What the outputs mean, and where the last step happens."""
    if task["kind"] == "detection":
        return (
            ", then `scores`, `labels` and `masks` of the same boxes; non-maximum suppression is inside the file, rows that fill up have "
            f"score 0, and what scores below {task['min_score']:g} is not reported"
        )
    return "; the largest logit is chosen inside the file" if output == "classes" else "; the device enlarges them and takes the largest"


def hop_heads(kind: str) -> tuple[str, ...]:
    """Columns of the table of hops."""
    return _HOP_HEADS[kind]


def hop_cells(hop: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Their cells."""
    return tuple(_share(hop.get(key)) if key != "max_score_diff" else _number(hop.get(key)) for key in _HOP_KEYS[kind])


def candidate_heads(kind: str) -> tuple[str, ...]:
    """Columns of the table of candidates."""
    metrics = ("mIoU",) if kind == "segmentation" else ("box AP", "mask AP")
    return (*metrics, "points lost")


def candidate_cells(candidate: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Their cells."""
    keys = ("miou",) if kind == "segmentation" else ("ap", "mask_ap")
    lost = candidate.get("drop_points")
    return (*(_share(candidate.get(f"{key}_candidate")) for key in keys), "" if lost is None else f"{lost:.2f}")


def limits_of(facts: Mapping[str, Any]) -> Iterator[str]:
    """What to keep in mind."""
    if facts["task"]["kind"] == "segmentation":
        yield "It knows its classes only, and gives each pixel one of them."
    else:
        yield "It knows its classes only; what is small, crowded or cut off by the border is found less often."
        yield "Scores are no calibrated probabilities."
    if not any(metrics_of(variant)[0] for variant in facts["variants"]):
        yield "Its accuracy is not recorded here."


def metrics_told(variant: Mapping[str, Any]) -> str:
    """A variant's metrics in a cell of a table."""
    found, num = metrics_of(variant)
    return f"{', '.join(f'{name} {share:.2%}' for name, share in found.items())} of {num}" if found else "not measured"


def metric_names(variants: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, float]]:
    """Name of a variant, of a metric, and its value, for the Hub."""
    return [(variant["name"], name, share) for variant in variants for name, share in metrics_of(variant)[0].items()]


def _share(value: object) -> str:
    return f"{value:.3%}" if isinstance(value, float | int) else ""


def _number(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float | int) else ""
