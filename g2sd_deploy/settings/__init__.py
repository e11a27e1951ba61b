"""What a recipe may say: one frozen, strict model per stage. Values only; `recipe.py` beside this package reads files into these."""

from g2sd_deploy.settings.base import Precision
from g2sd_deploy.settings.data import DataSettings
from g2sd_deploy.settings.dense import DetectionSettings, SegmentationSettings, TaskSettings
from g2sd_deploy.settings.dense_augment import DetectionAugmentSettings, SegmentationAugmentSettings
from g2sd_deploy.settings.generic import (
    CustomGenericSettings,
    DmaeSettings,
    G2sdSettings,
    GenericSettings,
    LossBandSettings,
    MaeSettings,
    TinymimSettings,
)
from g2sd_deploy.settings.networks import DecoderSettings, EncoderSettings, StudentSettings
from g2sd_deploy.settings.outcome import (
    CorruptionSettings,
    EvaluateSettings,
    ExportSettings,
    LicenceSettings,
    OcclusionSettings,
    ReportSettings,
    RobustnessSettings,
    SimilaritySettings,
)
from g2sd_deploy.settings.profile import ProfileSettings
from g2sd_deploy.settings.quantise import QuantiseSettings
from g2sd_deploy.settings.recipe import Recipe
from g2sd_deploy.settings.scenes import SceneSettings
from g2sd_deploy.settings.specific import (
    CustomSpecificSettings,
    CwdSettings,
    FinetuneOnlySettings,
    FrsSettings,
    HardDistillationSettings,
    NkdSettings,
    SoftDistillationSettings,
    SpecificSettings,
)
from g2sd_deploy.settings.teachers import BaselineSettings, FinetuneSettings, PretrainSettings, TeacherSettings
from g2sd_deploy.settings.training import (
    AugmentSettings,
    ClassifyAugmentSettings,
    ClassifyTrainSettings,
    LabelledTrainSettings,
    MixSettings,
    PretextTrainSettings,
    TrainSettings,
)

__all__ = [
    "AugmentSettings",
    "BaselineSettings",
    "ClassifyAugmentSettings",
    "ClassifyTrainSettings",
    "CorruptionSettings",
    "CustomGenericSettings",
    "CustomSpecificSettings",
    "CwdSettings",
    "DataSettings",
    "DecoderSettings",
    "DetectionAugmentSettings",
    "DetectionSettings",
    "DmaeSettings",
    "EncoderSettings",
    "EvaluateSettings",
    "ExportSettings",
    "FinetuneOnlySettings",
    "FinetuneSettings",
    "FrsSettings",
    "G2sdSettings",
    "GenericSettings",
    "HardDistillationSettings",
    "LabelledTrainSettings",
    "LicenceSettings",
    "LossBandSettings",
    "MaeSettings",
    "MixSettings",
    "NkdSettings",
    "OcclusionSettings",
    "Precision",
    "PretextTrainSettings",
    "PretrainSettings",
    "ProfileSettings",
    "QuantiseSettings",
    "Recipe",
    "ReportSettings",
    "RobustnessSettings",
    "SceneSettings",
    "SegmentationAugmentSettings",
    "SegmentationSettings",
    "SimilaritySettings",
    "SoftDistillationSettings",
    "SpecificSettings",
    "StudentSettings",
    "TaskSettings",
    "TeacherSettings",
    "TinymimSettings",
    "TrainSettings",
]
