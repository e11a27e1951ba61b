"""What differs between two bundles: files, preparation, classes, verdicts, numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..edge.manifest import MANIFEST, Bundle, open_bundle

Section = Literal["classes", "preprocessing", "variants", "files", "other"]

SECTIONS: tuple[Section, ...] = ("classes", "preprocessing", "variants", "files", "other")
"""In the order of how much a difference matters."""

_ABSENT = "(absent)"


@dataclass(frozen=True)
class Difference:
    """One thing that is not the same in two bundles.

    Attributes:
        section: What kind of thing.
        what: Which one: a path of the manifest, or a file.
        left: Value in the first bundle, as text; "(absent)" where it is not there.
        right: Value in the second.
    """

    section: Section
    what: str
    left: str
    right: str

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values."""
        return asdict(self)


def diff_bundles(left: Path, right: Path) -> list[Difference]:
    """Compare two bundles, each of which is verified first.

    Args:
        left: A bundle.
        right: Another one.

    Returns:
        Every difference, by section; empty when the two are the same to the byte.

    Raises:
        UserError: One of them is no bundle or is damaged.
    """
    one, other = open_bundle(left), open_bundle(right)
    found = [*_classes(one.class_names, other.class_names), *_values(one, other), *_files(one, other)]
    if not found and one.digest != other.digest:
        found = [Difference("other", "order of the manifest's entries", one.digest, other.digest)]
    return sorted(found, key=lambda difference: SECTIONS.index(difference.section))


def _classes(left: Sequence[str], right: Sequence[str]) -> Iterator[Difference]:
    if sorted(left) == sorted(right) and left != right:
        moved = [index for index, (one, other) in enumerate(zip(left, right, strict=True)) if one != other]
        yield Difference("classes", f"order, {len(moved)} of {len(left)} moved", left[moved[0]], right[moved[0]])
        return
    for index in range(max(len(left), len(right))):
        one, other = (names[index] if index < len(names) else _ABSENT for names in (left, right))
        if one != other:
            yield Difference("classes", str(index), one, other)


def _files(left: Bundle, right: Bundle) -> Iterator[Difference]:
    for name in sorted({*left.files, *right.files}):
        one, other = left.files.get(name), right.files.get(name)
        if one != other:
            yield Difference("files", name, *(f"{of.bytes} bytes, {of.sha256[:12]}" if of else _ABSENT for of in (one, other)))


def _values(left: Bundle, right: Bundle) -> Iterator[Difference]:
    flat = [_flattened(bundle) for bundle in (left, right)]
    for key in dict.fromkeys([*flat[0], *flat[1]]):
        one, other = (values.get(key, _ABSENT) for values in flat)
        if one != other:
            section = key.partition(".")[0]
            yield Difference(
                "preprocessing" if section == "preprocessing" else "variants" if section == "variants" else "other", key, one, other
            )


def _flattened(bundle: Bundle) -> dict[str, str]:
    """Values of a manifest by dotted path; variants and hops by their names, so that an order means nothing."""
    manifest = json.loads((bundle.folder / MANIFEST).read_bytes())
    manifest.pop("files")
    manifest["variants"] = {variant.pop("name"): variant for variant in manifest["variants"]}
    for variant in manifest["variants"].values():
        variant["hops"] = _named(variant["hops"])
    return dict(_leaves(manifest, ""))


def _named(hops: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Hops by the forms that they compare; a second comparison of the same two is numbered."""
    found: dict[str, dict[str, Any]] = {}
    for hop in hops:
        name = f"{hop.pop('after')} to {hop.pop('name')}"
        found[name if name not in found else f"{name} ({len(found) + 1})"] = hop
    return found


def _leaves(value: Mapping[str, Any], where: str) -> Iterator[tuple[str, str]]:
    for key, item in value.items():
        path = f"{where}.{key}" if where else key
        if isinstance(item, Mapping) and item:
            yield from _leaves(item, path)
        else:
            yield path, item if isinstance(item, str) else json.dumps(item, ensure_ascii=False)
