"""From what a person writes after `--on` to images and the ways to score them."""

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from g2sd_deploy.data.sources import expand
from g2sd_deploy.data.sources.folder import FileSamples
from g2sd_deploy.data.testsets.class_folders import ClassFolders, class_root, list_class_folders, locate
from g2sd_deploy.data.testsets.class_maps import read_class_map
from g2sd_deploy.data.testsets.merging import merge
from g2sd_deploy.data.testsets.other_sets import is_there, open_other
from g2sd_deploy.data.testsets.protocols import KNOWN, REAL, STORED, VAL, KnownSet, nearest_known
from g2sd_deploy.data.testsets.real_labels import REAL_FILE, real_labels
from g2sd_deploy.data.testsets.scorings import Scoring, TestSet, fingerprint_of_set
from g2sd_deploy.data.testsets.stored_corruptions import Case, Cases, find_cases
from g2sd_deploy.errors import UserError


@dataclass(frozen=True)
class Options:
    """What holds for all sets that are opened together.

    Attributes:
        split: Of a set that is not one of the known ones.
        class_map: Text file that says which class of a model a class of a set is; None where the names agree.
        restrict: Cut the logits to the classes of a set that is not one of the known ones.
        max_images: Images of each set, spread evenly; None for all.
        as_stored: Images were brought to the models' size when they were stored: crop them, and do not resize.
    """

    split: str = "test"
    class_map: Path | None = None
    restrict: bool = False
    max_images: int | None = None
    as_stored: bool = False


@dataclass(frozen=True)
class _Asked:
    """One set that is asked for: a known one and its folder, or any other place."""

    spec: str
    known: KnownSet | None
    place: str


def open_all(specs: Sequence[str], *, options: Options, home: Path) -> list[TestSet]:
    """Open several sets so that no image is read twice; see `merge`.

    ReaL takes the validation images that are asked for beside it, wherever they lie.

    Args:
        specs: NAME of a known set, NAME=PLACE, or any other PLACE.
        options: What holds for all of them.
        home: Folder of the sets that were pulled.

    Raises:
        UserError: One cannot be opened, or is asked for twice; or an option fits none of them.
    """
    asked = [_parse(spec, home) for spec in specs]
    if twice := [one for one, times in Counter((each.known, each.place) for each in asked).items() if times > 1]:
        raise UserError(f"--on {twice[0][1]}: is asked for twice; leave one out")
    if options.restrict and all(one.known for one in asked):
        raise UserError("--restrict cuts the logits of sets that have no protocol of their own, and none of these is one; leave it out")
    class_map = read_class_map(options.class_map) if options.class_map is not None else {}
    val = next((Path(one.place) for one in asked if one.known == KNOWN[VAL]), None)
    opened = [test for one in asked for test in _open(one, options, class_map, home, val)]
    known_names = {name for test in opened for scoring in test.scorings for name in scoring.class_names}
    if strange := [name for name in class_map if name not in known_names]:
        raise UserError(f"--class-map {options.class_map}: names the class {strange[0]}, which no set has; correct the line")
    if options.as_stored:
        opened = [_as_stored(test) for test in opened]
    return merge(_named_apart(opened))


def open_test_sets(spec: str, *, options: Options, home: Path) -> list[TestSet]:
    """Open one set; ImageNet-C is one for each severity of each corruption. Otherwise as `open_all`."""
    return open_all([spec], options=options, home=home)


def _parse(spec: str, home: Path) -> _Asked:
    name, equals, place = spec.partition("=")
    if name in KNOWN and not equals:
        known = KNOWN[name]
        homes = [home / one for one in known.homes]
        found = next((one for one in homes if one.is_dir()), homes[0])
        if not found.is_dir() and name != REAL:
            raise UserError(f"--on {name}: is not here ({found}); fetch it with `g2sd data pull {name}`, or give its folder: {name}=FOLDER")
        return _Asked(spec, known, str(found))
    if name in KNOWN:
        if not expand(place).exists():
            raise UserError(f"--on {spec}: there is no such folder; give the folder of {name}")
        return _Asked(spec, KNOWN[name], str(expand(place)))
    if not is_there(spec):
        what = f"there is no known set {name}" if equals else "there is no such folder or file, and no known set of that name"
        raise UserError(f"--on {spec}: {what}; {nearest_known(name)}")
    return _Asked(spec, None, spec)


def _open(one: _Asked, options: Options, class_map: Mapping[str, str], home: Path, val: Path | None) -> list[TestSet]:
    if one.known is None:
        found = open_other(one.place, options.split, restrict=options.restrict, limit=options.max_images)
    elif one.known.corruptions:
        found = _stored(one.known, Path(one.place), options.max_images)
    elif one.known.name == REAL:
        found = [_real(one.known, Path(one.place), options.max_images, home, val)]
    else:
        found = [_folders(one.known, Path(one.place), options.max_images)]
    return [_mapped(test, class_map) for test in found]


def _folders(known: KnownSet, place: Path, limit: int | None) -> TestSet:
    listed = list_class_folders(known, locate(known, place))
    samples = listed.samples(limit)
    note = _note(known, len(samples), len(listed.names))
    scoring = Scoring(known.name, samples.labels, known.class_names(), known.cut == "always", note)
    scorings = (scoring, _cut(scoring)) if known.cut == "also" else (scoring,)
    return _test(known.name, samples, scorings, num_ignored=listed.num_ignored)


def _cut(scoring: Scoring) -> Scoring:
    """The easier way to score Imagenette, with the logits of its 10 classes alone."""
    cut = f"logits cut to its {len(scoring.class_names)} classes"
    return replace(scoring, name=f"{scoring.name}-restricted", restricted=True, note=scoring.note.replace("all logits", cut))


def _real(known: KnownSet, place: Path, limit: int | None, home: Path, val: Path | None) -> TestSet:
    """ReaL's labels of validation images, which lie in the same folder, or are those that are asked for, or were pulled."""
    listed = _validation_images([place, *([val] if val else []), home / VAL])
    own, pulled = (place if place.suffix == ".json" else place / REAL_FILE), home / REAL / REAL_FILE
    labels_file = next((file for file in (own, pulled) if file.is_file()), None)
    samples = listed.samples(limit)
    label_sets = real_labels(samples, labels_file)
    labels = label_sets.first()
    if not (labels >= 0).any():
        raise UserError(f"--on {known.name}: none of the {len(labels)} images has a ReaL label; choose more of them with --max-images")
    source = f"labels of {REAL_FILE}" if labels_file else f"timm's copy of {REAL_FILE}"
    empty = int((labels < 0).sum())
    note = f"{_note(known, len(samples), len(listed.names))}; {source}; {empty:,} images without a label are not scored"
    scoring = Scoring(known.name, labels, known.class_names(), False, note, label_sets)
    return _test(known.name, samples, (scoring,), num_ignored=listed.num_ignored)


def _validation_images(places: Sequence[Path]) -> ClassFolders:
    """The validation images of the first place that has any."""
    val = KNOWN[VAL]
    for place in places:
        if (root := class_root(val, place)) is not None:
            return list_class_folders(val, root)
    raise UserError(
        f"--on {REAL}: scores the validation images, and there are none in {' or '.join(map(str, places))}; ask for {VAL}=FOLDER beside "
        f"it, give {REAL}=FOLDER with the images, or fetch them with `g2sd data pull {VAL}`"
    )


def _stored(known: KnownSet, place: Path, limit: int | None) -> list[TestSet]:
    found = find_cases(known, place, limit)
    num = len(found.cases[0].samples)
    note = "; ".join(part for part in (_note(known, num, found.num_images), found.note) if part)
    return [_stored_case(known, case, found, note) for case in found.cases]


def _stored_case(known: KnownSet, case: Case, found: Cases, note: str) -> TestSet:
    scoring = Scoring(STORED, case.samples.labels, known.class_names(), False, note)
    name = f"{known.name} {case.corruption}/{case.severity}"
    test = _test(name, case.samples, (scoring,), num_ignored=found.num_ignored)
    return replace(test, as_stored=True, corruption=(case.corruption, case.severity))


def _test(name: str, samples: FileSamples, scorings: tuple[Scoring, ...], *, num_ignored: int) -> TestSet:
    note = f"{num_ignored:,} files that are no images are left out" if num_ignored else ""
    return TestSet(name, samples, scorings, fingerprint_of_set(f"{name} {_digest(samples)}", scorings), note=note)


def _note(known: KnownSet, num: int, num_there: int) -> str:
    """The protocol, and how the images differ in number from the published ones."""
    parts = [known.note]
    if num_there != known.num_images:
        parts.append(f"{num_there:,} images are there, {known.num_images:,} are published")
    if num != num_there:
        parts.append(f"{num:,} of {num_there:,} images, evenly spread")
    return "; ".join(parts)


def _digest(samples: FileSamples) -> str:
    """Of the names and sizes of the files."""
    arrays = samples.listing.arrays
    return hashlib.sha256(b"".join(np.asarray(arrays[name]).tobytes() for name in ("names", "name_ends", "sizes"))).hexdigest()


def _mapped(test: TestSet, class_map: Mapping[str, str]) -> TestSet:
    """The set with the lines of the class map that are about its classes."""
    if not class_map:
        return test
    scorings = tuple(
        replace(one, class_map={name: class_map[name] for name in one.class_names if name in class_map}) for one in test.scorings
    )
    return replace(test, scorings=scorings, fingerprint=fingerprint_of_set(test.fingerprint, scorings))


def _as_stored(test: TestSet) -> TestSet:
    """The set without the resize of the models' own preprocessing; said beside every figure."""
    if test.as_stored:
        return test
    scorings = tuple(replace(one, note=f"{one.note}; as stored, the centre cropped without a resize") for one in test.scorings)
    return replace(test, scorings=scorings, as_stored=True, fingerprint=fingerprint_of_set(f"{test.fingerprint} as stored", ()))


def _named_apart(tests: Sequence[TestSet]) -> list[TestSet]:
    """Number the scorings of other sets whose folders have the same name; a known set is never scored twice under one name.

    Raises:
        UserError: A known set is asked for from two places.
    """
    times: Counter[tuple[str, tuple[str, int] | None]] = Counter()
    apart = []
    for test in tests:
        key = (test.scorings[0].name, test.corruption)
        times[key] += 1
        if times[key] == 1:
            apart.append(test)
        elif key[0] in KNOWN:
            raise UserError(f"--on {key[0]}: is asked for twice, from different folders; evaluate one after the other")
        else:
            name = f"{key[0]} {times[key]}"
            apart.append(replace(test, name=name, scorings=tuple(replace(one, name=name) for one in test.scorings)))
    return apart
