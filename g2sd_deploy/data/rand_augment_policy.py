"""What a RandAugment policy may say. Standard library only, so that settings are checked without loading torch or timm."""

import re

from g2sd_deploy.errors import UserError

SECTIONS = {
    "m": r"\d+",
    "n": r"[1-9]|1[0-4]",
    "p": r"0(\.\d+)?|1(\.0+)?",
    "mstd": r"\d+(\.\d+)?",
    "mmax": r"[1-9]\d*",
    "inc": "1",
    "t": "weights|3a|3aw",
}
WANTED = (
    "rand, then any of m9 (magnitude), mstd0.5 (its spread), mmax10 (its bound), inc1 (magnitude means strength), n2 (1 to 14 operations), "
    "p0.5 (probability of each) and tweights, t3a or t3aw (set of operations), joined by dashes, as in rand-m9-mstd0.5-inc1"
)


def policy_problem(policy: str) -> str | None:
    """What is wrong with a policy and what is wanted, in one line; None where nothing is.

    Stricter than timm, which skips a section without a number, takes any unknown set of operations for the default and fails on an
    assertion otherwise; inc0 is refused because timm up to 1.0.20 reads it as inc1.
    """
    head, *sections = policy.split("-")
    if head != "rand":
        return f"rand_augment is {policy!r}; wanted {WANTED}"
    keys = []
    for section in sections:
        key = next((name for name, value in SECTIONS.items() if re.fullmatch(f"{name}({value})", section)), None)
        if key is None:
            return f"rand_augment is {policy!r}, of which {section!r} is not understood; wanted {WANTED}"
        keys.append(key)
    twice = [key for key in keys if keys.count(key) > 1]
    return f"rand_augment is {policy!r}, which gives {twice[0]} twice; keep one of them" if twice else None


def check_policy(policy: str) -> None:
    """Refuse a policy that RandAugment would not follow to the letter.

    Raises:
        UserError: A section is unknown, out of range or given twice.
    """
    if problem := policy_problem(policy):
        raise UserError(f"augment.{problem}")
