"""Predictors as those who take part in an evaluation."""

from typing import TYPE_CHECKING

import numpy as np

from g2sd_deploy.errors import UserError
from g2sd_deploy.predictors.predictor import Predictor

if TYPE_CHECKING:
    import torch

    from g2sd_deploy.evaluation.evaluating import Competitor, Teacher
    from g2sd_deploy.evaluation.layers import LayerReader
    from g2sd_deploy.evaluation.running import Salience


def competitor_of(predictor: Predictor, *, threads: int | None) -> "Competitor":
    """A model ready to be scored.

    Args:
        predictor: The model.
        threads: CPU threads of one forward pass; None leaves it to the runtime.
    """
    from g2sd_deploy.data.testsets import LabelSpace
    from g2sd_deploy.evaluation.evaluating import Competitor

    space = LabelSpace.of(predictor.class_names, predictor.num_classes)
    return Competitor(predictor.open(threads), space, predictor.num_parameters, predictor.model_bytes, predictor.digest)


def teacher_of(name: str, predictor: Predictor, device: "torch.device") -> "Teacher":
    """The model that others are compared with; where it is a plain vision transformer on torch, it also tells what it looks at."""
    from g2sd_deploy.evaluation.evaluating import Teacher
    from g2sd_deploy.evaluation.layers import layer_reader

    if predictor.module is None:
        return Teacher(name)
    try:
        reader = layer_reader(predictor.module().to(device))
    except UserError:  # of another architecture: its answers can be compared, its attention is not known
        return Teacher(name)
    if reader.queries is None:
        return Teacher(name)
    return Teacher(name, _salience(reader, predictor, device), predictor.preprocessing, reader.grid)


def _salience(reader: "LayerReader", predictor: Predictor, device: "torch.device") -> "Salience":
    import torch

    from g2sd_export.edge.preprocess import normalise

    def salience(images: np.ndarray) -> np.ndarray:
        inputs = torch.from_numpy(normalise(images, predictor.preprocessing)).to(device)
        found: np.ndarray = reader.salience(inputs).double().cpu().numpy()
        return found

    return salience
