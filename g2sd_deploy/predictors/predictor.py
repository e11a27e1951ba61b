"""What every model is once it is opened."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import nn

    from g2sd_export.edge.preprocess import Preprocessing
    from g2sd_export.edge.runner import Runner

Kind = Literal["classifier", "bundle", "onnx", "engine", "timm"]


@dataclass(frozen=True)
class Predictor:
    """A model that can be scored and timed.

    Attributes:
        name: As it was asked for: a path or a timm name.
        kind: What it was opened as.
        preprocessing: How it wants its images.
        class_names: One per logit; None where nobody says.
        num_classes: Logits per image.
        num_parameters: Weights in it; None where the file does not tell.
        model_bytes: Size of the file that holds it, or of the weights in memory.
        digest: SHA-256 of that file, of a bundle's manifest, or of the weights that a hub gave.
        open: Makes a runner with a number of threads (None: the runtime's own choice), whose `infer` several threads may call at once.
            ONNX files run on the CPU, as in a bundle; engines on the GPU, where threads mean nothing.
        module: Gives the torch module; None where there is none.
    """

    name: str
    kind: Kind
    preprocessing: "Preprocessing"
    class_names: tuple[str, ...] | None
    num_classes: int
    num_parameters: int | None
    model_bytes: int
    digest: str
    open: "Callable[[int | None], Runner]"
    module: "Callable[[], nn.Module] | None" = None
