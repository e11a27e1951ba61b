"""Compare a folder with what the catalogue says of a test set: layout, classes, counts, names, and, if asked, every image."""

import io
import json
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from PIL import Image

from g2sd_deploy.data.corruptions import SEVERITIES
from g2sd_deploy.data.findings import Finding, Problems, Severity, finder
from g2sd_deploy.data.process_pool import map_in_order
from g2sd_deploy.data.sources.base import IMAGE_SUFFIXES
from g2sd_deploy.data.testsets.catalogue import Images, Labels, ListedSet
from g2sd_deploy.data.verifying import look_at
from g2sd_deploy.errors import UserError
from g2sd_export.edge.preprocess import DECODE_ERRORS

Tick = Callable[[int, int], None]
"""Called with the images that are done and those wanted."""

_PER_TASK = 32
_GREY = frozenset({"1", "L", "LA", "La"})
_FETCH = "fetch the set again (g2sd data pull), or correct the folder"

# Problem -> how bad it is, and what to do. An error changes a score, or keeps the set from being scored as it is published.
PROBLEMS: Problems = {
    "missing corruption": ("error", "fetch the archive that holds it (g2sd data pull)"),
    "missing folder": ("error", _FETCH),
    "missing class": ("error", _FETCH),
    "unknown class": ("error", "move it out of the folder: the set has no such class"),
    "wrong number of images": ("error", _FETCH),
    "wrong number of a class": ("error", _FETCH),
    "other images": ("error", "every severity of every corruption has the same images: fetch the set again"),
    "name in two classes": ("error", "remove it from the wrong one: it would be scored twice"),
    "extra image": ("error", "move it out of the folder"),
    "extra folder": ("error", "move it out of the class folder: its images would be scored, too"),
    "empty file": ("error", _FETCH),
    "missing file": ("error", _FETCH),
    "wrong labels": ("error", _FETCH),
    "truncated": ("error", _FETCH),
    "not decodable": ("error", _FETCH),
    "gigapixel": ("error", "replace it: decoders refuse it as an attack on the memory"),
    "floating point": ("error", _FETCH),
    "other corruption": ("note", "nothing: it is no part of mCE"),
    "other folder": ("note", "nothing: it is no part of the set"),
    "not read": ("note", "nothing: it is no image"),
    "grey": ("note", "nothing: it is scored with three equal channels"),
    "CMYK": ("note", "nothing: it is converted to RGB without its colour profile, as by the published code"),
    "wrong suffix": ("note", "nothing: the content counts"),
    "huge": ("note", "nothing"),
    "very narrow": ("note", "nothing"),
    "16 bits": ("note", "nothing: it is scaled to 8 bits"),
    "transparency": ("note", "nothing: it is dropped"),
    "animated": ("note", "nothing: the first frame is scored"),
    "turned by EXIF": ("note", "nothing: published numbers are of the pixels as they are stored"),
}


noted = finder(PROBLEMS)


@dataclass
class Checked:
    """What was found in a folder.

    Attributes:
        root: The folder that holds the set; below the given one where that holds the archive's own top folder.
        num: Images of each folder of class folders.
        findings: Errors first, then notes.
        decoded: Whether the images were decoded.
    """

    root: Path
    num: dict[str, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    decoded: bool = False

    def count(self, severity: Severity) -> int:
        """Findings of one severity."""
        return sum(finding.severity == severity for finding in self.findings)


def check(listed: ListedSet, folder: Path, *, workers: int = 0, tick: Tick = lambda done, total: None) -> Checked:
    """Compare a folder with the catalogue.

    Args:
        listed: The set.
        folder: The set's folder, the one above it, or its only split.
        workers: Processes that decode every image; 0 decodes none.
        tick: Told how many images are decoded.

    Raises:
        UserError: There is no such folder, or nothing of the set is in it.
        RunFailed: A worker died.
    """
    if not folder.exists():
        raise UserError(f"{folder}: there is no such folder; give the folder of the set, or pull it (g2sd data pull)")
    if listed.labels is not None:
        return _check_labels(listed.labels, listed.class_names, folder)
    root, groups = locate(listed, folder)
    checked = Checked(root, decoded=workers > 0)
    images = _check_layout(listed, groups, checked)
    if workers:
        checked.findings += _decode(root, images, workers=workers, tick=tick)
    rank = {problem: i for i, problem in enumerate(PROBLEMS)}
    checked.findings.sort(key=lambda finding: rank[finding.problem])
    return checked


def locate(listed: ListedSet, folder: Path) -> tuple[Path, dict[str, Images]]:
    """Where in a folder a set lies: in it, in its only fitting subfolder, or without the folder of its only split.

    Returns:
        The set's folder, and its folders of class folders relative to it.

    Raises:
        UserError: No class folder of the set is to be found.
    """
    layouts = [listed.groups]
    if len(listed.folders) == 1 and not listed.corruptions and "." not in listed.folders:
        layouts.append({".": next(iter(listed.folders.values()))})
    below = [path for path, is_folder in _entries(folder) if is_folder]
    for roots in ([folder], below):
        fitting = [(_num_fitting(root, groups, listed.class_names), root, groups) for root in roots for groups in layouts]
        num, root, groups = max(fitting, key=lambda one: one[0], default=(0, folder, {}))
        if num:
            return root, groups
    first = next(iter(listed.groups))
    wanted = (folder / first / listed.class_names[0]).as_posix()
    flat = sum(path.suffix.lower() in IMAGE_SUFFIXES for path, is_folder in _entries(folder) if not is_folder)
    hint = f"; it holds {flat:,} images that are not sorted into class folders" if flat else ""
    raise UserError(f"{folder}: holds no class folder of the set, such as {wanted}{hint}; give the folder of the set, or pull it")


def _num_fitting(root: Path, groups: Iterable[str], class_names: Sequence[str]) -> int:
    """Class folders of the set that lie where they should."""
    classes = frozenset(class_names)
    return sum(path.name in classes for group in groups for path, is_folder in _entries(root / group) if is_folder)


def _entries(folder: Path) -> list[tuple[Path, bool]]:
    """What a folder holds, sorted, and whether each is a folder; nothing where it is none."""
    try:
        with os.scandir(folder) as found:
            return sorted((Path(entry.path), entry.is_dir()) for entry in found)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); correct it and check again") from None


def _check_layout(listed: ListedSet, groups: Mapping[str, Images], checked: Checked) -> list[str]:
    """Look at every folder; returns the images, relative to the set's folder."""
    findings, images = checked.findings, list[str]()
    findings += _strange(listed, groups, checked.root)
    missing = {name for name in listed.corruptions if not (checked.root / name).is_dir()}
    findings += [noted("missing corruption", name) for name in listed.corruptions if name in missing]
    first: tuple[str, Counter[str]] | None = None
    for group, wanted in groups.items():
        checked.num[group] = 0
        if group.partition("/")[0] in missing:
            continue
        if not (checked.root / group).is_dir():
            findings.append(noted("missing folder", group))
            continue
        found = _check_group(checked.root, group, wanted, listed, findings)
        checked.num[group] = len(found)
        images += found
        names = Counter(name.rpartition("/")[2] for name in found)
        if listed.unique:
            findings += _twice(group, found, names)
        if listed.corruptions and first is None:
            first = group, names
        elif first is not None and names != first[1]:
            findings.append(noted("other images", group, _difference(names, *first)))
    return images


def _strange(listed: ListedSet, groups: Mapping[str, Images], root: Path) -> Iterator[Finding]:
    """What lies above the folders of class folders and is no part of the set."""
    if "." in groups:
        return
    wanted = {".": {group.partition("/")[0] for group in groups}}
    wanted |= {name: {str(severity) for severity in SEVERITIES} for name in listed.corruptions}
    for above, known in wanted.items():
        for path, is_folder in _entries(root / above):
            if path.name not in known:
                name = path.relative_to(root).as_posix()
                problem = "other corruption" if name in listed.may_hold else "other folder" if is_folder else None
                yield from _strange_file(name) if problem is None else [noted(problem, name)]


def _strange_file(name: str) -> Iterator[Finding]:
    """A file outside of the class folders, or a hidden one; those of file managers are nothing to tell."""
    base = name.rpartition("/")[2]
    if Path(base).suffix.lower() in IMAGE_SUFFIXES:
        yield noted("extra image", name)
    elif not base.startswith("."):
        yield noted("not read", name)


def _check_group(root: Path, group: str, wanted: Images, listed: ListedSet, findings: list[Finding]) -> list[str]:
    """Look at one folder of class folders; returns its images, relative to the root."""
    prefix = "" if group == "." else f"{group}/"
    classes, images = set(listed.class_names), list[str]()
    there = _entries(root / group)
    present = {path.name for path, is_folder in there if is_folder}
    findings += [noted("missing class", f"{prefix}{name}", "no such folder") for name in listed.class_names if name not in present]
    for path, is_folder in there:
        name = f"{prefix}{path.name}"
        if not is_folder:
            findings += _strange_file(name)
        elif path.name not in classes:
            findings.append(noted("unknown class", name))
        else:
            found = list(_check_class(path, name, findings))
            if wanted.per_class is not None and len(found) != wanted.per_class:
                detail = f"{len(found):,} images instead of {wanted.per_class:,}"
                findings.append(noted("wrong number of a class", name, detail))
            elif not found:
                findings.append(noted("wrong number of a class", name, "no image"))
            images += found
    if not wanted.least <= len(images) <= wanted.most:
        right = f"{wanted.most:,}" if wanted.least == wanted.most else f"{wanted.least:,} to {wanted.most:,}"
        findings.append(noted("wrong number of images", group, f"{len(images):,} instead of {right}"))
    return images


def _check_class(folder: Path, name: str, findings: list[Finding]) -> Iterator[str]:
    """The images of one class folder; what else is in it becomes findings."""
    with os.scandir(folder) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        place = f"{name}/{entry.name}"
        if entry.is_dir():
            findings.append(noted("extra folder", place))
        elif entry.name.startswith(".") or Path(entry.name).suffix.lower() not in IMAGE_SUFFIXES:
            findings += _strange_file(place)
        elif not entry.is_file():
            findings.append(noted("missing file", place, "a link that leads nowhere"))
        else:
            if entry.stat().st_size == 0:
                findings.append(noted("empty file", place, "0 bytes"))
            yield place


def _twice(group: str, images: Sequence[str], names: Counter[str]) -> Iterator[Finding]:
    """Images of one name in several classes of a group."""
    repeated = {name for name, count in names.items() if count > 1}
    if not repeated:
        return
    places: dict[str, list[str]] = {}
    for image in images:
        if (name := image.rpartition("/")[2]) in repeated:
            places.setdefault(name, []).append(image)
    for name, found in sorted(places.items()):
        yield noted("name in two classes", found[1], f"{name} is also {found[0]}")


def _difference(names: Counter[str], first_group: str, first: Counter[str]) -> str:
    """How the images of a group differ from those of the first one."""
    lacking, more = sorted((first - names).elements()), sorted((names - first).elements())
    parts = [f"{len(some):,} {word} (such as {some[0]})" for some, word in ((lacking, "missing"), (more, "more")) if some]
    return f"compared with {first_group}: {', '.join(parts)}"


def _decode(root: Path, images: Sequence[str], *, workers: int, tick: Tick) -> Iterator[Finding]:
    done = 0
    tasks = [images[start : start + _PER_TASK] for start in range(0, len(images), _PER_TASK)]
    with closing(map_in_order(partial(_look_at_task, root), tasks, workers=workers)) as answers:
        for names, looked in zip(tasks, answers, strict=True):
            for name, problems in zip(names, looked, strict=True):
                # an empty file is told of already
                yield from (noted(problem, name, detail) for problem, detail in problems if problem != "empty file")
            done += len(names)
            tick(done, len(images))


def _look_at_task(root: Path, names: Sequence[str]) -> list[list[tuple[str, str]]]:
    """What a worker does: read and decode some images."""
    return [_look_at(root, name) for name in names]


def _look_at(root: Path, name: str) -> list[tuple[str, str]]:
    try:
        content = (root / name).read_bytes()
    except OSError as error:
        return [("not decodable", f"cannot be read ({error.strerror})")]
    problems = look_at(content, name)
    return [*problems, *_grey(content)] if all(PROBLEMS[problem][0] == "note" for problem, _ in problems) else problems


def _grey(content: bytes) -> Iterator[tuple[str, str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of odd metadata
        try:
            mode = Image.open(io.BytesIO(content)).mode
        except DECODE_ERRORS:
            return
    if mode in _GREY or mode.startswith("I"):
        yield "grey", mode


def _check_labels(labels: Labels, class_names: Sequence[str], folder: Path) -> Checked:
    """Check a file of label sets."""
    path = folder if folder.is_file() else folder / labels.file
    checked = Checked(path.parent, {labels.file: 0})
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the folder of {labels.file}, or pull the set (g2sd data pull)")
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
        sets = [[int(label) for label in one] for one in read]
    except (OSError, ValueError, TypeError) as error:
        checked.findings.append(noted("wrong labels", path.name, f"no list of lists of class indices ({error})"))
        return checked
    checked.num[labels.file] = len(sets)
    if len(sets) != labels.images:
        checked.findings.append(noted("wrong labels", path.name, f"{len(sets):,} images instead of {labels.images:,}"))
    if (empty := sum(not one for one in sets)) != labels.empty:
        checked.findings.append(noted("wrong labels", path.name, f"{empty:,} images without a label instead of {labels.empty:,}"))
    wrong = [(index, label) for index, one in enumerate(sets, 1) for label in one if not 0 <= label < len(class_names)]
    if wrong:
        index, label = wrong[0]
        more = f" (and {len(wrong) - 1:,} more)" if len(wrong) > 1 else ""
        detail = f"image {index:,} has label {label}, out of 0 to {len(class_names) - 1}{more}"
        checked.findings.append(noted("wrong labels", path.name, detail))
    return checked
