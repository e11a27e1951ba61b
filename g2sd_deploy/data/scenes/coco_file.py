"""Scenes as annotations of the COCO format. Source: https://cocodataset.org/#format-data."""

from typing import Any

from g2sd_deploy.data.dense.annotations import Instances
from g2sd_deploy.data.dense.masks import rle_from_mask
from g2sd_deploy.data.scenes.source import DETECTION_CLASSES


def header() -> dict[str, Any]:
    """What stands before the images: licence and categories, which COCO counts from 1."""
    return {
        "info": {"description": "Scenes composed of Fashion-MNIST garments"},
        "licenses": [{"id": 1, "name": "MIT", "url": "https://github.com/zalandoresearch/fashion-mnist/blob/master/LICENSE"}],
        "categories": [{"id": 1 + i, "name": name, "supercategory": "garment"} for i, name in enumerate(DETECTION_CLASSES)],
    }


def image_entry(image_id: int, file_name: str, image_px: int) -> dict[str, Any]:
    """One image."""
    return {"id": image_id, "file_name": file_name, "height": image_px, "width": image_px, "license": 1}


def annotation_entries(instances: Instances, image_id: int, first_id: int) -> list[dict[str, Any]]:
    """Objects of one image; the masks are exact, as run lengths."""
    entries = []
    for i, (box, label, mask) in enumerate(zip(instances.boxes.tolist(), instances.labels.tolist(), instances.masks, strict=True)):
        left, top, right, bottom = (int(edge) for edge in box)
        entries.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": 1 + label,
                "bbox": [left, top, right - left, bottom - top],
                "area": int(mask.sum()),
                "segmentation": {"size": list(mask.shape), "counts": rle_from_mask(mask)["counts"].decode("ascii")},
                "iscrowd": 0,
            }
        )
    return entries
