"""Token merging (ToMe): in every block the patch tokens that are most alike become one, so that what follows has less to do.

Nothing is trained: any classifier can be asked with fewer tokens. Which ones are merged depends on the image, how many does not, so every
shape of the graph is fixed but the batch.

Shape letters: B batch, T tokens, N patch tokens, A patch tokens that may be merged into another, M patch tokens that may be merged into,
R tokens that are merged, K tokens that stay of A, S tokens after merging, P tokens that are asked about, H heads, E width of a head,
D width.

Source: arXiv 2210.09461, sections 3 and 4, appendix D; written from the paper.
Differs: the paper caps R at half of the tokens in silence, here an R that a block cannot merge is refused; a distillation token is left
out of the matching just as the class token is; the last block of a classifier that reads the class token alone merges nothing, as nobody
would read the result. Equal similarities are decided by position, so that every runtime decides alike.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor

from g2sd_deploy.models.vit import Classifier, EncoderSpec, Pooling

Look = Callable[[Tensor], None]
"""Told what the patch tokens of a block are like, before they are merged."""
_SMALLEST_NORM = 1e-6
"""Of a key; one of zeros has no direction."""


def num_merging_blocks(depth: int, pooling: Pooling) -> int:
    """Blocks that merge: all of them, or all but the last where only the class token is read behind it."""
    return depth if pooling == "mean" else depth - 1


def most_merged(num_patches: int, num_blocks: int) -> int:
    """The largest number of tokens that each block can merge: half of those that reach the last block that merges.

    Args:
        num_patches: Patch tokens of an image.
        num_blocks: Blocks that merge.
    """
    return num_patches // (num_blocks + 1) if num_blocks else 0


def token_counts(spec: EncoderSpec, pooling: Pooling, merged_per_block: int) -> list[int]:
    """Patch tokens that go into each block.

    Raises:
        ValueError: A block would have to merge more than half of its patch tokens, which is all that bipartite matching can.
    """
    blocks = num_merging_blocks(spec.depth, pooling)
    most = most_merged(spec.num_patches, blocks)
    if not 0 <= merged_per_block <= most:
        raise ValueError(
            f"token merging takes {merged_per_block} tokens away in each of {blocks} blocks, but this model has {spec.num_patches} patch "
            f"tokens and a block can merge half of its own at most; wanted 0 to {most}"
        )
    return [spec.num_patches - merged_per_block * min(block, blocks) for block in range(spec.depth)]


def with_token_merging(classifier: Classifier, merged_per_block: int) -> Classifier:
    """The classifier as it answers when every block merges some tokens; the classifier itself where nothing is to be merged.

    Raises:
        ValueError: It cannot merge as many; see `token_counts`.
    """
    token_counts(classifier.encoder.spec, classifier.pooling, merged_per_block)
    return TokenMergingClassifier(classifier, merged_per_block) if merged_per_block else classifier


@dataclass(frozen=True)
class Matching:
    """Which patch tokens become one.

    Tokens are split in turn, counted with the class token in front as the paper does: the 2nd, 4th... patch may be merged into the 1st,
    3rd...

    Attributes:
        order: Of the former: those that stay, in their order, and behind them those that are merged.
        into: Of the latter: the one that each of the merged goes into.
    """

    order: Int64[Tensor, "B A"]
    into: Int64[Tensor, "B R"]


def match(metric: Float[Tensor, "B N E"], num_merged: int) -> Matching:
    """Bipartite soft matching: each token of one half finds the most similar one of the other, and the R most similar pairs are merged.

    Args:
        metric: What a token is like: the keys of its attention, averaged over heads.
        num_merged: R, 1 to half of the tokens.
    """
    scores = _similarities(metric)
    order = _merged_last(scores.amax(dim=-1), num_merged)
    return Matching(order, scores.argmax(dim=-1).gather(1, order[:, scores.shape[1] - num_merged :]))


def closest_call(metric: Float[Tensor, "B N E"], num_merged: int) -> Float[Tensor, " B"]:
    """The smallest difference of two similarities that decided what is merged into what; arguments as of `match`.

    Where it is below the rounding of a runtime, what is merged is a matter of chance.
    """
    scores = _similarities(metric)
    first, second = scores.topk(2, dim=-1).values.unbind(-1) if scores.shape[2] > 1 else (scores[..., 0], scores[..., 0] - 2)
    order = first.sort(dim=-1, descending=True)
    calls = (first - second).gather(1, order.indices[:, :num_merged])
    edge = order.values[:, num_merged - 1 : num_merged] - order.values[:, num_merged : num_merged + 1]  # empty where all are merged
    closest: Tensor = torch.cat([calls, edge], dim=1).amin(dim=1)
    return closest


def _similarities(metric: Float[Tensor, "B N E"]) -> Float[Tensor, "B A M"]:
    """Cosines between the two halves."""
    directions = metric / torch.linalg.vector_norm(metric, dim=-1, keepdim=True).clamp_min(_SMALLEST_NORM)
    cosines: Tensor = directions[:, 1::2] @ directions[:, ::2].transpose(1, 2)
    return cosines


def _merged_last(best: Float[Tensor, "B A"], num_merged: int) -> Int64[Tensor, "B A"]:
    """Indices of those that stay, ascending, then of the R with the highest score, ascending.

    Pairs are compared, for a sort leaves the order of equals to the runtime.
    """
    num = best.shape[1]
    place = torch.arange(num, device=best.device)
    own, other = best.unsqueeze(2), best.unsqueeze(1)
    ahead = (other > own) | ((other == own) & (place < place.unsqueeze(1)))
    merged = ahead.long().sum(dim=-1) < num_merged
    return (place + num * merged.long()).topk(num, dim=-1, largest=False).indices


def merge(
    tokens: Float[Tensor, "B N D"], size: Float[Tensor, "B N"] | None, matching: Matching
) -> tuple[Float[Tensor, "B S D"], Float[Tensor, "B S"]]:
    """Average the tokens that a matching puts together, each counted as often as the patches it stands for.

    Args:
        tokens: Patch tokens.
        size: Patches that each stands for; None for one each.
        matching: Of these tokens.

    Returns:
        Those of the first half that stay, then all of the second half; and their sizes.
    """
    fixed, movable = tokens[:, ::2], _picked(tokens[:, 1::2], matching.order)
    kept = movable.shape[1] - matching.into.shape[1]
    places = torch.arange(fixed.shape[1], device=tokens.device).unsqueeze(1)
    joins = (matching.into.unsqueeze(1) == places).to(tokens.dtype)  # a product with it adds up what a scatter would, in a fixed order
    staying, moving = movable[:, :kept], movable[:, kept:]
    if size is None:
        total = 1 + joins.sum(dim=-1)
        together, sizes = fixed + joins @ moving, F.pad(total, (kept, 0), value=1.0)
    else:
        weights = size[:, 1::2].gather(1, matching.order)
        own, added = size[:, ::2].unsqueeze(2), weights[:, kept:].unsqueeze(2)
        total = (own + joins @ added).squeeze(2)
        together, sizes = fixed * own + joins @ (moving * added), torch.cat([weights[:, :kept], total], dim=1)
    return torch.cat([staying, together / total.unsqueeze(2)], dim=1), sizes


def _picked(tokens: Float[Tensor, "B A D"], ids: Int64[Tensor, "B K"]) -> Float[Tensor, "B K D"]:
    """Tokens by index, per image: whole rows of one long table, which runtimes copy fastest."""
    batch, num, width = tokens.shape
    rows = ids + num * torch.arange(batch, device=ids.device).unsqueeze(1)
    return tokens.reshape(batch * num, width).index_select(0, rows.flatten()).reshape(batch, ids.shape[1], width)


class TokenMergingClassifier(Classifier):
    """A classifier whose blocks merge tokens; it is only asked, never trained.

    Args:
        classifier: Left as it is; this one has weights of its own.
        merged_per_block: Patch tokens that each block takes away, 1 or more.

    Raises:
        ValueError: It cannot merge as many; see `token_counts`.
    """

    def __init__(self, classifier: Classifier, merged_per_block: int) -> None:
        token_counts(classifier.encoder.spec, classifier.pooling, merged_per_block)
        with torch.device("meta"):  # without a weight drawn at random only to be replaced
            super().__init__(classifier.encoder.spec, classifier.num_classes, pooling=classifier.pooling, token=classifier.token)
        self.load_state_dict({name: value.clone() for name, value in classifier.state_dict().items()}, assign=True)
        self.merged_per_block = merged_per_block
        self.eval()

    def forward_heads(
        self, images: Float[Tensor, "B C H W"], *, survival: Float[Tensor, "B depth 2"] | None = None
    ) -> tuple[Float[Tensor, "B classes"], Float[Tensor, "B classes"] | None]:
        """Logits of the class head and, where there is one, of the distillation head.

        Raises:
            ValueError: Blocks are to be skipped, which is for training.
        """
        if survival is not None:
            raise ValueError("a classifier that merges tokens is not trained: train it as it is, and merge when it is exported")
        return self._logits(images, None)

    @torch.no_grad()
    def closest_calls(self, images: Float[Tensor, "B C H W"]) -> Float[Tensor, " B"]:
        """How close the closest call of all blocks was, per image; see `closest_call`."""
        calls: list[Tensor] = []
        self._logits(images, lambda metric: calls.append(closest_call(metric, self.merged_per_block)))
        return torch.stack(calls).amin(dim=0)

    def _logits(
        self, images: Float[Tensor, "B C H W"], look: Look | None
    ) -> tuple[Float[Tensor, "B classes"], Float[Tensor, "B classes"] | None]:
        tokens, size = self.encoder.features(images, taps=(0,), extra_token=self.extra_token)[0], None
        blocks = list(self.encoder.blocks)
        merging, has_extra = num_merging_blocks(len(blocks), self.pooling), self.dist_token is not None
        for block in blocks[:merging]:
            tokens, size = _run_and_merge(block, tokens, size, self.merged_per_block, has_extra=has_extra, look=look)
        for block in blocks[merging:]:
            tokens = _run_for_ends(block, tokens, size, has_extra=has_extra)
        pooled = tokens[:, 0] if self.pooling == "cls" else _mean(tokens[:, 1 : tokens.shape[1] - has_extra], size)
        logits = self.head(self.encoder.norm(pooled))
        return logits, None if self.head_dist is None else self.head_dist(self.encoder.norm(tokens[:, -1]))


def _run_and_merge(
    block: Any, tokens: Float[Tensor, "B T D"], size: Float[Tensor, "B N"] | None, num_merged: int, *, has_extra: bool, look: Look | None
) -> tuple[Float[Tensor, "B U D"], Float[Tensor, "B S"]]:
    """One of timm's blocks, whose patch tokens are merged between attention and MLP."""
    normed = block.norm1(tokens)
    end = tokens.shape[1] - has_extra
    attended, metric = _attend(block.attn, block.attn.qkv(normed).chunk(3, dim=-1), size, has_extra=has_extra)
    tokens = tokens + attended
    if look is not None:
        look(metric[:, 1:end])
    patches, size = merge(tokens[:, 1:end], size, match(metric[:, 1:end], num_merged))
    tokens = torch.cat([tokens[:, :1], patches, tokens[:, end:]] if has_extra else [tokens[:, :1], patches], dim=1)
    return tokens + block.mlp(block.norm2(tokens)), size


def _run_for_ends(
    block: Any, tokens: Float[Tensor, "B T D"], size: Float[Tensor, "B N"] | None, *, has_extra: bool
) -> Float[Tensor, "B P D"]:
    """One of timm's blocks for the class token and, where there is one, the extra token alone; see `run_block_for`."""
    normed, width = block.norm1(tokens), tokens.shape[-1]
    weight, bias = block.attn.qkv.weight, block.attn.qkv.bias
    queries = F.linear(_ends(normed, has_extra), weight[:width], bias[:width])
    keys, values = F.linear(normed, weight[width:], bias[width:]).chunk(2, dim=-1)
    attended, _ = _attend(block.attn, (queries, keys, values), size, has_extra=has_extra)
    tokens = _ends(tokens, has_extra) + attended
    found: Tensor = tokens + block.mlp(block.norm2(tokens))
    return found


def _ends(tokens: Float[Tensor, "B T D"], has_extra: bool) -> Float[Tensor, "B P D"]:
    return torch.cat([tokens[:, :1], tokens[:, -1:]], dim=1) if has_extra else tokens[:, :1]


def _attend(
    attention: Any, parts: Sequence[Float[Tensor, "B _ D"]], size: Float[Tensor, "B N"] | None, *, has_extra: bool
) -> tuple[Float[Tensor, "B P D"], Float[Tensor, "B T E"]]:
    """Proportional attention: a token is attended to as often as the patches it stands for.

    Args:
        attention: Of one of timm's blocks.
        parts: Queries, keys and values.
        size: Patches that each patch token stands for; None for one each.
        has_extra: Whether a token comes behind the patches.

    Returns:
        What attention answers to the queries, and the keys averaged over heads.
    """
    q, k, v = (part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2) for part in parts)
    counted = None if size is None else F.pad(size.log(), (1, int(has_extra))).unsqueeze(1).unsqueeze(1)
    attended = F.scaled_dot_product_attention(q, k, v, attn_mask=counted)
    return attention.proj(attended.transpose(1, 2).flatten(2)), k.mean(dim=1)


def _mean(tokens: Float[Tensor, "B N D"], size: Float[Tensor, "B N"] | None) -> Float[Tensor, "B D"]:
    """Mean over patches, each token counted as often as the patches it stands for."""
    if size is None:
        return tokens.mean(dim=1)
    return (tokens * size.unsqueeze(2)).sum(dim=1) / size.sum(dim=1, keepdim=True)
