"""A whole recipe, and what its sections need from each other."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from g2sd_deploy.settings.base import Settings
from g2sd_deploy.settings.data import DataSettings
from g2sd_deploy.settings.dense import TaskSettings
from g2sd_deploy.settings.dense_misfits import dense_misfits
from g2sd_deploy.settings.generic import DmaeSettings, G2sdSettings, GenericSettings, MaeSettings, TinymimSettings
from g2sd_deploy.settings.networks import EncoderSettings, StudentSettings
from g2sd_deploy.settings.outcome import EvaluateSettings, ExportSettings, ReportSettings
from g2sd_deploy.settings.profile import ProfileSettings
from g2sd_deploy.settings.quantise import QuantiseSettings
from g2sd_deploy.settings.specific import SpecificSettings
from g2sd_deploy.settings.teachers import BaselineSettings, FinetuneSettings, PretrainSettings, TeacherSettings


class Recipe(Settings):
    """Everything that decides the result of a run."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_.-]*$")]
    """Short name; the output folder is runs/NAME by default."""
    description: str = ""
    """One sentence for the report."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random draw."""
    data: DataSettings
    """Images."""
    task: TaskSettings | None = None
    """What the student answers; the class of an image when left out."""
    teacher: TeacherSettings | None = None
    """A finished teacher, or a pre-trained one for finetune to go on from; or give pretrain and finetune to make one."""
    pretrain: PretrainSettings | None = None
    """Make a teacher: MAE pre-training."""
    finetune: FinetuneSettings | None = None
    """Make a teacher: fine-tuning on the labels."""
    student: StudentSettings | None = None
    """Student encoder, used by generic, specific and baseline."""
    generic: GenericSettings | None = None
    """First stage: what the student learns without labels."""
    specific: SpecificSettings | None = None
    """Second stage: what it learns with labels."""
    quantise: QuantiseSettings | None = None
    """Third stage: the student learns to bear the rounding of an 8-bit file."""
    baseline: BaselineSettings | None = None
    """Supervised training of the same student, for comparison."""
    evaluate: EvaluateSettings | None = None
    """Accuracy and robustness."""
    export: ExportSettings | None = None
    """ONNX, parity and bundle."""
    profile: ProfileSettings | None = None
    """Latency."""
    report: ReportSettings = ReportSettings()
    """Report page."""

    @property
    def has_masked_teacher(self) -> bool:
        """Whether there is a teacher with a decoder."""
        return self.pretrain is not None or (self.teacher is not None and self.teacher.masked is not None)

    @property
    def has_teacher_encoder(self) -> bool:
        return self.has_masked_teacher or (self.teacher is not None and self.teacher.encoder is not None)

    @property
    def has_task_teacher(self) -> bool:
        """Whether there is a teacher that was trained for what the student is to answer."""
        return self.finetune is not None or self._names_task_teacher

    @property
    def _names_task_teacher(self) -> bool:
        return self.teacher is not None and bool(self.teacher.classifier or self.teacher.segmenter or self.teacher.detector)

    @property
    def student_weights(self) -> str | None:
        """A finished student that takes the place of the generic stage."""
        return None if self.student is None else self.student.weights

    @model_validator(mode="after")
    def _complete(self) -> Self:
        for problem in (*dense_misfits(self), *_missing_sections(self), *_misfits(self)):
            raise ValueError(problem)
        return self


def _missing_sections(recipe: Recipe) -> list[str]:
    """What a section needs from another section and does not find."""
    generic, specific = recipe.generic, recipe.specific
    no_start = generic is None and recipe.student_weights is None
    distils = specific is not None and specific.method in ("hard", "soft", "nkd", "cwd", "frs")
    checks = [
        (
            recipe.teacher is not None and recipe.pretrain is not None,
            "give either teacher (a finished one) or pretrain and finetune (to make one), not both",
        ),
        (
            recipe.finetune is not None and recipe._names_task_teacher,
            f"finetune makes a teacher of the task, and teacher.{_task_teacher(recipe)} names a finished one; give one of them",
        ),
        (
            recipe.finetune is not None and not recipe.has_teacher_encoder,
            "finetune needs pretrain before it, or a pre-trained teacher.encoder or teacher.masked",
        ),
        (
            isinstance(generic, G2sdSettings) and generic.teacher_decoder_block is not None and not recipe.has_masked_teacher,
            "generic needs a teacher with a decoder: add teacher.masked or pretrain",
        ),
        (
            isinstance(generic, G2sdSettings | DmaeSettings | TinymimSettings) and not recipe.has_teacher_encoder,
            "generic needs a teacher: add teacher.encoder, teacher.masked or pretrain",
        ),
        (
            distils and not recipe.has_task_teacher,
            f"specific needs a fine-tuned teacher: add teacher.{_task_teacher(recipe)}, or pretrain and finetune; or use method finetune",
        ),
        (generic is not None and recipe.student_weights is not None, "student.weights takes the place of generic; give one of them"),
        (specific is not None and no_start, "specific needs generic before it, or student.weights"),
        (
            recipe.baseline is not None and recipe.baseline.start == "generic" and no_start,
            "baseline.start is generic, but there is no generic stage; add generic or student.weights, or start from scratch",
        ),
        (
            recipe.student_weights is not None and specific is None and getattr(recipe.baseline, "start", "") != "generic",
            "student.weights is given, but nothing starts from it; add specific, or baseline with start generic",
        ),
        (recipe.quantise is not None and specific is None, "quantise needs specific before it: there is no student to quantise"),
        (
            recipe.student is None and (generic is not None or recipe.baseline is not None),
            "generic and baseline need student (the encoder's shape)",
        ),
        (recipe.export is not None and specific is None, "export needs specific: there is no student to export"),
        (recipe.profile is not None and recipe.export is None, "profile needs export: there is no file to time"),
        (
            recipe.evaluate is not None and specific is None and recipe.baseline is None and not recipe.has_task_teacher,
            f"evaluate needs a model of the task: add finetune, teacher.{_task_teacher(recipe)}, specific or baseline",
        ),
    ]
    return [text for bad, text in checks if bad]


def _task_teacher(recipe: Recipe) -> str:
    """The setting that names a teacher of the recipe's task."""
    if recipe.task is None:
        return "classifier"
    return "segmenter" if recipe.task.kind == "segmentation" else "detector"


def _misfits(recipe: Recipe) -> list[str]:
    """Numbers of different sections that do not go together."""
    problems = []
    pretrained = recipe.pretrain.encoder if recipe.pretrain is not None else None
    for section, encoder in (("student", recipe.student), ("pretrain.encoder", pretrained)):
        if encoder is not None and recipe.data.image_px % encoder.patch_px:
            problems.append(f"{section}.patch_px is {encoder.patch_px}, which does not divide data.image_px {recipe.data.image_px}")
    for section, stage, encoder in (("pretrain", recipe.pretrain, pretrained), ("generic", recipe.generic, recipe.student)):
        if encoder is None or not isinstance(stage, PretrainSettings | MaeSettings | G2sdSettings | DmaeSettings):
            continue
        num_patches = (recipe.data.image_px // encoder.patch_px) ** 2
        if int(num_patches * (1 - stage.mask_ratio)) < 1:
            problems.append(f"{section}.mask_ratio is {stage.mask_ratio}, which hides all {num_patches} patches of an image; lower it")
    if recipe.student is None:
        return problems
    return problems + _block_misfits(recipe.generic, recipe.student) + _merging_misfits(recipe, recipe.student)


def _merging_misfits(recipe: Recipe, student: EncoderSettings) -> list[str]:
    """More tokens to merge than the student's blocks can: half of those that reach the last block that merges."""
    if recipe.export is None or recipe.specific is None or not recipe.export.token_merging:
        return []
    blocks = student.depth - (recipe.specific.pooling == "cls")  # behind the last one the class token alone is read
    num_patches = (recipe.data.image_px // student.patch_px) ** 2
    most = num_patches // (blocks + 1) if blocks else 0
    if recipe.export.token_merging <= most:
        return []
    found = f"export.token_merging is {recipe.export.token_merging}"
    return [f"{found}, but each of the student's {blocks} blocks that merge can merge at most {most} of {num_patches} patches"]


def _block_misfits(generic: GenericSettings | None, student: EncoderSettings) -> list[str]:
    """Blocks and heads of the student that its shape does not have."""
    if isinstance(generic, DmaeSettings) and generic.student_block > student.depth:
        return [f"generic.student_block is {generic.student_block}, but student.depth is {student.depth}"]
    if isinstance(generic, TinymimSettings):
        for name, heads in (("heads", generic.heads), ("relation_heads", generic.relation_heads)):
            if heads is not None and student.width % heads:
                return [f"generic.{name} is {heads}, which does not divide student.width {student.width}"]
    return []
