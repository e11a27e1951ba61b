"""A classifier that is only asked answers as the one that was trained."""

import numpy as np
import pytest
import torch
from torch import nn

from g2sd_deploy.models.deploy import MergedHeads, merged_heads
from g2sd_deploy.models.vit import Classifier, EncoderSpec, Pooling, Token

SPEC = EncoderSpec(image_px=16, patch_px=4, num_channels=3, width=24, depth=2, heads=3)


def classifier(pooling: Pooling, token: Token) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(SPEC, 7, pooling=pooling, token=token)
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)  # fresh norms and biases would hide what is left out
    return model.eval()


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("token", ["g2sd", "deit"])
def test_two_heads_merged_are_the_mean_of_both(pooling: Pooling, token: Token) -> None:
    model = classifier(pooling, token)
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        first, second = model.forward_heads(images)
        got = merged_heads(model)(images)
    assert second is not None
    wanted = (first.double().numpy() + second.double().numpy()) / 2
    assert np.abs(wanted).max() > 0.5 and np.abs(first.numpy() - second.numpy()).max() > 0.5
    np.testing.assert_allclose(got.numpy(), wanted, atol=2e-6)


def test_the_merged_head_holds_the_halves_of_both_to_the_last_bit() -> None:
    model = classifier("cls", "deit")
    merged = merged_heads(model)
    assert isinstance(merged, MergedHeads) and model.head_dist is not None
    assert torch.equal(merged.head.weight[:, :24] * 2, model.head.weight)
    assert torch.equal(merged.head.weight[:, 24:] * 2, model.head_dist.weight)


def test_the_classifier_is_left_as_it_was_and_shares_no_weights() -> None:
    model = classifier("mean", "g2sd")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merged = merged_heads(model)
    with torch.no_grad():
        for parameter in merged.parameters():
            parameter.zero_()
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    assert isinstance(model.encoder.norm, nn.LayerNorm) and isinstance(model.head, nn.Linear)


@pytest.mark.parametrize("training", [True, False])
def test_it_stays_in_the_mode_and_on_the_precision_of_the_classifier(training: bool) -> None:
    merged = merged_heads(classifier("cls", "g2sd").double().train(training))
    assert merged.training is training and {parameter.dtype for parameter in merged.parameters()} == {torch.float64}


def test_a_classifier_with_one_head_comes_back_as_it_is() -> None:
    model = classifier("mean", "none")
    assert merged_heads(model) is model
