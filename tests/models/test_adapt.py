"""Models fitted to other data: what must change changes, and nothing else."""

import pytest
import torch
from torch import nn

from g2sd_deploy.models.adapt import at_image_size, encoder_of, with_classes
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.position import resize_positions
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, Token

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4)
DECODER = DecoderSpec(width=8, depth=1, heads=2)


def models() -> list[nn.Module]:
    return [
        Encoder(SPEC),
        MaskedAutoencoder(SPEC, DECODER),
        GenericStudent(SPEC, DECODER, teacher_width=12),
        Classifier(SPEC, 5, pooling="cls", token="deit"),
        Classifier(SPEC, 5, pooling="mean"),
    ]


@pytest.mark.parametrize("index", range(5))
def test_another_image_size_changes_the_positions_alone(index: int) -> None:
    model = models()[index]
    resized = at_image_size(model, 20)
    assert type(resized) is type(model) and not resized.training
    assert encoder_of(resized).spec.image_px == 20 and encoder_of(resized).spec.width == 16
    for name, value in model.state_dict().items():
        wanted = resize_positions(value, 5) if name.endswith("pos_embed") else value
        assert torch.equal(resized.state_dict()[name], wanted), name
    assert {name: p.requires_grad for name, p in resized.named_parameters()} == {
        name: p.requires_grad for name, p in model.named_parameters()
    }


def test_a_resized_model_takes_images_of_the_new_size() -> None:
    images = torch.randn(2, 3, 20, 20)
    mask = mask_from_noise(torch.rand(2, 25), 0.75)
    assert at_image_size(MaskedAutoencoder(SPEC, DECODER), 20)(images, mask).shape == (2, 25, 48)
    assert at_image_size(Classifier(SPEC, 5, pooling="cls", token="g2sd"), 20)(images).shape == (2, 5)


def test_the_size_of_the_file_gives_the_same_model_back() -> None:
    model, images = Classifier(SPEC, 5, pooling="mean").eval(), torch.randn(2, 3, 12, 12)
    assert torch.equal(at_image_size(model, 12)(images), model(images))


def test_a_size_that_the_patch_does_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="patches of 4 px do not divide images of 21 px"):
        at_image_size(Encoder(SPEC), 21)


@pytest.mark.parametrize("token", ["none", "g2sd", "deit"])
def test_a_classifier_restricted_to_some_classes_gives_exactly_their_logits_in_the_order_asked_for(token: Token) -> None:
    model, images = Classifier(SPEC, 5, pooling="cls", token=token).eval(), torch.randn(3, 3, 12, 12)
    nn.init.normal_(model.head.weight)
    fewer = with_classes(model, [4, 0, 2])
    assert fewer.num_classes == 3 and not fewer.training
    torch.testing.assert_close(fewer(images), model(images)[:, [4, 0, 2]])
