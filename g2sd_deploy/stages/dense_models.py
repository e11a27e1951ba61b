"""The networks that a recipe's task asks for."""

from g2sd_deploy.models.dense.detector import Detector, start_detector_from
from g2sd_deploy.models.dense.detector_spec import DetectorSpec
from g2sd_deploy.models.dense.network_file import DenseNetwork
from g2sd_deploy.models.dense.segmenter import Segmenter, SegmenterSpec, default_taps, start_segmenter_from
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.settings import DetectionSettings, SegmentationSettings


def make_network(task: SegmentationSettings | DetectionSettings, encoder: EncoderSpec, num_classes: int) -> DenseNetwork:
    """A network with new weights."""
    if isinstance(task, SegmentationSettings):
        return Segmenter(
            SegmenterSpec(
                encoder,
                num_classes,
                taps=default_taps(encoder.depth),
                channels=task.channels or encoder.width,
                aux_channels=task.aux_channels,
                relative_positions=task.relative_positions,
                layer_scale=task.layer_scale,
            )
        )
    return Detector(
        DetectorSpec(
            encoder,
            num_classes,
            window=task.window,
            global_blocks=global_blocks(encoder.depth),
            relative_positions=task.relative_positions,
            channels=task.channels,
            mask_channels=task.channels,
            box_width=task.box_width,
            anchor_scale=task.anchor_scale,
            regions_per_image=task.region_samples,
            train_level_proposals=2 * task.proposals,  # ViTDet's ratios to its 1,000
            level_proposals=task.proposals,
            train_proposals=task.proposals,
            num_proposals=task.proposals,
            max_detections=task.max_detections,
            min_score=task.min_score,
        )
    )


def global_blocks(depth: int) -> tuple[int, ...]:
    """Blocks (counted from 0) that attend to the whole image, the last of each quarter: 2, 5, 8, 11 of 12 and 5, 11, 17, 23 of 24."""
    return tuple(sorted({depth * quarter // 4 - 1 for quarter in (1, 2, 3, 4)}))


def start_from_encoder(network: DenseNetwork, encoder: Encoder) -> None:
    """Begin with a pre-trained encoder."""
    if isinstance(network, Segmenter):
        start_segmenter_from(network, encoder)
    else:
        start_detector_from(network, encoder)
