"""Torch behind the interface that accuracy, parity and latency share."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.evaluation.torch_runner import TorchRunner
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_export.edge.preprocess import Preprocessing
from g2sd_export.edge.runner import Runner

PREPROCESSING = Preprocessing(image_px=8, resize_px=8, num_channels=1, mean=(0.25,), std=(0.5,))
CPU = torch.device("cpu")


def images(num: int = 5) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (num, 8, 8, 1), dtype=np.uint8)


class Watching(nn.Module):
    """Remembers under which conditions it was called."""

    def __init__(self, *, fails: bool = False) -> None:
        super().__init__()
        self.fails = fails
        self.seen: list[tuple[int, bool, bool]] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append((torch.get_num_threads(), torch.is_inference_mode_enabled(), self.training))
        if self.fails:
            raise MemoryError
        return inputs.flatten(1)[:, :3].double()


def test_it_is_a_runner_named_torch_with_torchs_version() -> None:
    runner = TorchRunner(Watching(), PREPROCESSING, device=CPU)
    assert isinstance(runner, Runner)
    assert (runner.name, runner.version, runner.preprocessing) == ("torch", torch.__version__, PREPROCESSING)


def test_images_are_normalised_and_answered_by_the_model_in_evaluation_mode() -> None:
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=1, heads=2), 3, pooling="cls", token="g2sd")
    logits = TorchRunner(model, PREPROCESSING, device=CPU).infer(images())
    inputs = torch.from_numpy((images().astype(np.float64).transpose(0, 3, 1, 2) / 255 - 0.25) / 0.5).float()
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, model.eval()(inputs).detach().numpy(), atol=1e-5)


def test_a_model_is_called_in_inference_and_evaluation_mode_and_answers_in_float32() -> None:
    model = Watching().train()
    logits = TorchRunner(model, PREPROCESSING, device=CPU).infer(images())
    assert model.seen == [(1, True, False)]
    assert logits.dtype == np.float32


@pytest.mark.parametrize("fails", [False, True])
def test_threads_are_set_for_the_forward_pass_alone(fails: bool) -> None:
    model, before = Watching(fails=fails), torch.get_num_threads()
    runner = TorchRunner(model, PREPROCESSING, device=CPU, threads=before + 1)
    with pytest.raises(MemoryError) if fails else nullcontext():
        runner.infer(images())
    assert model.seen[0][0] == before + 1
    assert torch.get_num_threads() == before


def test_four_threads_at_once_get_the_bits_that_one_gets() -> None:
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=1, heads=2), 3, pooling="cls", token="g2sd")
    runner = TorchRunner(model, PREPROCESSING, device=CPU, threads=1)
    parts = [images(40)[start : start + 5] for start in range(0, 40, 5)] * 4
    wanted = [runner.infer(part) for part in parts]
    with ThreadPoolExecutor(4) as pool:
        for got, want in zip(pool.map(runner.infer, parts), wanted, strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no NVIDIA GPU")
def test_the_gpu_answers_as_the_cpu() -> None:
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=1, heads=2), 3, pooling="cls", token="g2sd")
    wanted = TorchRunner(model, PREPROCESSING, device=CPU).infer(images())
    np.testing.assert_allclose(TorchRunner(model, PREPROCESSING, device=torch.device("cuda")).infer(images()), wanted, atol=1e-3)
