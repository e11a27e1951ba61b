"""Reading recipes: what is accepted, and the one line that each mistake gets."""

from collections.abc import Callable
from pathlib import Path

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.recipe import copy_recipe, find_recipe, load_recipe

Write = Callable[..., Path]
Refusal = Callable[..., str]


def test_a_good_recipe_is_read(write: Write) -> None:
    recipe = load_recipe(write())
    assert recipe.name == "tiny" and recipe.seed == 0
    assert recipe.generic is not None and recipe.generic.betas == (0.9, 0.95) and recipe.generic.base_lr == 3e-4
    assert recipe.baseline is None and recipe.report.title is None


@pytest.mark.parametrize(
    ("replacement", "message"),
    [
        (("epochs: 0.5", "epoch: 0.5"), "tiny.yaml:25: unknown key specific.epoch; did you mean specific.epochs? (and 1 more problem)"),
        (("student:", "studnet:"), "tiny.yaml:11: unknown key studnet; did you mean student?"),
        (
            ("image_px: 28", "image_px: 28\n  zzz: 1"),
            "tiny.yaml:7: unknown key data.zzz; valid keys here: cache_gib, classes, ignore_zero, image_px, ",
        ),
        (("  depth: 2", "  depth: 2\n  width: 64"), "tiny.yaml:15: the key width is given twice; keep one of them"),
        (("name: tiny", "name: tiny\nname: other"), "tiny.yaml:3: the key name is given twice; keep one of them"),
        (("image_px: 28", "image_px: '28'"), "tiny.yaml:6: data.image_px is '28'; input should be a valid integer"),
        (("image_px: 28", "image_px: 28.0"), "tiny.yaml:6: data.image_px is 28.0; input should be a valid integer"),
        (("image_px: 28", "image_px: yes"), "tiny.yaml:6: data.image_px is 'yes'; input should be a valid integer"),
        (("image_px: 28", "image_px: true"), "tiny.yaml:6: data.image_px is True; input should be a valid integer"),
        (("name: tiny", "name: 3"), "tiny.yaml:2: name is 3; input should be a valid string"),
        (("name: tiny", "name: ../up"), "tiny.yaml:2: name is '../up'; string should match pattern"),
        (
            ("source: idx", "source: tfds"),
            "tiny.yaml:4: data.source is 'tfds'; input should be 'idx', 'folder', 'shards', 'huggingface', 'numpy', 'scenes', 'masks' "
            "or 'coco'",
        ),
        (("mean: [0.286]", "mean: [grey]"), "tiny.yaml:8: data.mean.0 is 'grey'; input should be a valid number"),
        (("mean: [0.286]", "mean: [0.2, 0.3]"), "tiny.yaml:3: data: mean and std need 1 numbers each, one per channel; got 2 and 1"),
        (("  width: 32", "  width: 30"), "tiny.yaml:13: student.width is 30; input should be a multiple of 4"),
        (("heads: 2\ngeneric", "heads: 3\ngeneric"), "tiny.yaml:11: student: heads is 3, which does not divide width 32"),
        (("epochs: 0.5", "epochs: 0"), "tiny.yaml:25: specific.epochs is 0; input should be greater than 0"),
        (("epochs: 0.5", "epochs: .inf"), "tiny.yaml:25: specific.epochs is inf; input should be a finite number"),
        (("epochs: 0.5", "epochs: .nan"), "tiny.yaml:25: specific.epochs is nan; input should be a finite number"),
        (("epochs: 0.5", "epochs: 0.5\n  warmup_epochs: 2"), "tiny.yaml:23: specific: warmup_epochs is 2.0, more than epochs 0.5"),
        (("epochs: 0.5", "epochs: 0.5\n  betas: [0.9, 1.0]"), "tiny.yaml:26: specific.betas.1 is 1.0; input should be less than 1"),
        (("epochs: 0.5", "epochs: 0.5\n  betas: [0.9]"), "tiny.yaml:26: the key specific.betas.1 is missing"),
        (("  image_px: 28\n", ""), "tiny.yaml:3: the key data.image_px is missing"),
        (("name: tiny\n", ""), "tiny.yaml: the key name is missing"),
        (
            ("student:\n  patch_px: 7\n", "student:\n  patch_px: 8\n"),
            "tiny.yaml: student.patch_px is 8, which does not divide data.image_px 28",
        ),
        (
            ("  patch_px: 7\n  width: 32\n  depth: 2\n  heads: 2\n", "  7\n"),
            "tiny.yaml:11: student is 7; wanted a group of settings (key: value)",
        ),
        (
            ("method: g2sd", "method: g2ds"),
            "tiny.yaml:17: generic.method is 'g2ds'; did you mean g2sd? The methods are g2sd, dmae, tinymim, mae, ",
        ),
        (("method: g2sd", "method: 3"), "tiny.yaml:17: generic.method is 3; wanted one of g2sd, dmae, tinymim, mae, custom"),
        (("method: g2sd", "method:"), "tiny.yaml:17: generic.method is None; wanted one of g2sd, dmae, tinymim, mae, custom"),
        (("  method: g2sd\n", ""), "tiny.yaml:16: the key generic.method is missing; wanted one of g2sd, dmae, tinymim, mae, custom"),
        (
            ("method: g2sd", "metod: g2sd"),
            "tiny.yaml:16: the key generic.method is missing (is generic.metod meant for it?); wanted one of ",
        ),
        (("  method: hard\n", ""), "tiny.yaml:23: the key specific.method is missing; wanted one of hard, soft, nkd, finetune, custom"),
        (
            ("decoder: {width: 16", "decoder: {widht: 16"),
            "tiny.yaml:18: unknown key generic.decoder.widht; did you mean generic.decoder.width?",
        ),
        (("decoder: {width: 16", "decoder: {width: 18"), "tiny.yaml:18: generic.decoder.width is 18; input should be a multiple of 4"),
        (("decoder: {width: 16, depth: 1, heads: 2}", "decoder: 7"), "tiny.yaml:18: generic.decoder is 7; wanted a group of settings"),
        (("heads: 2}\n", "heads: 3}\n"), "tiny.yaml:18: generic.decoder: heads is 3, which does not divide width 16"),
        (("  teacher_decoder_block: 1\n", ""), "tiny.yaml:16: generic: give one of teacher_decoder_block (G2SD's target) and "),
        (
            ("epochs: 1\n", "epochs: 1\n  augment: {flop: true}\n"),
            "tiny.yaml:21: unknown key generic.augment.flop; did you mean generic.augment.flip?",
        ),
        (("epochs: 1\n", "epochs: 1\n  align_weight: 1\n"), "tiny.yaml:21: unknown key generic.align_weight; valid keys here: augment, "),
        (("method: hard", "method: nkd\n  alpha: 0.5"), "tiny.yaml:25: unknown key specific.alpha; valid keys here: augment, "),
        (("name: tiny", "name: tiny\n1: 2"), "tiny.yaml:3: unknown key 1; valid keys here: "),
        (("name: tiny", "name: [tiny"), "not valid YAML"),
        (("name: tiny", "name: 'tiny"), "not valid YAML"),
        (("name: tiny", "name:\ttiny: x"), "tiny.yaml:2: not valid YAML: "),
        (("name: tiny", "name: tiny\x07"), "not valid YAML"),
        (("name: tiny", "name: *nowhere"), "tiny.yaml:2: not valid YAML: found undefined alias 'nowhere'"),
        (("name: tiny", "--- \nname: tiny\n---\nname: two"), "not valid YAML"),
        (("name: tiny", "name: 2026-01-01"), "tiny.yaml:2: name is "),
        (("name: tiny", "name: !!python/object:os.system tiny"), "tiny.yaml:2: name is "),
    ],
)
def test_a_mistake_gets_one_line_that_names_key_and_line(
    replacement: tuple[str, str], message: str, write: Write, refusal: Refusal
) -> None:
    found = refusal(write(replacement))
    assert message in found
    assert found.startswith("tiny.yaml:")


@pytest.mark.parametrize(
    ("text", "kind"), [("- a\n- b\n", "a list"), ("just words\n", "'just words'"), ("", "an empty file"), ("3\n", "3")]
)
def test_a_file_that_is_no_mapping_is_refused(text: str, kind: str, write: Write, refusal: Refusal) -> None:
    assert refusal(write(text=text)) == f"tiny.yaml: a recipe is a mapping of settings (`name: ...`), not {kind}"


def test_a_file_that_is_no_text_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_bytes(b"name: \xff\xfe\n")
    assert refusal(path) == "tiny.yaml: not a UTF-8 text file; a recipe is a YAML file"


def test_a_recipe_that_refers_to_itself_is_refused(write: Write, refusal: Refusal) -> None:
    assert refusal(write(("teacher: {masked:", "teacher: &loop {baseline: *loop, masked:"))).startswith("tiny.yaml:10: ")


def test_a_file_that_is_gone_is_refused(tmp_path: Path, refusal: Refusal) -> None:
    assert refusal(tmp_path / "gone.yaml") == "gone.yaml: cannot be read (No such file or directory)"
    assert refusal(tmp_path) == f"{tmp_path.name}: cannot be read (Is a directory)"


def test_yaml_is_version_1_2(write: Write) -> None:
    recipe = load_recipe(write(("name: tiny", "name: no"), ("base_lr: 1e-3", "base_lr: 3e-4"), ("epochs: 0.5", "epochs: 1")))
    assert recipe.name == "no"
    assert recipe.specific is not None and recipe.specific.base_lr == 0.0003 and recipe.specific.epochs == 1.0


def test_overrides_are_typed_as_the_file_is(write: Write) -> None:
    overrides = [
        "generic.epochs=2",
        "data.mean=[0.3]",
        "report.title=no",
        "baseline={epochs: 1, batch_size: 8, base_lr: 1e-3}",
        "specific=null",
    ]
    recipe = load_recipe(write(), overrides)
    assert recipe.generic is not None and recipe.generic.epochs == 2.0
    assert recipe.data.mean == (0.3,)
    assert recipe.report.title == "no"
    assert recipe.baseline is not None and recipe.baseline.base_lr == 1e-3
    assert recipe.specific is None


def test_the_later_override_wins(write: Write) -> None:
    assert load_recipe(write(), ["seed=1", "seed=2"]).seed == 2


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("generic.epochs", "--set generic.epochs: wanted key.path=value, for example --set generic.epochs=2"),
        ("=3", "--set =3: wanted key.path=value, for example --set generic.epochs=2"),
        ("generic.epochs=[1", "--set generic.epochs=[1: the value is not valid YAML: "),
        ("generic={a: 1, a: 2}", "--set generic={a: 1, a: 2}: the value is not valid YAML: found duplicate key"),
        ("seed=\x07", "the value is not valid YAML: "),
        ("generic.epoch=2", "--set generic.epoch=2: unknown key generic.epoch; did you mean generic.epochs?"),
        ("genric.epochs=2", "--set genric.epochs=2: unknown key genric; did you mean generic?"),
        ("generic.epochs=two", "--set generic.epochs=two: generic.epochs is 'two'; input should be a valid number"),
        ("generic.epochs=", "--set generic.epochs=: the key generic.epochs is missing"),
        ("genric=null", "--set genric=null: unknown key genric; did you mean generic?"),
        ("base=quickstart", "--set base=quickstart: unknown key base; a base is named in the recipe's file"),
        ("generic.method=g2ds", "--set generic.method=g2ds: generic.method is 'g2ds'; did you mean g2sd? The methods are g2sd, dmae, "),
        (
            "generic.decoder.wdith=8",
            "--set generic.decoder.wdith=8: unknown key generic.decoder.wdith; did you mean generic.decoder.width?",
        ),
        ("specific.temperature=2", "--set specific.temperature=2: unknown key specific.temperature; valid keys here: augment, base_lr, "),
        ("name.first=x", "--set name.first=x: name is a value, not a group of settings"),
        ("data.mean.0=1", "--set data.mean.0=1: data.mean is a value, not a group of settings"),
        ("student.heads=3", "--set student.heads=3: student: heads is 3, which does not divide width 32"),
        ("generic=7", "--set generic=7: generic is 7; wanted a group of settings (key: value)"),
        ("seed=-1", "--set seed=-1: seed is -1; input should be greater than or equal to 0"),
    ],
)
def test_a_mistaken_override_gets_one_line_that_quotes_it(override: str, message: str, write: Write, refusal: Refusal) -> None:
    assert refusal(write(), override).startswith(message) or message in refusal(write(), override)


SHORT = "{epochs: 1, batch_size: 8, base_lr: 1e-3}"
TINY = "{patch_px: 7, width: 8, depth: 1, heads: 1}"
PRETRAIN = f"{{encoder: {TINY}, decoder: {{width: 8, depth: 1, heads: 1}}, {SHORT[1:]}"
NO_TEACHER = ["teacher=null", "specific=null"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([f"pretrain={PRETRAIN}"], "give either teacher (a finished one) or pretrain and finetune (to make one), not both"),
        ([*NO_TEACHER, "generic=null", f"finetune={SHORT}"], "finetune needs pretrain before it"),
        (NO_TEACHER, "generic needs a teacher with a decoder: add teacher.masked or pretrain"),
        (["teacher=null", "generic=null"], "specific needs a fine-tuned teacher: add teacher.classifier, or pretrain and finetune; "),
        (
            ["teacher.classifier=null"],
            "specific needs a fine-tuned teacher: add teacher.classifier, or pretrain and finetune; or use method ",
        ),
        (["teacher={classifier: c}"], "generic needs a teacher with a decoder: add teacher.masked or pretrain"),
        (
            ["teacher={classifier: c}", "generic.decoder=null", "generic.teacher_decoder_block=null", "generic.teacher_encoder_block=1"],
            "generic needs a teacher: add teacher.encoder, teacher.masked or pretrain",
        ),
        (["generic=null"], "specific needs generic before it"),
        (["student=null"], "generic and baseline need student (the encoder's shape)"),
        (["specific=null", "export={}"], "export needs specific: there is no student to export"),
        (["profile={}"], "profile needs export: there is no file to time"),
        (
            [*NO_TEACHER, "generic=null", "evaluate={}"],
            "evaluate needs a model of the task: add finetune, teacher.classifier, specific or baseline",
        ),
        (["data.image_px=27"], "student.patch_px is 7, which does not divide data.image_px 27"),
    ],
)
def test_sections_that_miss_another_section_are_refused(overrides: list[str], message: str, write: Write, refusal: Refusal) -> None:
    assert message in refusal(write(), *overrides)


def test_a_recipe_is_found_by_path_or_by_the_name_of_one_that_ships(
    recipe_text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find_recipe("quickstart")
    assert find_recipe("quickstart.yaml") == find_recipe("recipes/quickstart.yaml") == shipped
    own = tmp_path / "quickstart.yaml"
    own.write_text(recipe_text)
    assert find_recipe(str(own)).read_text() == find_recipe("quickstart.yaml").read_text() == recipe_text
    with pytest.raises(UserError, match=r"^there is no recipe quickstrat; did you mean quickstart\?$"):
        find_recipe("quickstrat")
    with pytest.raises(UserError, match=r"^there is no recipe zzz; bundled recipes: .*quickstart"):
        find_recipe("zzz")
    with pytest.raises(UserError, match=r"there is no recipe elsewhere/quickstart\.yaml"):
        find_recipe("elsewhere/quickstart.yaml")


def test_a_copy_never_overwrites(tmp_path: Path) -> None:
    copied = copy_recipe("quickstart", tmp_path)
    assert copied == tmp_path / "quickstart.yaml"
    assert copied.read_bytes() == find_recipe("quickstart").read_bytes()
    with pytest.raises(UserError, match=r"quickstart\.yaml: exists; give another file name"):
        copy_recipe("quickstart", tmp_path)
    with pytest.raises(UserError, match="cannot be written"):
        copy_recipe("quickstart", copied / "below" / "a_file.yaml")
