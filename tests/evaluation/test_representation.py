"""The comparison of layers over a set of images, in batches, against CKA of all of them by its definition."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from g2sd_deploy.data.images import BadImage, ImageSet
from g2sd_deploy.errors import RunFailed
from g2sd_deploy.evaluation.layers import layer_reader
from g2sd_deploy.evaluation.representation import Comparison, Network, compare_layers
from g2sd_deploy.models.vit import Encoder, EncoderSpec
from g2sd_deploy.settings import SimilaritySettings
from g2sd_export.edge.preprocess import Preprocessing, normalise

CPU = torch.device("cpu")
PRE = Preprocessing(image_px=8, resize_px=8, num_channels=1, mean=(0.5,), std=(0.25,))
SPEC = EncoderSpec(8, 4, 1, width=12, depth=2, heads=2)
ALL = SimilaritySettings(max_images=16, batch_size=16)


def network(seed: int, name: str = "m", **changes: int) -> Network:
    torch.manual_seed(seed)
    spec = replace(SPEC, **changes)
    px = spec.image_px
    return Network(name, "", layer_reader(Encoder(spec)), replace(PRE, image_px=px, resize_px=px))


def images(num: int = 16) -> ImageSet:
    pixels = np.random.default_rng(0).integers(0, 256, (num, 8, 8, 1), dtype=np.uint8)
    return ImageSet(pixels, np.zeros(num, np.int64))


def found(networks: list[Network], samples: ImageSet, settings: SimilaritySettings = ALL) -> dict[str, Any]:
    pairs = [Comparison(0, place, "now") for place in range(1, len(networks))]
    return compare_layers(networks, pairs, samples, settings=settings, device=CPU, tick=lambda done, total: None)


def hsic(one: np.ndarray, other: np.ndarray) -> float:
    """Song et al. 2012, equation 5, with the sums written out."""
    a, b, n = one - np.diag(np.diag(one)), other - np.diag(np.diag(other)), len(one)
    return float((np.trace(a @ b) + a.sum() * b.sum() / ((n - 1) * (n - 2)) - 2 * (a @ b).sum() / (n - 2)) / (n * (n - 3)))


def gram(features: torch.Tensor) -> np.ndarray:
    flat = features.flatten(1).double().numpy()
    return flat @ flat.T


def test_similarity_is_that_of_the_definition_and_is_plain_json() -> None:
    networks = [network(0, "teacher"), network(1, "student", width=8, depth=1)]
    result = found(networks, images())
    (pair,) = result["pairs"]
    assert (pair["reference"], pair["name"], pair["when"]) == ("teacher", "student", "now")
    assert (pair["rows"], pair["columns"]) == (["embedding", "block 1", "block 2"], ["embedding", "block 1"])
    inputs = torch.from_numpy(normalise(images().images, PRE))
    left, right = ([gram(layer) for layer in one.reader.layers(inputs)] for one in networks)
    wanted = [[hsic(a, b) / (hsic(a, a) * hsic(b, b)) ** 0.5 for b in right] for a in left]
    np.testing.assert_allclose(pair["cka"], wanted, rtol=1e-4, atol=1e-5)
    assert result["num_images"] == result["batch_size"] == 16
    assert [(one["name"], np.array(one["px"]).shape) for one in result["attention_distance"]] == [("teacher", (2, 2)), ("student", (1, 2))]


def test_a_network_is_one_with_itself_and_less_with_another() -> None:
    same = np.array(found([network(0), network(0), network(1)], images())["pairs"][0]["cka"])
    np.testing.assert_allclose(np.diag(same), 1.0, rtol=1e-9)
    other = np.array(found([network(0), network(1)], images())["pairs"][0]["cka"])
    assert (other < 1).all()


def test_networks_of_other_sizes_see_the_same_images() -> None:
    result = found([network(0), network(0, image_px=16)], images())
    assert [one["image_px"] for one in result["attention_distance"]] == [8, 16]


def test_what_is_left_of_whole_batches_is_not_looked_at_and_few_images_are_one_batch() -> None:
    assert found([network(0), network(1)], images(15), SimilaritySettings(max_images=16, batch_size=4))["num_images"] == 12
    few = found([network(0), network(1)], images(6), SimilaritySettings(max_images=64, batch_size=64))
    assert (few["num_images"], few["batch_size"]) == (6, 6)
    with pytest.raises(RunFailed, match="needs at least 4 images, and there are 3"):
        found([network(0), network(1)], images(3))


def test_an_image_that_cannot_be_used_ends_it() -> None:
    class Holes(ImageSet):
        def read(self, index: int) -> np.ndarray:
            raise BadImage("it is gone")

    whole = images()
    with pytest.raises(RunFailed, match="image 0: it is gone; every image that layers are compared on has to be there"):
        found([network(0), network(1)], Holes(whole.images, whole.labels))
