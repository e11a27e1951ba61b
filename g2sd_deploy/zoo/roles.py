"""What a teacher may be wanted as, and why another one is refused."""

from typing import Literal

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.catalog import Content, Teacher, full_file_of

Role = Literal["masked", "encoder", "classifier"]

KINDS_FOR: dict[Role, tuple[Content, ...]] = {
    "masked": ("masked",),
    "encoder": ("encoder", "generic", "masked", "classifier"),
    "classifier": ("classifier",),
}
"""Kinds of model that can play a role, the fittest first."""

_HOLDS: dict[Content, str] = {
    "encoder": "an encoder without decoder",
    "classifier": "a classifier without decoder",
    "generic": "a student of G2SD, whose decoder predicts features and no pixels",
    "masked": "an encoder and its decoder",
}


def check_role(teacher: Teacher, role: Role) -> None:
    """Refuse an entry of the catalogue that cannot play a role, before anything is pulled.

    Raises:
        UserError: It cannot.
    """
    content = teacher.listed.content
    if content not in KINDS_FOR[role]:
        instead = teacher.listed.instead or full_file_of(teacher.network.width, teacher.network.depth)
        raise UserError(f"teacher.{role} is {teacher.name}: {cannot_play(content, role, instead)}")


def cannot_play(kind: Content, role: Role, instead: str | None) -> str:
    """Why a model of this kind is refused, and what to take instead.

    Args:
        kind: What it is.
        role: What it is wanted as; not one that it can play.
        instead: The catalogue's file of the same model with its decoder, where there is one.
    """
    if role == "classifier":
        return f"holds {_HOLDS[kind]} and no classifier's head; name a fine-tuned model, or make one with pretrain and finetune"
    better = f"pull {instead} and name it instead" if instead else "name the file of this model that has its decoder"
    return (
        f"holds {_HOLDS[kind]}, and G2SD's generic distillation learns from the hidden states of the teacher's decoder. "
        "With a random decoder it would run and teach nothing (the loss stays near 0.2), so it is refused: "
        f"{better}. Methods that need no decoder take it as teacher.encoder"
    )
