"""ViTDet Mask R-CNN: window encoder, simple feature pyramid, proposals, regions.

Shape letters: B batch, C channels of an image, H and W its rows and columns, A anchors of an image, K detections of an image.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn

from g2sd_deploy.data.dense.targets import ImageTruth
from g2sd_deploy.models.adapt import at_image_size
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.proposals import LevelAnswers, ProposalNetwork
from g2sd_deploy.models.dense.pyramid import FeaturePyramid
from g2sd_deploy.models.dense.regions import Found, RegionHeads
from g2sd_deploy.models.dense.windows import WindowEncoder
from g2sd_deploy.models.vit import Encoder

LOSS_TERMS = ("rpn_objectness", "rpn_box", "region_class", "region_box", "region_mask")


class Detector(nn.Module):
    """Mask R-CNN on a plain encoder, for square images whose right and bottom may be padding.

    Source: arXiv 2203.16527 (ViTDet); facebookresearch/detectron2, projects/ViTDet.
    Differs: at inference proposals and boxes are clipped to the square and not to the part of it that holds the image, which the network is
    not told; the caller clips.
    """

    no_weight_decay = ("pos_embed",)
    """Parameters that ViTDet exempts from weight decay, beside vectors and biases."""

    def __init__(self, spec: DetectorSpec) -> None:
        super().__init__()
        self.spec = spec
        self.encoder = WindowEncoder(
            spec.encoder, window=spec.window, global_blocks=spec.global_blocks, relative_positions=spec.relative_positions
        )
        self.pyramid = FeaturePyramid(spec.encoder.width, spec.encoder.patch_px, spec.channels)
        self.rpn = ProposalNetwork(spec)
        self.regions = RegionHeads(spec)

    def forward(self, images: Float[Tensor, "B C H W"]) -> Found:
        """Detections of normalised images: `max_detections` rows for each, those without one zero."""
        features, answers = self._levels(images, None)
        limits = images.new_full((1, 4), float(self.spec.encoder.image_px), dtype=torch.float32).expand(images.shape[0], -1)
        return self.regions.detections(features, self.rpn.proposals(answers, limits, training=False))

    def levels(
        self, images: Float[Tensor, "B C H W"], survival: Float[Tensor, "B depth 2"] | None = None
    ) -> tuple[list[Float[Tensor, "B channels _ _"]], list[Float[Tensor, "B ratios _ _"]]]:
        """Features and objectness logits of p2 .. p6; neither proposals nor regions are computed.

        Args:
            images: Normalised images.
            survival: Factors of each block's residual branches (drop path); None for 1.
        """
        features, answers = self._levels(images, survival)
        return features, answers.objectness

    def losses(
        self,
        images: Float[Tensor, "B C H W"],
        truths: Sequence[ImageTruth],
        survival: Float[Tensor, "B depth 2"] | None,
        anchor_draws: Float[Tensor, "B A"],
        region_draws: Float[Tensor, "B regions"],
    ) -> tuple[
        dict[str, Float[Tensor, ""]],
        list[Float[Tensor, "B channels _ _"]],
        list[Float[Tensor, "B ratios _ _"]],
    ]:
        """The loss terms of Mask R-CNN, and what distillation compares.

        Args:
            images: Normalised images.
            truths: One for each image; proposals are clipped to its `size`.
            survival: Factors of each block's residual branches (drop path); None for 1.
            anchor_draws: `spec.num_anchors` uniform numbers in [0, 1) of each image, which sample the anchors.
            region_draws: `spec.num_region_draws` uniform numbers in [0, 1) of each image, which sample the regions.

        Returns:
            The terms `LOSS_TERMS` by name, float32, finite also where no image holds an object; features and objectness logits of p2 .. p6.
        """
        features, answers = self._levels(images, survival)
        objectness, box = self.rpn.losses(answers, truths, anchor_draws)
        sizes = [(columns, rows, columns, rows) for rows, columns in (truth.size for truth in truths)]
        limits = torch.tensor(sizes, dtype=torch.float32).to(images.device, non_blocking=True)
        proposals = self.rpn.proposals(answers, limits, training=True)
        terms = {"rpn_objectness": objectness, "rpn_box": box, **self.regions.losses(features, proposals, truths, region_draws)}
        return terms, features, answers.objectness

    def _levels(self, images: Tensor, survival: Tensor | None) -> tuple[list[Tensor], LevelAnswers]:
        features: list[Tensor] = self.pyramid(self.encoder(images, survival))
        return features, self.rpn(features)


def start_detector_from(detector: Detector, encoder: Encoder) -> None:
    """Begin with a pre-trained encoder; its positions are resized where its images have another size.

    What a detector does not use (class token, final norm) is left out; relative positions stay as they are, zero in a new detector.

    Raises:
        ValueError: The encoder has another shape.
    """
    wanted, own = detector.encoder.spec, encoder.spec
    if replace(own, image_px=wanted.image_px, learned_positions=wanted.learned_positions) != wanted:
        raise ValueError(f"the encoder is {own}; wanted the shape of the detector's, {wanted} (the image size alone may differ)")
    weights = at_image_size(encoder, wanted.image_px).state_dict()
    kept = {name: value for name, value in weights.items() if name != "cls_token" and not name.startswith("norm.")}
    missing, unknown = detector.encoder.load_state_dict(kept, strict=False)
    assert not unknown and all("rel_pos_" in name for name in missing)
