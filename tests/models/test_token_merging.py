"""Token merging against the paper's steps in loops of float64, and what the exported graph answers on two runtimes."""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn

from g2sd_deploy.models.deploy import merged_heads
from g2sd_deploy.models.token_merging import (
    TokenMergingClassifier,
    closest_call,
    match,
    merge,
    most_merged,
    num_merging_blocks,
    token_counts,
    with_token_merging,
)
from g2sd_deploy.models.vit import Classifier, EncoderSpec, Pooling, Token
from g2sd_export.onnx_file import export_onnx

SPEC = EncoderSpec(image_px=20, patch_px=4, num_channels=3, width=24, depth=3, heads=3)  # 25 patches: an odd number
POOLINGS: tuple[Pooling, ...] = ("cls", "mean")
Array = npt.NDArray[np.float64]
Piece = tuple[Array, int, str]
"""A token: its vector, the patches it stands for, and what it is."""


def classifier(pooling: Pooling = "cls", token: Token = "none") -> Classifier:
    """Fixed starting values (zero biases, tiny heads) would hide a mistake."""
    model = Classifier(SPEC, 7, pooling=pooling, token=token)
    with torch.no_grad():
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.3)
    return model.eval()


def pictures(num: int = 3) -> Tensor:
    return torch.randn(num, 3, 20, 20, generator=torch.Generator().manual_seed(1))


class ByThePaper:
    """One image at a time, one token at a time, in float64."""

    def __init__(self, model: Classifier, merged_per_block: int) -> None:
        self.model, self.r = model, merged_per_block
        self.weights = {name: value.double().numpy() for name, value in model.state_dict().items()}

    def logits(self, picture: Tensor) -> Array:
        tokens, depth = list(self.embedded(picture.double().numpy())), SPEC.depth
        merging = depth if self.model.pooling == "mean" else depth - 1
        for number in range(depth):
            tokens = self.block(number, tokens, self.r if number < merging else 0)
        patches = [(x, size) for x, size, kind in tokens if kind == "patch"]
        assert sum(size for _, size in patches) == SPEC.num_patches
        pooled = tokens[0][0]
        if self.model.pooling == "mean":
            pooled = np.sum([size * x for x, size in patches], axis=0) / SPEC.num_patches
        found = self.linear("head", self.norm("encoder.norm", pooled))
        if self.model.head_dist is None:
            return found
        return (found + self.linear("head_dist", self.norm("encoder.norm", tokens[-1][0]))) / 2

    def embedded(self, picture: Array) -> Iterator[Piece]:
        w, side = self.weights, SPEC.patch_px
        positions = w["encoder.pos_embed"][0]
        yield w["encoder.cls_token"][0, 0] + positions[0], 1, "class"
        for place in range(SPEC.num_patches):
            y, x = side * (place // SPEC.grid), side * (place % SPEC.grid)
            patch = picture[:, y : y + side, x : x + side]
            projected = np.tensordot(w["encoder.patch_embed.proj.weight"], patch, axes=3) + w["encoder.patch_embed.proj.bias"]
            yield projected + positions[1 + place], 1, "patch"
        if self.model.dist_token is not None:
            extra = w["dist_token"][0, 0]
            yield (extra + w["dist_pos"][0, 0] if self.model.dist_pos is not None else extra), 1, "extra"

    def block(self, number: int, tokens: list[Piece], r: int) -> list[Piece]:
        name, heads, wide = f"encoder.blocks.{number}", SPEC.heads, SPEC.width // SPEC.heads
        qkv = [self.linear(f"{name}.attn.qkv", self.norm(f"{name}.norm1", x)).reshape(3, heads, wide) for x, _, _ in tokens]
        after = []
        for (x, size, kind), (query, _, _) in zip(tokens, qkv, strict=True):
            answer = np.zeros((heads, wide))
            for head in range(heads):
                scores = [query[head] @ qkv[at][1, head] / math.sqrt(wide) + math.log(tokens[at][1]) for at in range(len(tokens))]
                shares = np.exp(np.array(scores) - max(scores))
                for at, share in enumerate(shares / shares.sum()):
                    answer[head] += share * qkv[at][2, head]
            after.append((x + self.linear(f"{name}.attn.proj", answer.ravel()), size, kind))
        if r:
            after = self.merged(after, [part[1].mean(axis=0) for part in qkv], r)
        return [(x + self.mlp(f"{name}.mlp", self.norm(f"{name}.norm2", x)), size, kind) for x, size, kind in after]

    def merged(self, tokens: list[Piece], metric: list[Array], r: int) -> list[Piece]:
        """Section 3: A and B in turn, the class token in A; each of A draws one edge, the r best stay, connected tokens are averaged."""
        a = [at for at, (_, _, kind) in enumerate(tokens) if at % 2 == 0 and kind == "patch"]
        b = [at for at, (_, _, kind) in enumerate(tokens) if at % 2 == 1 and kind == "patch"]
        edges = []
        for source in a:
            alike = [metric[source] @ metric[to] / np.linalg.norm(metric[source]) / np.linalg.norm(metric[to]) for to in b]
            best = int(np.argmax(alike))
            edges.append((-alike[best], source, b[best]))
        chosen = {source: to for _, source, to in sorted(edges)[:r]}
        result = [tokens[0]] + [tokens[at] for at in a if at not in chosen]
        for to in b:
            group = [tokens[to], *(tokens[source] for source, target in chosen.items() if target == to)]
            total = sum(size for _, size, _ in group)
            result.append((np.sum([size * x for x, size, _ in group], axis=0) / total, total, "patch"))
        return result + [token for token in tokens if token[2] == "extra"]

    def norm(self, name: str, x: Array) -> Array:
        centred = x - x.mean()
        scaled: Array = centred / np.sqrt((centred**2).mean() + 1e-6) * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]
        return scaled

    def linear(self, name: str, x: Array) -> Array:
        found: Array = self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]
        return found

    def mlp(self, name: str, x: Array) -> Array:
        hidden = self.linear(f"{name}.fc1", x)
        return self.linear(f"{name}.fc2", np.array([h / 2 * (1 + math.erf(h / math.sqrt(2))) for h in hidden]))


@pytest.mark.parametrize("pooling", POOLINGS)
@pytest.mark.parametrize("token", ["none", "g2sd", "deit"])
@pytest.mark.parametrize("merged_per_block", [1, 4, 6])
def test_a_classifier_that_merges_answers_as_the_paper_says(pooling: Pooling, token: Token, merged_per_block: int) -> None:
    model, images = classifier(pooling, token).double(), pictures().double()
    with torch.no_grad():
        got, plain = with_token_merging(model, merged_per_block)(images).numpy(), model(images).numpy()
    wanted = np.stack([ByThePaper(model, merged_per_block).logits(picture) for picture in images])
    assert np.abs(wanted - plain).max() > 1e-3  # merging is not for nothing here
    np.testing.assert_allclose(got, wanted, atol=1e-9)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_merging_nothing_is_the_plain_classifier(pooling: Pooling) -> None:
    model = classifier(pooling, "deit")
    assert with_token_merging(model, 0) is model


@pytest.mark.parametrize("pooling", POOLINGS)
def test_merging_tokens_that_are_the_same_changes_no_answer(pooling: Pooling) -> None:
    """Proportional attention and weighted means are exact where the tokens that become one were one: no positions, a plain image."""
    model = classifier(pooling).double()
    with torch.no_grad():
        model.encoder.pos_embed.zero_()
        images = torch.randn(2, 3, 1, 1, dtype=torch.float64).expand(2, 3, 20, 20)
        np.testing.assert_allclose(with_token_merging(model, 6)(images).numpy(), model(images).numpy(), atol=1e-12)


def test_the_most_similar_pairs_are_merged_and_the_rest_keep_their_order() -> None:
    angles = torch.tensor([0.0, 0.5, 1.0, 1.1, 2.0, 2.9, 3.1])  # of 1, 3 and 5: 3 is nearest to 2, then 5 to 6, then 1 to 0
    found = match(torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0), 2)
    assert found.order.tolist() == [[0, 1, 2]] and found.into.tolist() == [[1, 3]]


def test_equal_similarities_are_decided_by_position() -> None:
    found = match(torch.ones(2, 9, 4), 2)
    assert found.order.tolist() == [[2, 3, 0, 1]] * 2 and found.into.tolist() == [[0, 0]] * 2


def test_a_key_of_zeros_is_like_nothing_and_breaks_nothing() -> None:
    found = match(torch.zeros(1, 4, 3), 1)
    assert found.order.tolist() == [[1, 0]] and found.into.tolist() == [[0]]


def test_a_merged_token_is_the_mean_of_all_patches_in_it() -> None:
    tokens, size = torch.tensor([[[2.0], [8.0], [5.0], [1.0]]]), torch.tensor([[3.0, 1.0, 2.0, 4.0]])
    got, sizes = merge(tokens, size, match(torch.tensor([[[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]]), 2))
    assert sizes.tolist() == [[4.0, 6.0]]
    assert got.flatten().tolist() == pytest.approx([(3 * 2 + 8) / 4, (2 * 5 + 4 * 1) / 6])


@pytest.mark.parametrize("merged_per_block", [9, 25, -1])
def test_more_than_the_blocks_can_merge_is_refused_with_the_most_that_they_can(merged_per_block: int) -> None:
    with pytest.raises(ValueError, match=rf"takes {merged_per_block} tokens away in each of 2 blocks.* wanted 0 to 8"):
        with_token_merging(classifier("cls"), merged_per_block)
    with pytest.raises(ValueError, match=r"each of 3 blocks.* wanted 0 to 6"):
        with_token_merging(classifier("mean"), merged_per_block)


def test_the_most_that_is_told_is_what_every_block_can_halve() -> None:
    for num_patches in (1, 2, 9, 49, 196):
        for blocks in (1, 2, 11, 12):
            fits = [r for r in range(num_patches + 1) if all(r <= (num_patches - r * done) // 2 for done in range(blocks))]
            assert most_merged(num_patches, blocks) == max(fits)


@pytest.mark.parametrize("pooling", POOLINGS)
def test_token_counts_are_those_of_the_tensors(pooling: Pooling) -> None:
    model = with_token_merging(classifier(pooling, "g2sd"), 6)
    seen: list[int] = []
    for block in cast("Any", model.encoder.blocks):
        block.norm1.register_forward_hook(lambda _, __, x: seen.append(x.shape[1] - 2))
    with torch.no_grad():
        model(pictures())
    assert seen == token_counts(SPEC, pooling, 6) == [25, 19, 13]
    assert num_merging_blocks(12, "cls") == 11


def test_it_has_weights_of_its_own_and_the_same_names() -> None:
    model = classifier("mean", "deit")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merging = with_token_merging(model, 3)
    with torch.no_grad():
        for parameter in merging.parameters():
            parameter.zero_()
    assert list(merging.state_dict()) == list(before)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_making_one_draws_no_random_number() -> None:
    model = classifier()
    state = torch.get_rng_state()
    with_token_merging(model, 3)
    assert torch.equal(state, torch.get_rng_state())


def test_a_close_call_is_the_smallest_difference_that_decides() -> None:
    angles = torch.tensor([0.0, 0.5, 1.0, 1.1, 2.0, 2.9, 3.1])
    metric = torch.stack([angles.cos(), angles.sin()], dim=1).unsqueeze(0)
    best = [math.cos(0.1), math.cos(0.2), math.cos(0.5)]  # of 3 to 2, of 5 to 6, and of 1 to 0, which is as near to 2
    second = [math.cos(0.9), math.cos(0.9), math.cos(0.5)]
    assert closest_call(metric, 1).item() == pytest.approx(min(best[0] - second[0], best[0] - best[1]), abs=1e-6)
    assert closest_call(metric, 2).item() == pytest.approx(min(best[1] - second[1], best[1] - best[2]), abs=1e-6)
    assert closest_call(metric, 3).item() == pytest.approx(0.0, abs=1e-6)


def test_the_closest_call_of_an_image_does_not_depend_on_the_images_beside_it() -> None:
    model = with_token_merging(classifier("mean"), 4)
    assert isinstance(model, TokenMergingClassifier)
    images = torch.cat([pictures(2), torch.full((1, 3, 20, 20), 0.3)])
    calls = model.closest_calls(images)
    assert calls.shape == (3,) and bool((calls >= 0).all()) and calls[:2].min() > 1e-6
    for other, alone in zip(calls, images, strict=True):
        assert model.closest_calls(alone.unsqueeze(0)).item() == pytest.approx(other.item(), abs=1e-6)


def test_training_it_is_refused() -> None:
    with pytest.raises(ValueError, match="is not trained"):
        with_token_merging(classifier(), 2).forward_heads(pictures(), survival=torch.ones(3, 3, 2))


def test_two_heads_become_one_with_merging_as_without() -> None:
    merging = with_token_merging(classifier("cls", "deit"), 5)
    assert isinstance(merging, TokenMergingClassifier) and merging.merged_per_block == 5 and not merging.training
    with torch.no_grad():
        np.testing.assert_allclose(merged_heads(merging)(pictures()).numpy(), merging(pictures()).numpy(), atol=1e-5)


@pytest.mark.parametrize(("pooling", "token"), [("cls", "deit"), ("mean", "none")])
def test_the_exported_graph_answers_as_torch_on_every_runtime_and_at_any_batch_size(pooling: Pooling, token: Token, tmp_path: Path) -> None:
    model = merged_heads(with_token_merging(classifier(pooling, token), 5))
    export_onnx(model, image_px=20, num_channels=3, path=tmp_path / "m.onnx")
    for num in (1, 3, 5):
        images = pictures(num)
        with torch.no_grad():
            wanted = model(images).numpy()
        for answers in answers_of(tmp_path / "m.onnx", images):
            np.testing.assert_allclose(answers, wanted, atol=2e-4)


def test_ties_are_decided_alike_in_the_exported_graph(tmp_path: Path) -> None:
    """One colour and no positions but one: in the first block all other patches are equally similar to each other."""
    model = classifier("mean")
    with torch.no_grad():
        model.encoder.pos_embed[:, :-1] = 0
    merging, images = with_token_merging(model, 5), torch.full((2, 3, 20, 20), 0.3)
    with torch.no_grad():
        wanted = merging(images).numpy()
    export_onnx(merging, image_px=20, num_channels=3, path=tmp_path / "m.onnx")
    for answers in answers_of(tmp_path / "m.onnx", images):
        np.testing.assert_allclose(answers, wanted, atol=2e-4)


def answers_of(path: Path, images: Tensor) -> Iterator[npt.NDArray[np.float32]]:
    """Of ONNX Runtime and of OpenVINO."""
    onnxruntime, openvino = pytest.importorskip("onnxruntime"), pytest.importorskip("openvino")
    yield onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(None, {"images": images.numpy()})[0]
    core = openvino.Core()
    yield core.compile_model(core.read_model(path), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images.numpy())[0]
