"""Token merging as a setting of an export: the student that merges, how its files are judged, and what merging costs in accuracy."""

from typing import TYPE_CHECKING, Any

from g2sd_deploy.errors import UserError
from g2sd_export.edge.agreement import ParityTolerance
from g2sd_export.proof import BATCH, Link, prove
from g2sd_export.targets import Target, Tolerance

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from g2sd_export.answers import Answers
    from g2sd_export.edge.preprocess import Preprocessing
    from g2sd_export.edge.runner import Runner

FLOAT_TOLERANCE = Tolerance(max_abs_logit_diff=0.5, flipped_share=2e-3, min_cosine=0.98, max_mean_kl=1e-5)
"""Of float files that merge tokens. Two pairs may be alike to the last bits; which one is merged is then a matter of rounding, and one
image in a hundred gets a slightly different answer on another runtime. A fault of the graph would show on all images: the mean
divergence catches it (measured 2e-7; merging itself is 1e-3)."""

_ANY = ParityTolerance(max_abs_logit_diff=1e9, flipped_share=1.0)
POINTS = 100


def merging_module(module: "nn.Module", merged_per_block: int) -> "nn.Module":
    """The network that merges tokens; the network itself where nothing is to be merged.

    Raises:
        UserError: It is no classifier of ours, or has too few tokens.
    """
    if not merged_per_block:
        return module
    from g2sd_deploy.models.token_merging import with_token_merging
    from g2sd_deploy.models.vit import Classifier

    if not isinstance(module, Classifier):
        raise UserError(
            f"token_merging is {merged_per_block}, which is for classifiers of g2sd alone, and this is a {type(module).__name__}; "
            "export it with token_merging 0"
        )
    try:
        return with_token_merging(module, merged_per_block)
    except ValueError as error:
        raise UserError(f"token_merging is {merged_per_block}: {error}") from None


def judged(target: Target, merged_per_block: int) -> Target:
    """The target with the tolerances that hold for files which merge tokens; the target itself where they merge none."""
    if not merged_per_block:
        return target
    return target.model_copy(update={"tolerance": {**target.tolerance, "fp32": FLOAT_TOLERANCE}})


def closest_calls(module: "nn.Module", preprocessing: "Preprocessing", images: "np.ndarray") -> "np.ndarray":
    """How close the closest call was, per image [N, H, W, C]: where it is near 0, rounding decides which tokens are merged."""
    import torch

    from g2sd_deploy.models.token_merging import TokenMergingClassifier
    from g2sd_export.edge.preprocess import normalise

    assert isinstance(module, TokenMergingClassifier)
    batches = (normalise(images[at : at + BATCH], preprocessing) for at in range(0, len(images), BATCH))
    found: np.ndarray = torch.cat([module.closest_calls(torch.from_numpy(batch)) for batch in batches]).numpy()
    return found


def cost_of_merging(
    plain: "Runner", merged: "Answers", images: "np.ndarray", labels: "np.ndarray", merged_per_block: int
) -> dict[str, Any]:
    """What merging costs: the student with and without it, image by image.

    Args:
        plain: The student without merging.
        merged: What the one that merges answered.
        images: uint8 [N, H, W, C], those of the proof.
        labels: Their true classes.
        merged_per_block: Patch tokens that each block takes away.

    Returns:
        ``merged_per_block``, ``num_images``, ``top1_plain``, ``top1_merged``, and ``drop``, a paired difference with its 95 % interval;
        the last three are None where one of the two gave no numbers.
    """
    whole = prove([Link("plain", plain), Link("merged", merged, _ANY)], images, labels).whole
    return {
        "merged_per_block": merged_per_block,
        "num_images": whole.num_images,
        "top1_plain": whole.top1_reference,
        "top1_merged": whole.top1_candidate,
        "drop": whole.drop.to_dict() if whole.drop is not None else None,
    }


def told(cost: dict[str, Any]) -> str:
    """What merging costs, in one sentence."""
    merging, drop = f"token merging, {cost['merged_per_block']} tokens in each block", cost["drop"]
    if drop is None:
        return f"{merging}: its cost in accuracy is not known"
    low, high = (POINTS * limit for limit in drop["interval"])
    lost = f"{abs(POINTS * drop['drop']):.2f} points of top-1 {'lost' if drop['drop'] >= 0 else 'gained'}"
    return (
        f"{merging}: {lost} against the same student without it ({cost['top1_plain']:.2%} to {cost['top1_merged']:.2%} on "
        f"{cost['num_images']} images; 95 % interval of the loss {low:+.2f} to {high:+.2f})"
    )
