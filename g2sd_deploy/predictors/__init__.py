"""Open anything that predicts (weights, a finished stage, a bundle, an ONNX file, an engine, a timm name) behind one interface."""

from g2sd_deploy.predictors.competing import competitor_of, teacher_of
from g2sd_deploy.predictors.opening import bundle_folder, bundle_predictor, classifier_predictor, open_predictor, verify_artifact
from g2sd_deploy.predictors.predictor import Predictor
from g2sd_deploy.predictors.preprocessing import AskedPreprocessing

__all__ = [
    "AskedPreprocessing",
    "Predictor",
    "bundle_folder",
    "bundle_predictor",
    "classifier_predictor",
    "competitor_of",
    "open_predictor",
    "teacher_of",
    "verify_artifact",
]
