"""Names of prepared images in class folders."""

from collections import Counter
from pathlib import PurePosixPath

from g2sd_deploy.data.images import Samples
from g2sd_deploy.errors import UserError


def check_class_folders(class_names: tuple[str, ...]) -> None:
    """Refuse class names that cannot be folders, or that would get other labels as folders.

    Raises:
        UserError: A name is no folder name, or the names are not in the order in which folders are read.
    """
    wrong = [name for name in class_names if not name or name.startswith(".") or "/" in name or "\\" in name or "\0" in name]
    if wrong:
        raise UserError(f"the class name {wrong[0]!r} cannot be a folder's name; add --shards, which keep names in a file")
    if list(class_names) != sorted(set(class_names)):
        raise UserError("class folders are read in the order of their names, so these classes would get other labels; add --shards")


def class_folder_stems(split: str, samples: Samples, class_names: tuple[str, ...]) -> list[str]:
    """SPLIT/CLASS/NAME of each image, without a suffix, which depends on how the image is stored.

    An image of a class folder keeps its name; where two differ by their suffix alone (1.jpg, 1.png), the suffix stays in the name.
    Any other image is named by its place in the split.

    Raises:
        UserError: Two images would get the same name.
    """
    labels = samples.labels
    folders = [f"{split}/{class_names[int(labels[i])]}" for i in range(len(samples))]
    names = [samples.name(i) for i in range(len(samples))]
    kept = [
        name if name.startswith(f"{folder}/") else f"{folder}/{i:09d}.x"
        for i, (name, folder) in enumerate(zip(names, folders, strict=True))
    ]
    short = [str(PurePosixPath(name).with_suffix("")) for name in kept]
    times = Counter(short)
    stems = [stem if times[stem] == 1 else name for stem, name in zip(short, kept, strict=True)]
    twice = next((stem for stem, num in Counter(stems).items() if num > 1), None)
    if twice is not None:
        raise UserError(f"{twice}: two images would get this name; rename one of them, or add --shards")
    return stems
