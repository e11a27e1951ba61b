"""Recipes that are based on another: what they inherit, where their mistakes are looked for, and how they travel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe import bundled_recipes, copy_recipe, find_recipe, load_recipe, resolved_text
from g2sd_deploy.recipe.written import Written, merged
from g2sd_deploy.settings import FinetuneOnlySettings, G2sdSettings, MaeSettings

Write = Callable[..., Path]
Refusal = Callable[..., str]
NO_BASE = "other.yaml:1: there is no base"
HEAD = "base: tiny\nname: other\ndescription: Another.\n"


@pytest.fixture
def derive(write: Write) -> Callable[..., Path]:
    """Write the small recipe and, beside it, one that is based on it."""

    def make(changes: str = "", head: str = HEAD) -> Path:
        write()
        return write(text=head + changes, name="other.yaml")

    return make


def test_a_recipe_takes_from_its_base_what_it_does_not_say(derive: Write, write: Write) -> None:
    recipe, base = load_recipe(derive("generic: {epochs: 2, augment: {flip: false}}\nstudent:\n  depth: 3\n")), load_recipe(write())
    assert (recipe.name, recipe.description) == ("other", "Another.")
    assert (recipe.data, recipe.teacher, recipe.specific) == (base.data, base.teacher, base.specific)
    assert isinstance(recipe.generic, G2sdSettings) and isinstance(base.generic, G2sdSettings)
    assert (recipe.generic.epochs, recipe.generic.augment.flip) == (2.0, False)
    assert recipe.generic.decoder == base.generic.decoder and recipe.generic.base_lr == base.generic.base_lr
    assert recipe.student is not None and (recipe.student.depth, recipe.student.width) == (3, 32)


def test_a_list_replaces_the_bases(derive: Write) -> None:
    assert load_recipe(derive("data: {num_channels: 3, mean: [0.1, 0.2, 0.3], std: [1, 1, 1]}\n")).data.mean == (0.1, 0.2, 0.3)


def test_null_takes_out_a_section_or_a_setting(derive: Write) -> None:
    recipe = load_recipe(derive("specific: null\nteacher: {classifier: null}\n"))
    assert recipe.specific is None
    assert recipe.teacher is not None and recipe.teacher.classifier is None and recipe.teacher.masked == "m.safetensors"


def test_a_method_is_changed_by_its_name_and_what_it_has_not(derive: Write) -> None:
    changes = "generic: {method: mae, teacher_decoder_block: null}\nspecific: {method: finetune}\n"
    recipe = load_recipe(derive(changes))
    assert isinstance(recipe.generic, MaeSettings) and isinstance(recipe.specific, FinetuneOnlySettings)
    assert recipe.generic.base_lr == 3e-4 and recipe.generic.decoder.width == 16


@pytest.mark.parametrize("name", ["tiny", "tiny.yaml", "./tiny.yaml", "../{folder}/tiny.yaml", "{path}"])
def test_a_base_is_a_file_beside_or_a_path(name: str, derive: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    name = name.format(folder=tmp_path.name, path=tmp_path / "tiny.yaml")
    assert load_recipe(derive(head=HEAD.replace("base: tiny", f"base: {name}"))).data.image_px == 28


def test_a_base_is_a_bundled_recipe_unless_a_file_of_that_name_lies_beside(write: Write, recipe_text: str) -> None:
    path = write(text=HEAD.replace("base: tiny", "base: quickstart"), name="other.yaml")
    assert load_recipe(path).baseline is not None
    write(text=recipe_text, name="quickstart.yaml")
    assert load_recipe(path).baseline is None


def test_overrides_come_last_and_may_take_out_what_the_base_says(derive: Write) -> None:
    recipe = load_recipe(derive("generic: {epochs: 2}\n"), ["generic.epochs=3", "specific=null", "teacher.classifier=null", "seed=4"])
    assert recipe.generic is not None and recipe.generic.epochs == 3.0
    assert recipe.specific is None and recipe.seed == 4
    assert recipe.teacher is not None and recipe.teacher.classifier is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ("generic: {epoch: 2}\n", "other.yaml:4: unknown key generic.epoch; did you mean generic.epochs?"),
        ("generic:\n  epochs: no\n", "other.yaml:5: generic.epochs is 'no'; input should be a valid number"),
        ("generic: {warmup_epochs: 2}\n", "other.yaml:4: generic: warmup_epochs is 2.0, more than epochs 1.0"),
        ("data: {image_px: 27}\n", "other.yaml: student.patch_px is 7, which does not divide data.image_px 27"),
        ("data: {mean: [a]}\n", "other.yaml:4: data.mean.0 is 'a'; input should be a valid number"),
        ("student:\n  heads: 3\n", "other.yaml:4: student: heads is 3, which does not divide width 32"),
        ("student: null\n", "other.yaml: generic and baseline need student (the encoder's shape)"),
        ("genric: null\n", "other.yaml:4: unknown key genric; did you mean generic?"),
        ("specific: {token: null, toke: null}\n", "other.yaml:4: unknown key specific.toke; did you mean specific.token?"),
        ("specific: {epochs: null}\n", "other.yaml:4: the key specific.epochs is missing"),
        ("generic: {betas: [0.9]}\n", "other.yaml:4: the key generic.betas.1 is missing"),
        ("generic: {method: mae}\n", "other.yaml: unknown key generic.teacher_decoder_block; "),
        ("generic: 3\n", "other.yaml:4: generic is 3; wanted a group of settings (key: value)"),
    ],
)
def test_a_mistake_in_a_recipe_with_a_base_is_found_there(changes: str, message: str, derive: Write, refusal: Refusal) -> None:
    found = refusal(derive(changes))
    if message.startswith("other.yaml: unknown key generic.teacher"):  # the base's key, which the recipe's method has not
        message = message.replace("other.yaml:", "tiny.yaml:19:")
    assert found.startswith(message)


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("  width: 32", "  wdith: 32"), "tiny.yaml:13: unknown key student.wdith; did you mean student.width?"),
        (("  width: 32", "  width: 30"), "tiny.yaml:13: student.width is 30; input should be a multiple of 4"),
        (("  width: 32", "  width: 32\n  width: 33"), "tiny.yaml:14: the key width is given twice; keep one of them"),
        (("name: tiny", "name: [tiny"), "not valid YAML"),
    ],
)
def test_a_mistake_in_the_base_is_found_in_the_base(
    replacement: tuple[str, str], message: str, derive: Write, write: Write, refusal: Refusal
) -> None:
    path = derive("generic: {epochs: 2}\n")
    write(replacement)
    found = refusal(path)
    assert found.startswith("tiny.yaml:") and message in found


def test_a_list_that_replaces_a_longer_one_leaves_no_place_behind(derive: Write, write: Write, refusal: Refusal) -> None:
    path = derive("generic:\n  betas: [0.9]\n")
    write(("  epochs: 1\n", "  epochs: 1\n  betas:\n  - 0.9\n  - 0.95\n"))
    assert refusal(path) == "other.yaml:5: the key generic.betas.1 is missing"


@pytest.mark.parametrize(
    ("head", "message"),
    [
        (HEAD.replace("tiny", "tinny"), f"{NO_BASE} tinny, neither beside this file nor among the bundled recipes; did you mean tiny?"),
        (HEAD.replace("tiny", "quickstrat"), f"{NO_BASE} quickstrat, neither beside this file nor among the bundled recipes; did you "),
        (HEAD.replace("tiny", "/"), f"{NO_BASE} /, neither beside this file nor among the bundled recipes"),
        (HEAD.replace("tiny", r'"\0"'), NO_BASE),
        (HEAD.replace("tiny", "other"), "other.yaml:1: the base other is this recipe itself; name another one"),
        (HEAD.replace("tiny", "./other.yaml"), "other.yaml:1: the base ./other.yaml is this recipe itself; name another one"),
        (HEAD.replace("tiny", "[tiny]"), "other.yaml:1: base is ['tiny']; wanted the name or the path of a recipe, or no base"),
        (HEAD.replace("tiny", ""), "other.yaml:1: base is None; wanted the name or the path of a recipe, or no base"),
        (HEAD.replace("tiny", "3"), "other.yaml:1: base is 3; wanted the name or the path of a recipe, or no base"),
        (HEAD.replace("base:", "bsae:"), "other.yaml:1: unknown key bsae; did you mean base?"),
        (HEAD + "base: tiny\n", "other.yaml:4: the key base is given twice; keep one of them"),
        (HEAD.replace("name: other\n", ""), "other.yaml: the key name is missing; a recipe does not take it from its base tiny.yaml"),
        (HEAD.replace("Another.", ""), "other.yaml: the key description is missing; a recipe does not take it from its base tiny.yaml"),
    ],
)  # fmt: skip
def test_a_base_that_is_none_is_refused(head: str, message: str, derive: Write, refusal: Refusal) -> None:
    assert refusal(derive(head=head)).startswith(message)


def test_one_level_is_read(derive: Write, write: Write, refusal: Refusal) -> None:
    path = derive()
    write(text="name: x\nbase: quickstart\n")
    assert refusal(path) == (
        "other.yaml:1: the base tiny.yaml has a base itself (tiny.yaml:2), and only one level is read; name that one here, or merge the two"
    )
    write(text=HEAD.replace("tiny", "other"))  # a circle
    assert refusal(path).startswith("other.yaml:1: the base tiny.yaml has a base itself (tiny.yaml:1), and only one level is read; ")


@pytest.mark.parametrize(("text", "kind"), [("- a\n", "a list"), ("", "an empty file"), ("words\n", "'words'")])
def test_a_base_that_is_no_mapping_is_refused(text: str, kind: str, derive: Write, write: Write, refusal: Refusal) -> None:
    path = derive()
    write(text=text)
    assert refusal(path) == f"tiny.yaml: a recipe is a mapping of settings (`name: ...`), not {kind}"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab", max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
    max_leaves=8,
)


def rfc7396(target: Any, patch: Any) -> Any:
    """The pseudo code of RFC 7396, section 2."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = rfc7396(result.get(name), value)
    return result


def without_nulls(values: Any) -> Any:
    return {k: without_nulls(v) for k, v in values.items() if v is not None} if isinstance(values, dict) else values


@given(st.dictionaries(st.sampled_from("abc"), JSON, max_size=3), st.dictionaries(st.sampled_from("abc"), JSON, max_size=3))
def test_the_merge_is_a_json_merge_patch(base: dict[str, Any], patch: dict[str, Any]) -> None:
    """But for nulls that take out nothing: they stay, so that they are checked as keys."""
    before = json.dumps([base, patch])
    found = merged(Written(base, {}), Written(patch, {})).values
    assert without_nulls(found) == without_nulls(rfc7396(base, patch))
    assert json.dumps([base, patch]) == before


@pytest.mark.parametrize("path", bundled_recipes(), ids=lambda path: path.stem)
def test_a_resolved_recipe_is_the_same_recipe_in_one_file(path: Path, tmp_path: Path) -> None:
    text = resolved_text(path)
    alone = tmp_path / "alone.yaml"
    alone.write_text(text, encoding="utf-8")
    assert load_recipe(alone) == load_recipe(path)
    assert "base" not in YAML(typ="safe", pure=True).load(text)
    opening = path.read_text(encoding="utf-8").partition("\n")[0]
    assert opening.startswith("# ") and text.startswith(opening)


@pytest.mark.parametrize(
    "value", ["no", "1e3", "0x1F", "3", "2026-01-01", "~", "null", "a: b", "two\nlines", "# x", "ünïcode", "{", "- a", " a"]
)
def test_a_resolved_recipe_keeps_every_text_a_text(value: str, write: Write, tmp_path: Path) -> None:
    recipe = load_recipe(write(("name: tiny", f"name: tiny\ndescription: {json.dumps(value)}")))
    alone = tmp_path / "alone.yaml"
    alone.write_text(resolved_text(tmp_path / "tiny.yaml"), encoding="utf-8")
    assert load_recipe(alone) == recipe


def test_a_copy_of_a_recipe_with_a_bundled_base_still_has_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = find_recipe("mae_vit_small")
    copied = copy_recipe("mae_vit_small", tmp_path / "mine.yaml")
    assert copied.read_bytes() == source.read_bytes()
    assert load_recipe(copied) == load_recipe(source)
    taken = copy_recipe("mae_vit_small", tmp_path / "g2sd_vit_small.yaml")  # the name of its own base
    assert load_recipe(taken) == load_recipe(source)


def test_a_copy_of_a_recipe_with_a_base_of_ones_own_needs_it_no_more(derive: Write, tmp_path: Path) -> None:
    source = derive("generic: {epochs: 2}\n", head="# Mine.\n" + HEAD)
    (tmp_path / "elsewhere").mkdir()
    copied = copy_recipe(str(source), tmp_path / "elsewhere")
    assert copied.read_text().startswith("# Mine.\n") and "base:" not in copied.read_text()
    assert load_recipe(copied) == load_recipe(source)


def test_a_recipe_whose_base_is_gone_is_not_copied(derive: Write, tmp_path: Path) -> None:
    source = derive()
    (tmp_path / "tiny.yaml").unlink()
    with pytest.raises(UserError, match=r"other\.yaml:1: there is no base tiny, "):
        copy_recipe(str(source), tmp_path / "copy.yaml")
    assert not (tmp_path / "copy.yaml").exists()
