"""What each method shows to its teacher and its student, what it scores, and what it trains."""

import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from g2sd_deploy.methods.classification import ClassifierLearner, soft_cross_entropy
from g2sd_deploy.methods.dmae import DmaeLearner
from g2sd_deploy.methods.g2sd import G2sdLearner
from g2sd_deploy.methods.mae import MaeLearner
from g2sd_deploy.methods.specific import hard_distillation_loss, nkd_loss, soft_distillation_loss
from g2sd_deploy.methods.tinymim import TinymimLearner, relation_losses
from g2sd_deploy.methods.views import LabelledViews, Views
from g2sd_deploy.models.masked import DecoderSpec, FeatureStudent, GenericStudent, Mask, MaskedAutoencoder, mask_from_noise
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec, survival_scales

TEACHER = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=24, depth=3, heads=2)
STUDENT = EncoderSpec(image_px=12, patch_px=4, num_channels=3, width=16, depth=3, heads=4)
DECODER = DecoderSpec(width=8, depth=2, heads=2)
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


def some_views(num: int = 4, seed: int = 0) -> Views:
    """Two different views, so that a method that mixes them up is noticed."""
    random = torch.Generator().manual_seed(seed)
    images, jittered = torch.randn(2, num, 3, 12, 12, generator=random)
    noise, drops = torch.rand(num, 9, generator=random).double(), torch.rand(num, 3, 2, generator=random).double()
    return Views(images, jittered, noise, drops)


class Teacher:
    """A teacher that remembers what it was asked; its weights would take a gradient if anyone let it through."""

    def __init__(self) -> None:
        self.model = MaskedAutoencoder(TEACHER, DECODER)
        self.asked: list[tuple[Tensor, Mask | None]] = []
        self.with_gradient: list[bool] = []

    def _note(self, images: Tensor, mask: Mask | None) -> None:
        self.asked.append((images, mask))
        self.with_gradient.append(torch.is_grad_enabled())

    def decoded(self, images: Tensor, mask: Mask) -> Tensor:
        self._note(images, mask)
        return self.model.hidden_states(images, mask, 1)

    def encoded(self, images: Tensor, mask: Mask) -> Tensor:
        self._note(images, mask)
        return self.model.encoder.features(images, mask.keep_ids, taps=(2,))[0]

    def related(self, images: Tensor) -> Tensor:
        self._note(images, None)
        return self.model.encoder.qkv(images, 2)


def g2sd(teacher: Teacher, **changed: Any) -> G2sdLearner:
    student = GenericStudent(STUDENT, DECODER, teacher_width=8)
    return G2sdLearner(student, teacher.decoded, **{"mask_ratio": 0.6, **changed})


def g2sd_encoder(teacher: Teacher, **changed: Any) -> G2sdLearner:
    return G2sdLearner(FeatureStudent(STUDENT, teacher_width=24), teacher.encoded, **{"mask_ratio": 0.6, **changed})


def dmae(teacher: Teacher, **changed: Any) -> DmaeLearner:
    settings = {"teacher_width": 24, "student_block": 2, "mask_ratio": 0.6, "norm_pix": False, "distance": "l1", "align_weight": 1.0}
    return DmaeLearner(MaskedAutoencoder(STUDENT, DECODER), teacher.encoded, **{**settings, **changed})


def tinymim(teacher: Teacher, **changed: Any) -> TinymimLearner:
    return TinymimLearner(Encoder(STUDENT), teacher.related, **{"heads": 2, "drop_path": 0.0, **changed})


def mae(_: Teacher, **changed: Any) -> MaeLearner:
    return MaeLearner(MaskedAutoencoder(STUDENT, DECODER), **{"mask_ratio": 0.6, "norm_pix": True, **changed})


TAUGHT: dict[str, Callable[..., nn.Module]] = {"g2sd": g2sd, "g2sd_encoder": g2sd_encoder, "dmae": dmae, "tinymim": tinymim}
ALL: dict[str, Callable[..., nn.Module]] = {**TAUGHT, "mae": mae}


def total(learner: nn.Module, views: Views) -> Tensor:
    return torch.stack(list(learner(views).values())).sum()


@pytest.mark.parametrize("method", ALL)
def test_the_loss_terms_are_single_finite_numbers_above_zero_and_have_names(method: str) -> None:
    terms = ALL[method](Teacher())(some_views())
    assert list(terms) == {"dmae": ["pixels", "alignment"], "tinymim": ["query_key", "value_value"], "mae": ["pixels"]}.get(
        method, ["features"]
    )
    assert all(term.shape == () and term.dtype == torch.float32 and 0 < term.item() < math.inf for term in terms.values())


@pytest.mark.parametrize("method", ALL)
def test_a_step_is_a_function_of_its_views(method: str) -> None:
    learner = ALL[method](Teacher())
    first = total(learner, some_views())
    torch.rand(10)
    assert torch.equal(total(learner, some_views()), first)
    assert not torch.equal(total(learner, some_views(seed=1)), first)


@pytest.mark.parametrize("learned_positions", [False, True])
@pytest.mark.parametrize("method", ALL)
def test_every_weight_that_is_trained_gets_a_gradient(method: str, learned_positions: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "STUDENT", replace(STUDENT, learned_positions=learned_positions))
    learner = ALL[method](Teacher())
    total(learner, some_views()).backward()
    named = dict(learner.named_parameters())
    without = {name for name, value in named.items() if value.requires_grad and (value.grad is None or not value.grad.any())}
    assert without == set()
    fixed = {name for name, value in named.items() if not value.requires_grad}
    assert {name for name in fixed if named[name].grad is not None} == set()
    tail = {name for name in fixed if name.startswith(("student.blocks.2.", "student.norm."))} if method == "tinymim" else set()
    positions = {"student.decoder.pos_embed"} | (set() if learned_positions else {"student.encoder.pos_embed", "student.pos_embed"})
    assert fixed - tail == positions & named.keys()


@pytest.mark.parametrize("method", TAUGHT)
def test_the_teacher_gets_no_gradient_and_is_no_part_of_what_is_trained_or_stored(method: str) -> None:
    teacher = Teacher()
    learner = TAUGHT[method](teacher)
    total(learner, some_views()).backward()
    assert teacher.with_gradient == [False]
    assert [name for name, value in teacher.model.named_parameters() if value.grad is not None] == []
    theirs = {value.data_ptr() for value in teacher.model.state_dict().values()}
    assert theirs.isdisjoint(value.data_ptr() for value in (*learner.parameters(), *learner.state_dict().values()))
    assert not any(module is teacher.model for module in learner.modules())


@pytest.mark.parametrize("method", ["g2sd", "g2sd_encoder", "dmae"])
def test_teacher_and_student_see_the_same_patches(method: str) -> None:
    teacher, views = Teacher(), some_views()
    learner: Any = TAUGHT[method](teacher)
    seen: list[Tensor] = []
    learner.student.encoder.patch_embed.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    learner(views)
    (images, mask), expected = teacher.asked[0], mask_from_noise(views.mask_noise, 0.6)
    assert torch.equal(images, views.images)
    assert mask is not None and torch.equal(mask.keep_ids, expected.keep_ids) and torch.equal(mask.restore_ids, expected.restore_ids)
    assert len(seen) == 1, "the student encodes once"
    for sample in range(4):
        for order, place in enumerate(expected.keep_ids[sample].tolist()):
            top, left = 4 * (place // 3), 4 * (place % 3)
            patch = views.student_images[sample, :, top : top + 4, left : left + 4].flatten()
            assert torch.equal(seen[0][sample, order], patch)


class Guess(nn.Module):
    """A student whose prediction is a parameter, so that its gradient tells what was scored."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.guess = nn.Parameter(torch.full(shape, 9.0))

    def forward(self, images: Tensor, mask: Mask) -> Tensor:
        return self.guess


@pytest.mark.parametrize("masked_only", [False, True])
def test_g2sd_scores_every_position_or_exactly_the_hidden_patches(masked_only: bool) -> None:
    teacher, views, student = Teacher(), some_views(), Guess((4, 10, 8))
    learner = g2sd(teacher, masked_only=masked_only)
    learner.student = cast("Any", student)
    total(learner, views).backward()
    assert student.guess.grad is not None
    scored = student.guess.grad.ne(0).all(dim=-1)
    assert scored.equal(student.guess.grad.ne(0).any(dim=-1))
    hidden = mask_from_noise(views.mask_noise, 0.6).hidden
    assert scored[:, 0].tolist() == [not masked_only] * 4  # the class token
    assert torch.equal(scored[:, 1:], hidden if masked_only else torch.ones_like(hidden))
    assert hidden.sum(dim=1).tolist() == [6] * 4  # int(9 * 0.4) = 3 stay


@pytest.mark.parametrize("method", [mae, dmae])
def test_pixels_of_the_students_own_view_are_reconstructed_where_they_are_hidden(method: Callable[..., Any]) -> None:
    learner, views = method(Teacher(), norm_pix=False), some_views()
    mask = mask_from_noise(views.mask_noise, 0.6)
    predicted = learner.student(views.student_images, mask)
    errors = []
    for sample, place in mask.hidden.nonzero().tolist():
        top, left = 4 * (place // 3), 4 * (place % 3)
        patch = views.student_images[sample, :, top : top + 4, left : left + 4].flatten()
        errors.append((predicted[sample, place] - patch).double().square().mean().item())
    assert len(errors) == 24
    assert learner(views)["pixels"].item() == pytest.approx(sum(errors) / 24, rel=1e-5)
    assert not torch.isclose(method(Teacher(), norm_pix=True)(views)["pixels"], torch.tensor(sum(errors) / 24), rtol=1e-3)


@pytest.mark.parametrize("student_block", [1, 2, 3])
def test_dmae_aligns_the_block_it_is_told_to_and_runs_the_encoder_once(student_block: int) -> None:
    teacher, views = Teacher(), some_views()
    learner = dmae(teacher, student_block=student_block)
    calls = []
    for index, block in enumerate(learner.student.encoder.blocks):
        block.register_forward_pre_hook(lambda *_, index=index: calls.append(index))
    found = learner(views)["alignment"]
    assert calls == [0, 1, 2]
    mask = mask_from_noise(views.mask_noise, 0.6)
    ours = learner.projection(learner.student.encoder.features(views.student_images, mask.keep_ids, taps=(student_block,))[0])
    theirs = teacher.encoded(views.images, mask)
    assert ours.shape == theirs.shape == (4, 4, 24)  # class token and three visible patches
    distance = (ours / ours.norm(dim=-1, keepdim=True) - theirs / theirs.norm(dim=-1, keepdim=True)).abs().mean()
    torch.testing.assert_close(found, distance, **CLOSE)


def test_dmaes_weight_scales_the_alignment_alone() -> None:
    views, learners = some_views(), [dmae(Teacher(), align_weight=weight) for weight in (1.0, 2.5, 0.0)]
    for learner in learners[1:]:
        learner.load_state_dict(learners[0].state_dict())
        learner.target = learners[0].target
    one, more, none = (learner(views) for learner in learners)
    assert torch.equal(one["pixels"], more["pixels"]) and torch.equal(one["pixels"], none["pixels"])
    torch.testing.assert_close(more["alignment"], 2.5 * one["alignment"])
    assert none["alignment"].item() == 0.0


def test_dmaes_projection_is_a_plain_layer_of_the_teachers_width() -> None:
    projection = dmae(Teacher()).projection
    assert (projection.weight.shape, projection.bias.any().item()) == ((24, 16), False)
    assert projection.weight.abs().max() <= math.sqrt(6 / (24 + 16))  # Xavier, uniform


def test_tinymim_shows_whole_images_as_they_are_to_the_teacher_and_jittered_to_the_student() -> None:
    teacher, views = Teacher(), some_views()
    learner = tinymim(teacher)
    found = learner(views)
    assert torch.equal(teacher.asked[0][0], views.images)
    expected = relation_losses(learner.student.qkv(views.student_images, 3), teacher.related(views.images), heads=2)
    assert (found["query_key"].item(), found["value_value"].item()) == (expected[0].item(), expected[1].item())
    assert learner.student.qkv(views.student_images, 3).shape == (4, 10, 48)


def test_tinymim_freezes_what_lies_behind_the_last_relations_and_nothing_else() -> None:
    learner = tinymim(Teacher())
    frozen = {name for name, value in learner.named_parameters() if not value.requires_grad} - {"student.pos_embed"}
    parts = ("attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
    assert frozen == {f"student.{part}.{kind}" for part in (*(f"blocks.2.{part}" for part in parts), "norm") for kind in ("weight", "bias")}


def test_tinymims_drop_path_is_the_same_for_every_block_but_the_last() -> None:
    teacher, views = Teacher(), some_views()
    learner = tinymim(teacher, drop_path=0.4)
    survival = survival_scales(views.drop_draws, [0.4, 0.4, 0.0])
    assert 0 < survival[:, :2].eq(0).sum() < 16, "some branches are skipped, and not all"
    expected = relation_losses(learner.student.qkv(views.student_images, 3, survival=survival), teacher.related(views.images), heads=2)
    found = learner(views)
    assert (found["query_key"].item(), found["value_value"].item()) == (expected[0].item(), expected[1].item())
    last = views.drop_draws.clone()
    last[:, 2] = 0.0
    assert torch.equal(learner(replace(views, drop_draws=last))["query_key"], found["query_key"])
    first = views.drop_draws.clone()
    first[:, 0] = 0.0
    assert not torch.equal(learner(replace(views, drop_draws=first))["query_key"], found["query_key"])


def test_without_drop_path_the_draws_do_not_matter() -> None:
    learner, views = tinymim(Teacher()), some_views()
    assert torch.equal(total(learner, views), total(learner, replace(views, drop_draws=torch.zeros(4, 3, 2).double())))


def test_a_student_of_one_block_learns_its_relations_from_the_embedded_patches() -> None:
    learner = TinymimLearner(Encoder(replace(STUDENT, depth=1)), Teacher().related, heads=2, drop_path=0.1)
    total(learner, replace(some_views(), drop_draws=torch.rand(4, 1, 2).double())).backward()
    student = learner.student
    assert {name for name, value in student.named_parameters() if value.grad is not None} == {
        *(f"blocks.0.{part}.{kind}" for part in ("norm1", "attn.qkv") for kind in ("weight", "bias")),
        *("cls_token", "patch_embed.proj.weight", "patch_embed.proj.bias"),
    }


@pytest.mark.parametrize("method", ["g2sd", "g2sd_encoder", "dmae", "mae"])
def test_a_mask_that_leaves_no_patch_is_refused(method: str) -> None:
    with pytest.raises(ValueError, match=r"mask_ratio 0\.9 leaves 0 of 9 patches visible"):
        ALL[method](Teacher(), mask_ratio=0.9)(some_views())


@pytest.mark.parametrize(("method", "changed"), [("g2sd", {"masked_only": True}), ("dmae", {}), ("mae", {})])
def test_a_mask_that_hides_no_patch_is_refused_where_hidden_ones_are_scored(method: str, changed: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="the mask hides no patch, so there is nothing to score; raise mask_ratio"):
        ALL[method](Teacher(), mask_ratio=0.0, **changed)(some_views())


def test_g2sd_of_all_positions_needs_no_hidden_patch() -> None:
    assert total(g2sd(Teacher(), mask_ratio=0.0), some_views()) > 0


def a_classifier(token: str, loss: Callable[..., Tensor]) -> tuple[nn.Module, LabelledViews]:
    """A student with a loss of its two heads, labels and a teacher's logits."""
    logits = torch.randn(4, 5)

    def asked(cls: Tensor, dist: Tensor | None, views: LabelledViews) -> Tensor:
        return loss(cls, dist, views.targets, logits)

    views = LabelledViews(
        torch.randn(4, 3, 12, 12), torch.rand(4, 5).softmax(-1), survival_scales(torch.rand(4, 3, 2).double(), [0.0, 0.2, 0.4])
    )
    return ClassifierLearner(Classifier(STUDENT, 5, pooling="cls", token=cast("Any", token)), asked), views


SPECIFIC: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "finetune": ("none", lambda cls, dist, targets, teacher: soft_cross_entropy(cls, targets)),
    "hard": ("g2sd", lambda cls, dist, targets, teacher: hard_distillation_loss(cls, dist, targets, teacher)),
    "soft": ("deit", lambda cls, dist, targets, teacher: soft_distillation_loss(cls, dist, targets, teacher, temperature=2.0, alpha=0.5)),
    "nkd": ("none", lambda cls, dist, targets, teacher: nkd_loss(cls, targets, teacher)),
}
STEPS: dict[str, Callable[[], tuple[nn.Module, Any]]] = {
    **{name: lambda make=make: (make(Quiet()), some_views()) for name, make in ALL.items()},
    "g2sd masked": lambda: (g2sd(Quiet(), masked_only=True), some_views()),
    "tinymim with drop path": lambda: (tinymim(Quiet(), drop_path=0.3), some_views()),
    **{name: lambda made=made: a_classifier(*made) for name, made in SPECIFIC.items()},
}


class Quiet(Teacher):
    """A teacher that remembers nothing, as those of the stages: writing things down is no part of a graph."""

    def _note(self, images: Tensor, mask: Mask | None) -> None:
        pass


class Waits(TorchDispatchMode):
    """Remembers the operations whose answer a host has to wait for, because it decides what is run next."""

    NAMES = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal")

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name in ("index", "index_put_") and any(value is not None and value.dtype == torch.bool for value in args[1])
        if name in self.NAMES or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_what_a_host_waits_for_is_noticed() -> None:
    values, mask = torch.rand(3), torch.tensor([True, False, True])
    with Waits() as waits:
        bool(mask.any()), values[mask]
    assert waits.found[:1] == ["_local_scalar_dense"] and len(waits.found) > 1


@pytest.mark.parametrize("method", STEPS)
def test_a_step_makes_the_host_wait_for_nothing(method: str) -> None:
    learner, views = STEPS[method]()
    with Waits() as waits:
        torch.stack(list(learner(views).values())).sum().backward()
    assert waits.found == []


def compile_every_learner() -> None:
    """Run alone, for the shape checks of the tests can be in no graph."""
    for method, make in STEPS.items():
        learner, views = make()
        expected = {name: term.item() for name, term in learner(views).items()}
        learner.compile(fullgraph=True, backend="eager")
        terms = learner(views)
        torch.stack(list(terms.values())).sum().backward()
        assert {name: term.item() for name, term in terms.items()} == expected, method
        torch.compiler.reset()


def test_every_learner_compiles_to_one_graph_that_computes_the_same() -> None:
    code = f"import runpy; runpy.run_path({__file__!r})['compile_every_learner']()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
