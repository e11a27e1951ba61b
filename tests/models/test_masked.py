"""Masks and decoders against loops over patches."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from g2sd_deploy.models.masked import Decoder, DecoderSpec, FeatureStudent, GenericStudent, Mask, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import EncoderSpec

ENCODER = EncoderSpec(image_px=12, patch_px=4, num_channels=1, width=16, depth=2, heads=4)
DECODER = DecoderSpec(width=8, depth=3, heads=2)
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def images(num: int = 3) -> Tensor:
    return torch.randn(num, 1, 12, 12)


def a_mask(num: int = 3, mask_ratio: float = 0.5) -> Mask:
    return mask_from_noise(torch.rand(num, 9), mask_ratio)


def randomise(model: nn.Module) -> None:
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.eval()


@given(st.integers(2, 40), st.floats(0.0, 0.95))
def test_a_mask_keeps_the_least_noisy_patches_and_its_three_views_agree(num_patches: int, mask_ratio: float) -> None:
    num_keep = int(num_patches * (1 - mask_ratio))
    if num_keep == 0:
        return
    noise = torch.rand(2, num_patches, generator=torch.Generator().manual_seed(num_patches))
    mask = mask_from_noise(noise, mask_ratio)
    for row in range(2):
        by_noise = sorted(range(num_patches), key=lambda place, row=row: noise[row, place].item())
        assert mask.keep_ids[row].tolist() == by_noise[:num_keep]
        assert torch.tensor(by_noise)[mask.restore_ids[row]].tolist() == list(range(num_patches))
        assert mask.hidden[row].tolist() == [place not in by_noise[:num_keep] for place in range(num_patches)]


@pytest.mark.parametrize(("mask_ratio", "num_visible"), [(0.75, 49), (0.9, 19), (0.95, 9), (0.98, 3)])
def test_an_image_of_196_patches_keeps_as_many_as_the_papers_code(mask_ratio: float, num_visible: int) -> None:
    mask = mask_from_noise(torch.rand(2, 196), mask_ratio)
    assert mask.keep_ids.shape == (2, num_visible)
    assert mask.hidden.sum(dim=1).tolist() == [196 - num_visible] * 2


def test_the_same_noise_gives_the_same_mask_in_any_batch() -> None:
    noise = torch.rand(4, 9)
    whole, alone = mask_from_noise(noise, 0.5), mask_from_noise(noise[2:3], 0.5)
    assert torch.equal(whole.keep_ids[2:3], alone.keep_ids)
    assert torch.equal(whole.restore_ids[2:3], alone.restore_ids)


def test_equal_noise_is_broken_by_the_patches_order() -> None:
    assert mask_from_noise(torch.zeros(1, 40), 0.75).keep_ids.tolist() == [list(range(10))]


@pytest.mark.parametrize("mask_ratio", [0.95, 1.0, -0.2])
def test_a_mask_that_leaves_no_patch_or_more_than_there_are_is_refused(mask_ratio: float) -> None:
    with pytest.raises(ValueError, match=rf"mask_ratio {mask_ratio} leaves -?\d+ of 9 patches visible"):
        mask_from_noise(torch.rand(1, 9), mask_ratio)


def decoder_input_by_hand(decoder: Decoder, visible: Tensor, keep_ids: Tensor) -> Tensor:
    """Mask tokens everywhere, then the class token and each visible patch put where it belongs."""
    x = decoder.mask_token.detach().expand(len(visible), 10, -1).clone()
    embedded = visible @ decoder.embed.weight.T + decoder.embed.bias
    for row in range(len(visible)):
        x[row, 0] = embedded[row, 0]
        for order, place in enumerate(keep_ids[row].tolist()):
            x[row, 1 + place] = embedded[row, 1 + order]
    return x + decoder.pos_embed


def test_visible_tokens_return_to_their_places_and_mask_tokens_fill_the_rest() -> None:
    decoder, mask, visible = Decoder(DECODER, ENCODER), a_mask(), torch.randn(3, 5, 16)
    randomise(decoder)
    got = decoder(visible, mask.restore_ids, num_blocks=0)
    torch.testing.assert_close(got, decoder_input_by_hand(decoder, visible, mask.keep_ids), **CLOSE)


@pytest.mark.parametrize("num_blocks", [1, 2, 3, None])
def test_a_truncated_decoder_is_a_loop_over_its_first_blocks(num_blocks: int | None) -> None:
    decoder, mask, visible = Decoder(DECODER, ENCODER), a_mask(), torch.randn(3, 5, 16)
    randomise(decoder)
    x = decoder_input_by_hand(decoder, visible, mask.keep_ids)
    for i in range(3 if num_blocks is None else num_blocks):
        x = decoder.blocks[i](x)
    torch.testing.assert_close(decoder(visible, mask.restore_ids, num_blocks), x, **CLOSE)


def test_the_target_stops_after_its_block_and_later_blocks_are_not_called() -> None:
    model, called = MaskedAutoencoder(ENCODER, DECODER), []
    for i, block in enumerate(model.decoder.blocks):
        block.register_forward_hook(lambda *_, i=i: called.append(i))
    model.hidden_states(images(), a_mask(), 2).square().mean().backward()
    assert called == [0, 1]
    gradients = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert not any(name.startswith(("decoder.blocks.2.", "decoder_norm", "decoder_pred")) for name in gradients)
    assert "decoder.blocks.1.mlp.fc2.weight" in gradients


def test_the_target_is_the_residual_stream_of_the_normed_encoder_output() -> None:
    model, pictures, mask = MaskedAutoencoder(ENCODER, DECODER), images(), a_mask()
    randomise(model)
    visible = torch.nn.functional.layer_norm(
        model.encoder(pictures, mask.keep_ids), (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6
    )
    torch.testing.assert_close(model.hidden_states(pictures, mask, 2), model.decoder(visible, mask.restore_ids, 2), **CLOSE)


def test_predicted_pixels_are_normed_and_projected_patches_without_the_class_token() -> None:
    model, pictures, mask = MaskedAutoencoder(ENCODER, DECODER), images(), a_mask()
    randomise(model)
    states = model.hidden_states(pictures, mask)[:, 1:]
    normed = torch.nn.functional.layer_norm(states, (8,), model.decoder_norm.weight, model.decoder_norm.bias, 1e-6)
    predicted = model(pictures, mask)
    assert predicted.shape == (3, 9, 16)
    torch.testing.assert_close(predicted, normed @ model.decoder_pred.weight.T + model.decoder_pred.bias, **CLOSE)


def test_a_generic_student_predicts_features_of_the_teachers_width_for_every_position() -> None:
    model, pictures, mask = GenericStudent(ENCODER, DECODER, teacher_width=20), images(), a_mask()
    randomise(model)
    visible = torch.nn.functional.layer_norm(
        model.encoder(pictures, mask.keep_ids), (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6
    )
    states = model.decoder(visible, mask.restore_ids)
    first, last = model.feature_head[0], model.feature_head[2]
    hidden = torch.nn.functional.gelu(states @ first.weight.T + first.bias)
    predicted = model(pictures, mask)
    assert predicted.shape == (3, 10, 20)
    assert first.weight.shape == (20, 8)
    torch.testing.assert_close(predicted, hidden @ last.weight.T + last.bias, **CLOSE)


def test_every_trained_weight_of_a_generic_student_gets_a_gradient() -> None:
    model = GenericStudent(ENCODER, DECODER, teacher_width=20)
    model(images(), a_mask()).square().mean().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None or not parameter.grad.any()}
    assert without == {"encoder.pos_embed", "decoder.pos_embed"}


def test_hidden_pixels_do_not_reach_the_features() -> None:
    model, pictures, mask = GenericStudent(ENCODER, DECODER, teacher_width=20).eval(), images(1), a_mask(1)
    place = int(mask.hidden[0].nonzero()[0])
    changed = pictures.clone()
    changed[:, :, 4 * (place // 3) :, 4 * (place % 3) :][:, :, :4, :4] += 5.0
    assert torch.equal(model(pictures, mask), model(changed, mask))


def test_an_encoder_student_predicts_features_of_the_class_token_and_the_visible_patches() -> None:
    model, pictures, mask = FeatureStudent(ENCODER, teacher_width=20), images(), a_mask()
    randomise(model)
    tokens = model.encoder(pictures, mask.keep_ids)
    normed = torch.nn.functional.layer_norm(tokens, (16,), model.encoder.norm.weight, model.encoder.norm.bias, 1e-6)
    first, last = model.feature_head[0], model.feature_head[2]
    assert (first.weight.shape, last.weight.shape) == ((20, 16), (20, 20))
    predicted = model(pictures, mask)
    assert predicted.shape == (3, 5, 20)
    hidden = torch.nn.functional.gelu(normed @ first.weight.T + first.bias)
    torch.testing.assert_close(predicted, hidden @ last.weight.T + last.bias, **CLOSE)


def test_pixels_may_be_predicted_from_tokens_that_were_encoded_before() -> None:
    model, pictures, mask = MaskedAutoencoder(ENCODER, DECODER), images(), a_mask()
    randomise(model)
    assert torch.equal(model.pixels_from(model.encoder(pictures, mask.keep_ids), mask), model(pictures, mask))


@pytest.mark.parametrize("learned", [False, True])
def test_learned_positions_are_the_encoders_and_the_decoder_keeps_its_table(learned: bool) -> None:
    model = MaskedAutoencoder(replace(ENCODER, learned_positions=learned), DECODER)
    model(images(), a_mask()).square().sum().backward()
    assert (model.encoder.pos_embed.grad is not None) == learned
    assert model.decoder.pos_embed.grad is None


def test_the_full_vit_b_autoencoder_and_the_students_of_g2sd_have_the_sizes_of_the_papers() -> None:
    base, small = (EncoderSpec(224, 16, 3, width=width, depth=12, heads=heads) for width, heads in ((768, 12), (384, 6)))
    with torch.device("meta"):
        teacher = MaskedAutoencoder(base, DecoderSpec(width=512, depth=8, heads=16))
        student = GenericStudent(small, DecoderSpec(width=256, depth=4, heads=8), teacher_width=512)
    assert round(sum(parameter.numel() for parameter in teacher.parameters()) / 1e6, 2) == 111.91
    head = (256 * 512 + 512) + (512 * 512 + 512)
    assert sum(parameter.numel() for parameter in student.feature_head.parameters()) == head
