"""Imitated quantisation against integers computed in float64, and where in a classifier it is done."""

from collections.abc import Callable
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.models.fake_quant import (
    QuantisedClassifier,
    RangeObserver,
    activation_scales,
    fake_quantised_activation,
    fake_quantised_weight,
    points_of,
)
from g2sd_deploy.models.vit import Classifier, EncoderSpec

SPEC = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=2, heads=4)
KINDS = {"mean": ("mean", "none"), "cls": ("cls", "none"), "token": ("cls", "g2sd"), "token, mean": ("mean", "deit")}


def classifier(kind: str = "mean") -> Classifier:
    pooling, token = KINDS[kind]
    model = Classifier(SPEC, 5, pooling=pooling, token=token)  # type: ignore[arg-type]
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.eval()


def images(num: int = 3) -> Tensor:
    return torch.randn(num, 3, 12, 12)


def ranges_of(model: Classifier, seen: Tensor) -> Tensor:
    observer = RangeObserver(model)
    observer.look(seen)
    return observer.ranges(of_all=True)


def integers(x: Tensor, scale: float, zero: int, low: int, high: int) -> np.ndarray:
    """QuantizeLinear as ONNX defines it, in float64."""
    return np.clip(np.rint(x.double().numpy() / scale) + zero, low, high)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_weights_are_those_of_integers_with_a_scale_for_each_output_channel(bits: int) -> None:
    weight = torch.randn(6, 10) * torch.logspace(-3, 2, 6).unsqueeze(1)
    got, largest = fake_quantised_weight(weight, bits), 2 ** (bits - 1) - 1
    for row, found in zip(weight, got, strict=True):
        scale = float(row.double().abs().max()) / largest
        np.testing.assert_allclose(found.double(), integers(row, scale, 0, -largest, largest) * scale, rtol=1e-6, atol=1e-6 * scale)
        assert len(set(found.tolist())) <= 2 * largest + 1


def test_a_convolution_kernel_is_rounded_as_its_matrix_and_a_channel_of_zeros_stays_zero() -> None:
    kernel = torch.randn(4, 3, 2, 2)
    kernel[1] = 0
    got = fake_quantised_weight(kernel, 8)
    assert torch.equal(got.flatten(1), fake_quantised_weight(kernel.flatten(1), 8)) and got[1].abs().max() == 0


def test_the_gradient_of_a_weight_passes_as_if_nothing_were_rounded() -> None:
    weight, slope = torch.randn(4, 6, requires_grad=True), torch.randn(4, 6)
    (fake_quantised_weight(weight, 3) * slope).sum().backward()  # type: ignore[no-untyped-call]
    assert torch.equal(weight.grad, slope)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize(("low", "high"), [(-1.5, 3.0), (-4.0, 0.7), (0.5, 2.0), (-3.0, -1.0)])
def test_activations_are_those_of_unsigned_integers_whose_zero_is_exact(low: float, high: float, bits: int) -> None:
    scales, zeros = activation_scales(torch.tensor([[low, high]]), bits)
    scale, largest = (max(high, 0) - min(low, 0)) / (2**bits - 1), 2**bits - 1
    zero = round(-min(low, 0) / scale)
    assert scales.item() == pytest.approx(scale) and zeros.item() == zero
    x = torch.cat([torch.linspace(1.7 * low - 1, 1.7 * high + 1, 501), torch.zeros(1)])
    got = fake_quantised_activation(x, scales[0], zeros[0], bits)
    wanted = (integers(x, scales.double().item(), zero, 0, largest) - zero) * scale
    ties = np.abs(np.abs(x.double().numpy() / scale % 1) - 0.5) < 1e-4
    np.testing.assert_allclose(got.double()[~ties], wanted[~ties], rtol=1e-6, atol=1e-6)
    assert got[-1] == 0 and got.min() < got.max()


def test_the_gradient_of_an_activation_passes_within_the_range_only() -> None:
    scales, zeros = activation_scales(torch.tensor([[-1.0, 2.0]]), 8)
    x = torch.tensor([-5.0, -0.5, 0.0, 1.9, 2.5], requires_grad=True)
    fake_quantised_activation(x, scales[0], zeros[0], 8).sum().backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None and x.grad.tolist() == [0, 1, 1, 1, 0]


def test_half_precision_activations_are_rounded_in_float32() -> None:
    scales, zeros = activation_scales(torch.tensor([[-100.0, 155.0]]), 8)
    x = torch.randn(50).bfloat16() * 30
    got = fake_quantised_activation(x, scales[0], zeros[0], 8)
    assert got.dtype == torch.bfloat16 and torch.equal(got, fake_quantised_activation(x.float(), scales[0], zeros[0], 8).bfloat16())


@pytest.mark.parametrize("kind", KINDS)
def test_every_linear_layer_has_its_input_and_its_weight_rounded(kind: str) -> None:
    """A classifier rounded by hand, layer by layer, computes the same."""
    model = classifier(kind)
    ranges, seen = ranges_of(model, images()), images()
    names = [name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)]
    assert sorted(point.name for point in points_of(model)) == sorted(names)
    by_hand = deepcopy(model)
    scales, zeros = activation_scales(ranges, 4)
    for point, scale, zero in zip(points_of(by_hand), scales, zeros, strict=True):
        layer = by_hand.get_submodule(point.name)
        layer.weight.data = fake_quantised_weight(layer.weight, 4).detach()
        rounded: Callable[[Tensor], Tensor] = lambda x, s=scale, z=zero: fake_quantised_activation(x, s, z, 4)  # noqa: E731
        if point.comes_out:
            point.module.register_forward_hook(lambda _, __, x, rounded=rounded: rounded(x))
        else:
            point.module.register_forward_pre_hook(lambda _, x, rounded=rounded: rounded(x[0]))
    with torch.no_grad():
        got, wanted, plain = QuantisedClassifier(model, ranges, 4)(seen), by_hand(seen), model(seen)
    torch.testing.assert_close(got, wanted)
    assert (got - plain).abs().max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_rounding_each_input_alone_changes_the_answer(kind: str) -> None:
    model, seen = classifier(kind), images()
    ranges = ranges_of(model, seen)
    with torch.no_grad():
        answer = QuantisedClassifier(model, ranges)(seen)
        for number, point in enumerate(points_of(model)):
            narrow = ranges.clone()
            narrow[number] = torch.tensor([0.0, 1e-3])  # nearly nothing of this input is left
            assert not torch.allclose(QuantisedClassifier(model, narrow)(seen), answer, atol=1e-3), point.name


def test_eight_bits_are_near_float_and_fewer_bits_are_farther() -> None:
    model, seen = classifier(), images(8)
    ranges = ranges_of(model, seen)
    with torch.no_grad():
        plain = model(seen)
        errors = [float((QuantisedClassifier(model, ranges, bits)(seen) - plain).abs().mean()) for bits in (8, 6, 4)]
    assert errors[0] < 0.1 * float(plain.std()) and errors == sorted(errors)


def test_what_is_trained_are_the_classifiers_own_weights_and_it_still_computes_in_float() -> None:
    model, seen = classifier("token"), images()
    plain = model(seen).detach()
    quantised = QuantisedClassifier(model, ranges_of(model, seen), 4)
    assert {id(p) for p in quantised.parameters()} == {id(p) for p in model.parameters()}
    logits, dist = quantised.forward_heads(seen)
    assert dist is not None
    (logits.sum() + dist.sum()).backward()  # type: ignore[no-untyped-call]
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert torch.equal(model(seen), plain)


def test_the_scales_are_kept_with_a_checkpoint() -> None:
    model, seen = classifier(), images()
    one = QuantisedClassifier(model, ranges_of(model, seen))
    other = QuantisedClassifier(classifier(), torch.ones(10, 2).cumsum(1))
    assert one.state_dict().keys() == other.state_dict().keys() >= {"scales", "zeros"}
    other.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert torch.equal(one(seen), other(seen))


def test_ranges_are_the_extremes_of_all_images_or_the_mean_of_each_images_extremes() -> None:
    model, seen = classifier(), images(6)
    observer = RangeObserver(model)
    observer.look(seen[:2])
    observer.look(seen[2:])
    extremes = torch.stack([seen.flatten(1).amin(1), seen.flatten(1).amax(1)], dim=1)
    torch.testing.assert_close(observer.ranges(of_all=False)[0], extremes.mean(0))  # the first point reads the images' pixels
    torch.testing.assert_close(observer.ranges(of_all=True)[0], torch.stack([seen.min(), seen.max()]))
    for low, high in observer.ranges(of_all=True) - observer.ranges(of_all=False):
        assert low <= 0 <= high


def test_looking_leaves_the_classifier_as_it_was_and_nothing_seen_is_refused() -> None:
    model, seen = classifier(), images()
    plain = model(seen)
    observer = RangeObserver(model)
    with pytest.raises(ValueError, match="no image was looked at"):
        observer.ranges(of_all=True)
    observer.look(seen)
    assert torch.equal(model(seen), plain) and not any(module._forward_pre_hooks for module in model.modules())


def test_a_range_is_that_of_what_its_layer_reads() -> None:
    model, seen, read = classifier("mean"), images(), {}
    ranges = ranges_of(model, seen)
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):  # under mean pooling every one of them is called
            layer.register_forward_pre_hook(lambda _, x, name=name: read.update({name: torch.stack([x[0].min(), x[0].max()])}))
    with torch.no_grad():
        model(seen)
    found = {point.name: one for point, one in zip(points_of(model), ranges, strict=True)}
    assert len(read) == 9
    for name, wanted in read.items():
        torch.testing.assert_close(found[name], wanted, msg=name)
