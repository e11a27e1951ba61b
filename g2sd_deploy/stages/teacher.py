"""Teacher stage: take in a finished teacher, and refuse one that cannot teach."""

import shutil
from pathlib import Path

from g2sd_deploy.artifact import Made, sha256_of
from g2sd_deploy.data.sources import expand
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import ClassifierFile, load_classifier, load_masked
from g2sd_deploy.settings import TeacherSettings
from g2sd_deploy.stages.context import CLASSIFIER_FILE, MASKED_FILE, Context, Dataset, open_dataset

_BUNDLED = Path(__file__).parent.parent / "assets" / "teacher"
BUNDLED_TEACHER = "bundled:fashion-mnist"


def teacher_files(settings: TeacherSettings) -> dict[str, Path]:
    """The two weight files that the settings name, by the name they get in the artifact."""
    named = {MASKED_FILE: settings.masked, CLASSIFIER_FILE: settings.classifier}
    return {name: _BUNDLED / f"fashion_mnist_{name}" if value == BUNDLED_TEACHER else expand(value) for name, value in named.items()}


def fingerprint(settings: TeacherSettings) -> dict[str, str]:
    """SHA-256 of each file that is there."""
    return {name: sha256_of(path) if path.is_file() else "missing" for name, path in teacher_files(settings).items()}


def run(context: Context) -> Made:
    """Check and copy both files."""
    settings = context.recipe.teacher
    assert settings is not None
    files = teacher_files(settings)
    masked = load_masked(files[MASKED_FILE])
    classifier = load_classifier(files[CLASSIFIER_FILE])
    _check(classifier, open_dataset(context.inputs["data"]))
    for name, path in files.items():
        shutil.copyfile(path, context.folder / name)
    return Made(
        {
            "source": settings.masked,
            "num_parameters": sum(p.numel() for p in masked.parameters()),
            "classifier_parameters": sum(p.numel() for p in classifier.model.parameters()),
        }
    )


def _check(classifier: ClassifierFile, dataset: Dataset) -> None:
    """Refuse a classifier that was made for other images or classes."""
    if classifier.class_names != dataset.class_names:
        raise UserError(
            f"the teacher tells {len(classifier.class_names)} classes apart ({', '.join(classifier.class_names[:3])}, ...), the data has "
            f"{len(dataset.class_names)} ({', '.join(dataset.class_names[:3])}, ...); fine-tune the teacher on this data"
        )
    if classifier.preprocessing != dataset.preprocessing:
        raise UserError(
            f"the teacher was trained with {classifier.preprocessing.to_dict()}, "
            f"the recipe's data asks for {dataset.preprocessing.to_dict()}; "
            "normalisation and size belong to the model, so make data.mean, data.std and data.image_px agree with the teacher"
        )
