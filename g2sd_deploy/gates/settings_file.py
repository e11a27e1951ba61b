"""The reader of files of gates."""

from pathlib import Path

from pydantic import ValidationError

from g2sd_deploy.errors import UserError
from g2sd_deploy.gates.settings import GateSettings
from g2sd_deploy.recipe.problems import explain
from g2sd_deploy.recipe.written import read_written


def read_gates(path: Path) -> GateSettings:
    """Read a YAML file of gates.

    Raises:
        UserError: Unreadable file, invalid YAML, duplicate or unknown key, or a value of the wrong type or range; says where it stands.
    """
    written = read_written(path, "a file of gates")
    try:
        return GateSettings.model_validate(written.values)
    except ValidationError as error:
        raise UserError(explain(error, path, written.places, {}, root=GateSettings)) from None
