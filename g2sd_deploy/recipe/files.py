"""Recipe files: where they are, what they are based on, and how one becomes a `Recipe`."""

import difflib
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from ruamel.yaml import YAML

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe.problems import explain
from g2sd_deploy.recipe.written import Written, merged, override, read_written
from g2sd_deploy.settings import Recipe

BASE = "base"
OWN_KEYS = ("name", "description")  # a recipe that differs from its base is called otherwise


def recipe_folder() -> Path:
    """Folder of the recipes that ship with the package: inside the wheel, or beside the package in a source tree."""
    package = Path(__file__).parent.parent
    return package / "recipes" if (package / "recipes").is_dir() else package.parent / "recipes"


def bundled_recipes() -> list[Path]:
    """Recipe files that ship with the package, sorted by name."""
    return sorted(recipe_folder().glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """A recipe file by path, or a bundled one by name (`quickstart`, `quickstart.yaml`, `recipes/quickstart.yaml`).

    Raises:
        UserError: Neither exists; the message names the nearest bundled recipe.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return path
    bundled = _bundled(path)
    if bundled is not None:
        return bundled
    names = [p.stem for p in bundled_recipes()]
    near = difflib.get_close_matches(path.name.removesuffix(".yaml"), names, 1)
    hint = f"; did you mean {near[0]}?" if near else f"; bundled recipes: {', '.join(names)}"
    raise UserError(f"there is no recipe {name}{hint}")


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a recipe to a new file; returns it.

    The copy of a recipe that is based on a bundled one is based on it too; any other base is merged into the copy, which may end up
    anywhere.

    Raises:
        UserError: There is no such recipe, the file exists, or it cannot be written.
    """
    source = find_recipe(name)
    target = to / source.name if to.is_dir() else to
    base = _base_of(source, read_written(source))
    stays = base is None or base.resolve().parent == recipe_folder().resolve()
    text = source.read_text(encoding="utf-8") if stays else resolved_text(source)
    try:
        with target.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UserError(f"{target}: exists; give another file name") from None
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror})") from None
    return target


def load_recipe(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe file and its base, and apply `key.path=value` overrides, typed as the YAML would be.

    Raises:
        UserError: Unreadable file, invalid YAML, a base that is none, duplicate, unknown or missing key, or a value of the wrong type or
            range.
    """
    written = _with_base(path)
    values, given = override(written.values, overrides)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(explain(error, path, written.places, given)) from None


def resolved_text(path: Path) -> str:
    """A recipe with its base merged into it, as YAML; it opens with the recipe's own comment.

    Raises:
        UserError: As `load_recipe`, for what is wrong without regard to types and ranges.
    """
    values = _with_base(path).values
    order = list(Recipe.model_fields)
    known = {key: values[key] for key in sorted(values, key=lambda key: order.index(key) if key in order else len(order))}
    yaml = YAML(typ="rt")
    yaml.default_flow_style = None
    yaml.width = 140
    text = io.StringIO()
    yaml.dump(known, text)
    return _opening_comment(path) + text.getvalue()


def _opening_comment(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    end = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "".join(lines[:end])


def _bundled(path: Path) -> Path | None:
    """The bundled recipe that is called so."""
    found = recipe_folder() / f"{path.name.removesuffix('.yaml')}.yaml"
    return found if path.parent in (Path(), Path("recipes")) and found in bundled_recipes() else None


def _with_base(path: Path) -> Written:
    """What a recipe says together with its base."""
    written = read_written(path)
    base = _base_of(path, written)
    if base is None:
        return written
    below = read_written(base)
    if BASE in below.values:
        raise UserError(
            f"{written.places[(BASE,)]}: the base {base} has a base itself ({below.places[(BASE,)]}), and only one level is read; "
            "name that one here, or merge the two"
        )
    for key in OWN_KEYS:
        if not written.values.get(key):
            raise UserError(f"{path}: the key {key} is missing; a recipe does not take it from its base {base}")
    own = {key: value for key, value in written.values.items() if key != BASE}
    return merged(below, Written(own, {keys: place for keys, place in written.places.items() if keys != (BASE,)}))


def _base_of(path: Path, written: Written) -> Path | None:
    """The file that a recipe is based on: beside it, at a path, or bundled.

    Raises:
        UserError: There is none, or it is the recipe itself.
    """
    if BASE not in written.values:
        return None
    name: Any = written.values[BASE]
    place = written.places[(BASE,)]
    if not isinstance(name, str) or not name.strip():
        raise UserError(f"{place}: base is {name!r}; wanted the name or the path of a recipe, or no base")
    beside = path.parent / Path(name).expanduser()
    candidates = [beside, Path(f"{beside}.yaml"), _bundled(Path(name))]
    files = [file for file in candidates if file is not None and file.is_file()]
    others = [file for file in files if file.resolve() != path.resolve()]
    if others:
        return others[0]
    if files:
        raise UserError(f"{place}: the base {name} is this recipe itself; name another one")
    names = sorted({file.stem for file in (*bundled_recipes(), *path.parent.glob("*.yaml"))} - {path.stem})
    near = difflib.get_close_matches(Path(name).name.removesuffix(".yaml"), names, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UserError(f"{place}: there is no base {name}, neither beside this file nor among the bundled recipes{hint}")
