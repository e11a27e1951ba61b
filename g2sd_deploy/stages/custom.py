"""Methods of a user's own, named by import path."""

import inspect
import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.errors import UserError


def load_named(name: str, setting: str) -> Callable[..., Any]:
    """The callable at `package.module:function`; modules of the current folder are found too.

    Args:
        name: Import path.
        setting: Where the name stands in the recipe.

    Raises:
        UserError: There is no such module, it cannot be imported, or it has no such callable.
    """
    module_name, _, attribute = name.partition(":")
    _find_current_folder()
    try:
        module = import_module(module_name)
    except (ImportError, SyntaxError) as error:
        raise _not_importable(name, setting, str(error)) from None
    found: Callable[..., Any] | None = getattr(module, attribute, None)
    if found is None or not callable(found):
        what = "is nothing that can be called" if hasattr(module, attribute) else "is not in that module"
        raise UserError(f"{setting} is {name}: {attribute} {what}; name a function")
    return found


def check_call(function: Callable[..., Any], num_arguments: int, options: dict[str, Any], name: str, setting: str) -> None:
    """Refuse options that a named function does not take, before it is called.

    Raises:
        UserError: It takes another number of arguments, or other options.
    """
    try:
        inspect.signature(function).bind(*[None] * num_arguments, **options)
    except TypeError as error:
        given = ", ".join(options) or "none"
        raise UserError(
            f"{setting} is {name}: it cannot be called with {num_arguments} arguments and the options {given} ({error})"
        ) from None


def source_digest(name: str, setting: str) -> str:
    """SHA-256 of the file that `load_named` would import, which is not done; other files that it imports do not count.

    Raises:
        UserError: There is no such file.
    """
    module_name = name.partition(":")[0]
    _find_current_folder()
    try:
        found = find_spec(module_name)
    except (ImportError, ValueError) as error:
        raise _not_importable(name, setting, str(error)) from None
    if found is None or found.origin is None or not Path(found.origin).is_file():
        raise _not_importable(name, setting, "there is no file of that name")
    return sha256_of(Path(found.origin))


def _find_current_folder() -> None:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def _not_importable(name: str, setting: str, reason: str) -> UserError:
    module_name = name.partition(":")[0]
    return UserError(f"{setting} is {name}: cannot import {module_name} ({reason}); install it, or run in the folder it lies in")
