"""G2SD's specific distillation and NKD against the numbers of pengzhiliang/G2SD, and what it would take to be wrong."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from g2sd_deploy.methods.classification import soft_cross_entropy
from g2sd_deploy.methods.specific import hard_distillation_loss, nkd_loss
from g2sd_deploy.models.vit import Classifier

POOLED = {"encoder.norm.weight": "fc_norm.weight", "encoder.norm.bias": "fc_norm.bias"}  # mean pooling comes before the norm
SOFTENED = ("nkd_temperature_2.0_gamma_1.5", "nkd_temperature_0.5_gamma_0.3")


@pytest.fixture
def theirs(original: Callable[[str], Any]) -> Any:
    return original("specific")


def classifier(theirs: Any, name: str) -> Classifier:
    """The student has a distillation token and reads its class token; the teacher averages its patches."""
    spec, _ = theirs.specs(name)
    if name == "student":
        model = Classifier(spec, theirs.data["models"][name]["num_classes"], pooling="cls", token="g2sd")
        theirs.fill(name, model, learned_positions=True)
        return model
    model = Classifier(spec, theirs.data["models"][name]["num_classes"], pooling="mean")
    theirs.fill(name, model, renamed=POOLED, learned_positions=True)
    return model.requires_grad_(False)


def targets_of(theirs: Any) -> Tensor:
    """Labels of two images mixed, smoothed by 0.1."""
    classes = theirs.data["models"]["student"]["num_classes"]
    first, second = (theirs.draw(f"labels {which}", (theirs.batch,), 0, classes).floor().long() for which in "ab")
    share = theirs.draw("share of a", (theirs.batch,), 0, 1).double().unsqueeze(1)
    mixed = share * F.one_hot(first, classes) + (1 - share) * F.one_hot(second, classes)
    return (0.1 / classes + 0.9 * mixed).float()


class Step:
    """What both networks make of the images."""

    def __init__(self, theirs: Any) -> None:
        self.student = classifier(theirs, "student")
        self.images = theirs.images()
        self.targets = targets_of(theirs)
        self.teacher = classifier(theirs, "teacher")(self.images)
        cls, dist = self.student.forward_heads(self.images)
        assert dist is not None
        self.cls, self.dist = cls, dist

    def hard(self) -> Tensor:
        return hard_distillation_loss(self.cls, self.dist, self.targets, self.teacher)

    def nkd(self, **settings: float) -> Tensor:
        return nkd_loss(self.cls, self.targets, self.teacher, **settings)


@pytest.fixture
def step(theirs: Any) -> Step:
    return Step(theirs)


def test_the_logits_of_both_heads_and_of_the_teacher_are_theirs(theirs: Any, step: Step) -> None:
    theirs.cases["outputs"] = theirs.data["outputs"]
    theirs.check("outputs", cls_logits=step.cls, dist_logits=step.dist, teacher_logits=step.teacher)
    assert len(set(step.teacher.argmax(-1).tolist())) > 1  # else its decisions would prove little


def test_inference_is_theirs(theirs: Any, step: Step) -> None:
    theirs.check("hard", inference=step.student(step.images))
    theirs.check("nkd", inference=step.cls)  # trained by NKD, the second head is not read


def test_hard_distillation_and_every_gradient_are_theirs(theirs: Any, step: Step) -> None:
    theirs.check("hard", loss=step.hard(), loss_gt=soft_cross_entropy(step.cls, step.targets))
    theirs.check_gradients("hard", step.student, step.hard())


def test_nkd_and_every_gradient_are_theirs(theirs: Any, step: Step) -> None:
    theirs.check("nkd", loss=step.nkd(temperature=1.0, gamma=1.0))
    theirs.check_gradients("nkd", step.student, step.nkd(temperature=1.0, gamma=1.0))


@pytest.mark.parametrize("case", SOFTENED)
def test_nkd_at_other_temperatures_is_theirs(theirs: Any, step: Step, case: str) -> None:
    theirs.check(case, loss=step.nkd(temperature=theirs.cases[case]["temperature"], gamma=theirs.cases[case]["gamma"]))


def quiet_logits(theirs: Any, eps: float) -> dict[str, Tensor]:
    """Logits for tokens with variances as small as the eps of the norms."""
    found = {}
    for name in ("student", "teacher"):
        model = classifier(theirs, name)
        quiet = [model.encoder.cls_token, model.encoder.pos_embed, model.encoder.patch_embed.proj.bias, model.dist_token]
        for parameter in quiet:
            if parameter is not None:
                parameter.data.mul_(theirs.cases["quiet"]["times"])
        for norm in (module for module in model.modules() if isinstance(module, torch.nn.LayerNorm)):
            assert norm.eps == 1e-6
            norm.eps = eps
        found[name] = model.forward_heads(theirs.images() * theirs.cases["quiet"]["times"])
    return {"cls_logits": found["student"][0], "dist_logits": found["student"][1], "teacher_logits": found["teacher"][0]}


def test_the_eps_of_every_norm_is_theirs(theirs: Any, disagreement: type[AssertionError]) -> None:
    theirs.check("quiet", **quiet_logits(theirs, 1e-6))
    for name, logits in quiet_logits(theirs, 1e-5).items():
        with pytest.raises(disagreement, match=name):
            theirs.check("quiet", **{name: logits})


BROKEN_HARD: dict[str, Callable[[Step], Tensor]] = {
    "heads swapped": lambda step: hard_distillation_loss(step.dist, step.cls, step.targets, step.teacher),
    "the label for the teacher's decision": lambda step: hard_distillation_loss(step.cls, step.dist, step.targets, step.targets),
    "the teacher's probabilities for its decision": lambda step: (
        (soft_cross_entropy(step.cls, step.targets) + soft_cross_entropy(step.dist, step.teacher.softmax(-1))) / 2
    ),
    "a sum for a mean": lambda step: 2 * step.hard(),
    "the label unmixed": lambda step: hard_distillation_loss(
        step.cls, step.dist, F.one_hot(step.targets.argmax(-1), 10).float(), step.teacher
    ),
}


@pytest.mark.parametrize("broken", BROKEN_HARD)
def test_a_broken_hard_distillation_is_noticed(theirs: Any, step: Step, disagreement: type[AssertionError], broken: str) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check("hard", loss=BROKEN_HARD[broken](step))


def with_token_read_at(step: Step, place: int) -> tuple[Tensor, Tensor]:
    """Both heads, with the distillation head on another token than the last."""
    student = step.student
    assert student.head_dist is not None
    tokens = student.encoder.norm(student.encoder(step.images, extra_token=student.dist_token))
    return student.head(tokens[:, 0]), student.head_dist(tokens[:, place])


@pytest.mark.parametrize("place", [0, 1, -2])
def test_a_distillation_token_read_at_the_wrong_place_is_noticed(
    theirs: Any, step: Step, disagreement: type[AssertionError], place: int
) -> None:
    theirs.check("hard", loss=hard_distillation_loss(*with_token_read_at(step, -1), step.targets, step.teacher))
    with pytest.raises(disagreement, match="loss"):
        theirs.check("hard", loss=hard_distillation_loss(*with_token_read_at(step, place), step.targets, step.teacher))


def test_a_distillation_token_with_a_position_is_noticed(theirs: Any, step: Step, disagreement: type[AssertionError]) -> None:
    positioned = Classifier(step.student.encoder.spec, 10, pooling="cls", token="deit")
    positioned.load_state_dict(step.student.state_dict(), strict=False)
    assert positioned.dist_pos is not None
    for position, wrong in ((torch.zeros(1, 1, 24), False), (step.student.encoder.pos_embed[:, 1:2], True)):
        positioned.dist_pos.data.copy_(position)
        cls, dist = positioned.forward_heads(step.images)
        assert dist is not None
        loss = hard_distillation_loss(cls, dist, step.targets, step.teacher)
        if not wrong:
            theirs.check("hard", loss=loss)
            continue
        with pytest.raises(disagreement, match="loss"):
            theirs.check("hard", loss=loss)


def test_inference_from_one_head_and_the_sum_of_both_are_noticed(theirs: Any, step: Step, disagreement: type[AssertionError]) -> None:
    for wrong in (step.cls, step.dist, step.cls + step.dist):
        with pytest.raises(disagreement, match="inference"):
            theirs.check("hard", inference=wrong)


BROKEN_NKD: dict[str, Callable[[Step, float, float], Tensor]] = {
    "no temperature": lambda step, t, g: step.nkd(temperature=1.0, gamma=g),
    "no gamma": lambda step, t, g: step.nkd(temperature=t, gamma=1.0),
    "no square of the temperature": lambda step, t, g: step.nkd(temperature=t, gamma=g / t**2),
    "another label": lambda step, t, g: nkd_loss(step.cls, step.targets.roll(1, -1), step.teacher, temperature=t, gamma=g),
    "the other head": lambda step, t, g: nkd_loss(step.dist, step.targets, step.teacher, temperature=t, gamma=g),
    "networks swapped": lambda step, t, g: nkd_loss(step.teacher, step.targets, step.cls, temperature=t, gamma=g),
}


@pytest.mark.parametrize("case", SOFTENED)
@pytest.mark.parametrize("broken", BROKEN_NKD)
def test_a_broken_nkd_is_noticed(theirs: Any, step: Step, disagreement: type[AssertionError], broken: str, case: str) -> None:
    with pytest.raises(disagreement, match="loss"):
        theirs.check(case, loss=BROKEN_NKD[broken](step, theirs.cases[case]["temperature"], theirs.cases[case]["gamma"]))
