"""Which stages run, which are skipped and why, and what is left when one does not succeed."""

import errno
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from g2sd_deploy import planning
from g2sd_deploy.artifact import Made, read_artifact
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.planning import STAGES, Step, plan, stages_of
from g2sd_deploy.recipe import find_recipe, load_recipe
from g2sd_deploy.settings import Recipe

RunRecipe = Callable[..., list[Step]]
ALL = ["data", "teacher", "generic", "specific", "baseline", "evaluate", "export", "profile", "report"]
TEACHER_MADE = ["teacher=null", "pretrain={encoder: {patch_px: 7, width: 8, depth: 1, heads: 1}, decoder: {width: 8, depth: 1, heads: 1}, "
                "epochs: 1, batch_size: 8, base_lr: 1e-3}", "finetune={epochs: 1, batch_size: 8, base_lr: 1e-3}"]  # fmt: skip


def quickstart(*overrides: str) -> Recipe:
    return load_recipe(find_recipe("quickstart"), overrides)


def names(steps: list[Step]) -> list[str]:
    return [step.stage.name for step in steps if step.runs]


def test_the_stages_of_a_recipe_are_its_sections_in_order() -> None:
    assert [stage.name for stage in stages_of(quickstart())] == ALL
    assert [stage.name for stage in stages_of(quickstart("baseline=null", "profile=null"))] == [
        s for s in ALL if s not in ("baseline", "profile")
    ]
    made = [stage.name for stage in stages_of(quickstart(*TEACHER_MADE))]
    assert made == [name for name in STAGES if name not in ("teacher", "quantise")]


def test_a_teacher_made_in_the_run_plays_the_roles_of_a_finished_one() -> None:
    parents = {stage.name: stage.parents for stage in stages_of(quickstart(*TEACHER_MADE))}
    assert parents["finetune"] == {"data": "data", "masked": "pretrain"}
    assert parents["generic"] == {"data": "data", "masked": "pretrain"}
    assert parents["specific"] == {"data": "data", "generic": "generic", "classifier": "finetune"}
    assert parents["evaluate"]["teacher"] == parents["profile"]["teacher"] == "finetune"


def test_the_second_run_does_nothing(stages: Any, run_recipe: RunRecipe) -> None:
    first = run_recipe(quickstart())
    assert names(first) == stages.take() == ALL
    assert all(step.reason == "has not run" for step in first)
    second = run_recipe(quickstart())
    assert names(second) == stages.take() == []
    assert all(step.reason == "up to date" for step in second)


AFTER_GENERIC = ["specific", "evaluate", "export", "profile", "report"]


@pytest.mark.parametrize(
    ("override", "wanted", "reason"),
    [
        ("data.image_px=35", ALL, "data.image_px: 28 -> 35"),
        (
            "teacher.masked=other.safetensors",
            ["teacher", "generic", *AFTER_GENERIC],
            "teacher.masked: bundled:fashion-mnist -> other.safetensors",
        ),
        ("student.depth=6", ["generic", "specific", "baseline", "evaluate", "export", "profile", "report"], "student.depth: 5 -> 6"),
        ("generic.epochs=99", ["generic", *AFTER_GENERIC], "generic.epochs: "),
        ("specific.epochs=99", AFTER_GENERIC, "specific.epochs: "),
        ("specific.mix.mixup=0.33", AFTER_GENERIC, "specific.mix.mixup: "),
        ("baseline.epochs=99", ["baseline", "evaluate", "report"], "baseline.epochs: "),
        ("evaluate.batch_size=50", ["evaluate", "report"], "evaluate.batch_size: None -> 50"),
        ("evaluate.corruptions=null", ["evaluate", "report"], "evaluate.corruptions: "),
        ("export.num_samples=4", ["export", "profile", "report"], "export.num_samples: 16 -> 4"),
        ("profile.seconds=11", ["profile", "report"], "profile.seconds: 6.0 -> 11.0"),
        ("report.title=New", ["report"], "report.title: None -> New"),
        ("description=New", ["report"], "description: "),
        ("seed=1", ["generic", "specific", "baseline", "evaluate", "export", "profile", "report"], "seed: 0 -> 1"),
    ],
)
def test_a_changed_setting_reruns_exactly_what_depends_on_it(
    override: str, wanted: list[str], reason: str, stages: Any, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    run_recipe(quickstart())
    stages.take()
    planned = plan(quickstart(override), tmp_path / "out")
    assert names(planned) == wanted
    assert next(step for step in planned if step.runs).reason.startswith(reason)
    done = run_recipe(quickstart(override))
    assert names(done) == stages.take() == wanted
    assert names(run_recipe(quickstart(override))) == []


def test_a_stage_that_is_taken_out_reruns_those_that_used_it(stages: Any, run_recipe: RunRecipe) -> None:
    run_recipe(quickstart())
    stages.take()
    done = run_recipe(quickstart("baseline=null"))
    assert stages.take() == ["evaluate", "report"]
    assert next(step for step in done if step.runs).reason == "baseline changed"


def test_another_version_of_the_package_reruns_everything(stages: Any, run_recipe: RunRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    run_recipe(quickstart())
    stages.take()
    monkeypatch.setattr(planning, "__version__", "99.0")
    done = run_recipe(quickstart())
    assert stages.take() == ALL
    assert done[0].reason == "made by another version than 99.0"


def test_changed_images_rerun_what_saw_them(stages: Any, run_recipe: RunRecipe, make_idx_folder: Any, tmp_path: Path) -> None:
    folder = make_idx_folder(tmp_path / "digits")
    recipe = quickstart(f"data.root={folder}")
    run_recipe(recipe)
    stages.take()
    labels = folder / "t10k-labels-idx1-ubyte.gz"
    labels.write_bytes(labels.read_bytes() + b"\0")
    done = run_recipe(recipe)
    assert stages.take()[0] == "data" and done[0].reason == "files changed"


def test_a_changed_teacher_file_reruns_what_it_teaches(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    weights = tmp_path / "masked.safetensors"
    weights.write_text("old")
    recipe = quickstart(f"teacher.masked={weights}")
    run_recipe(recipe)
    stages.take()
    weights.write_text("new")
    stages.constant.add("teacher")
    done = run_recipe(recipe)
    assert stages.take()[0] == "teacher"
    assert next(step for step in done if step.runs).reason == "masked.safetensors changed"


def test_a_stage_that_makes_the_same_again_stops_the_change_there(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    stages.constant.add("generic")
    run_recipe(quickstart())
    stages.take()
    planned = plan(quickstart("generic.epochs=99"), tmp_path / "out")
    assert names(planned) == ["generic", *AFTER_GENERIC]  # a plan cannot know
    assert {step.stage.name: step.reason for step in planned}["specific"] == "after generic"
    run_recipe(quickstart("generic.epochs=99"))
    assert stages.take() == ["generic", "report"]


def test_force_runs_a_stage_that_is_up_to_date_and_but_for_the_report_nothing_else_where_it_makes_the_same(
    stages: Any, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    run_recipe(quickstart())
    stages.take()
    assert plan(quickstart(), tmp_path / "out", force="generic")[2].reason == "forced"
    done = run_recipe(quickstart(), force="generic")
    assert names(done) == stages.take() == ["generic", "report"]
    assert done[2].reason == "forced"
    assert done[-1].reason == "after generic", "times are on the page, and in no digest"


def test_until_stops_after_a_stage_and_the_next_run_goes_on(stages: Any, run_recipe: RunRecipe) -> None:
    assert names(run_recipe(quickstart(), until="generic")) == stages.take() == ["data", "teacher", "generic"]
    assert names(run_recipe(quickstart())) == ["specific", "baseline", "evaluate", "export", "profile", "report"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"until": "finetune"}, f"--until finetune: the recipe quickstart has no such stage; its stages are {', '.join(ALL)}"),
        ({"force": "bogus"}, f"--force bogus: the recipe quickstart has no such stage; its stages are {', '.join(ALL)}"),
        ({"until": "generic", "force": "export"}, "--force export: comes after --until generic, so it would not run; drop one of them"),
    ],
)
def test_a_stage_that_is_not_there_cannot_be_named(
    options: dict[str, str], message: str, stages: Any, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    for attempt in (lambda: run_recipe(quickstart(), **options), lambda: plan(quickstart(), tmp_path / "out", **options)):
        with pytest.raises(UserError) as caught:
            attempt()
        assert str(caught.value) == message
    assert not (tmp_path / "out").exists()


def test_a_deleted_artifact_is_made_again(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart())
    stages.take()
    (tmp_path / "out" / "specific" / "artifact.json").unlink()
    run_recipe(quickstart())
    assert stages.take() == ["specific", "report"]


def test_a_failed_verdict_is_reported_and_not_built_upon(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart())
    stages.take()
    stages.failures["export"] = "parity failed: 3 decisions flipped"
    bad = quickstart("export.num_samples=4")
    for again in (["export", "report"], []):
        with pytest.raises(RunFailed, match=r"^export: parity failed: 3 decisions flipped$"):
            run_recipe(bad)
        assert stages.take() == again
    assert not (tmp_path / "out" / "profile").exists(), "an older profile is of another export"
    planned = {step.stage.name: (step.runs, step.reason) for step in plan(bad, tmp_path / "out")}
    assert planned["profile"] == (False, "cannot run: export failed")
    assert planned["export"] == planned["report"] == (False, "up to date")
    stages.failures.clear()
    run_recipe(quickstart())
    assert stages.take() == ["export", "profile", "report"]


def test_what_depends_on_what_could_not_run_is_left_out_too(stages: Any, run_recipe: RunRecipe) -> None:
    stages.failures["generic"] = "no good"
    with pytest.raises(RunFailed, match=r"^generic: no good$"):
        run_recipe(quickstart())
    assert stages.take() == ["data", "teacher", "generic", "baseline", "report"]


@pytest.mark.parametrize("stop", [KeyboardInterrupt(), RunFailed("the loss became nan"), UserError("the teacher has no decoder")])
def test_a_stage_that_stops_keeps_what_is_finished_and_the_next_run_goes_on_with_it(
    stop: BaseException, stages: Any, run_recipe: RunRecipe, tmp_path: Path
) -> None:
    stages.raises["specific"] = stop
    with pytest.raises(type(stop)):
        run_recipe(quickstart())
    assert stages.take() == ["data", "teacher", "generic"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [".lock", "data", "generic", "run.json", "teacher"]
    stages.raises.clear()
    run_recipe(quickstart())
    assert stages.take() == ["specific", "baseline", "evaluate", "export", "profile", "report"]


def test_an_older_artifact_stays_when_its_stage_stops(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart())
    before = read_artifact(tmp_path / "out" / "generic")
    stages.raises["generic"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(quickstart("generic.epochs=99"))
    assert read_artifact(tmp_path / "out" / "generic") == before


@pytest.mark.parametrize(("code", "words"), [(errno.ENOSPC, "No space left on device"), (errno.EROFS, "Read-only file system")])
def test_a_full_disk_is_told_in_one_line(code: int, words: str, stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    stages.raises["generic"] = OSError(code, words)
    with pytest.raises(UserError) as caught:
        run_recipe(quickstart())
    assert str(caught.value) == f"generic: {tmp_path / 'out'}: {words}; correct it and run the same command again"


def test_an_error_of_the_program_is_not_hidden(stages: Any, run_recipe: RunRecipe) -> None:
    stages.raises["generic"] = OSError(errno.EBADF, "Bad file descriptor")
    with pytest.raises(OSError, match="Bad file descriptor"):
        run_recipe(quickstart())


def test_a_changed_input_is_found_before_it_is_used(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart())
    stages.take()
    result = tmp_path / "out" / "generic" / "result.json"
    result.write_text(result.read_text().replace("1", "2"))
    with pytest.raises(UserError, match=r"result\.json: its hash is not the one that generic recorded.*--force generic$"):
        run_recipe(quickstart("specific.epochs=99"))
    assert stages.take() == []
    run_recipe(quickstart("specific.epochs=99"), force="generic")
    assert stages.take() == ["generic", *AFTER_GENERIC]


def test_progress_hears_of_every_stage_that_runs(stages: Any, run_recipe: RunRecipe) -> None:
    heard: list[str] = []

    class Heard:
        def begin(self, title: str) -> None:
            heard.append(f"begin {title}")

        def update(self, done: int, total: int, note: str = "") -> None: ...

        def end(self, note: str = "") -> None:
            heard.append("end")

        def abort(self) -> None:
            heard.append("abort")

    stages.raises["generic"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        run_recipe(quickstart(), progress=Heard())
    assert heard == ["begin data", "end", "begin teacher", "end", "begin generic", "abort"]


def test_the_run_records_what_was_asked(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart("seed=7"), command="g2sd run quickstart --set seed=7")
    found = json.loads((tmp_path / "out" / "run.json").read_text())
    assert (found["recipe"], found["command"]) == ("quickstart", "g2sd run quickstart --set seed=7")
    assert Recipe.model_validate_json(json.dumps(found["resolved"])) == quickstart("seed=7")
    assert list(found["stages"]) == [stage.name for stage in stages_of(quickstart())]
    assert found["stages"]["specific"] == ["data", "generic", "teacher"]


def test_the_run_records_the_stages_that_were_asked_for(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart(), until="generic")
    assert list(json.loads((tmp_path / "out" / "run.json").read_text())["stages"]) == ["data", "teacher", "generic"]


def test_warnings_lie_on_disk_while_a_run_goes_on(
    stages: Any, run_recipe: RunRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = stages.run

    def warning(context: Any) -> Made:
        if context.stage == "generic":
            context.warn("cat.jpg: cut off")
        return plain(context)  # type: ignore[no-any-return]

    monkeypatch.setattr(stages, "run", warning)
    run_recipe(quickstart())
    kept = tmp_path / "out" / "warnings.jsonl"
    assert json.loads(kept.read_text()) == {"stage": "generic", "warning": "cat.jpg: cut off"}
    run_recipe(quickstart(), force="generic")
    assert kept.read_text().count("\n") == 1, "a stage that begins again removes its own"


def test_the_folder_of_another_recipe_is_refused_and_left_alone(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    run_recipe(quickstart())
    stages.take()
    before = (tmp_path / "out" / "run.json").read_bytes()
    for attempt in (lambda: run_recipe(quickstart("name=other")), lambda: plan(quickstart("name=other"), tmp_path / "out")):
        with pytest.raises(UserError, match="holds the run of the recipe quickstart, not other; give another --out"):
            attempt()
    assert stages.take() == [] and (tmp_path / "out" / "run.json").read_bytes() == before


def test_a_folder_with_other_files_is_refused_and_left_alone(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="holds files, but no run of g2sd; give a new or empty folder"):
        run_recipe(quickstart())
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("content", ["{", "[]", "{}"])
def test_a_run_whose_record_is_damaged_is_refused(content: str, stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "run.json").write_text(content)
    with pytest.raises(UserError, match=r"run\.json: is damaged, so it is not known whose run this is; give another --out"):
        run_recipe(quickstart())


def test_two_runs_do_not_write_one_folder(stages: Any, run_recipe: RunRecipe, tmp_path: Path) -> None:
    fcntl = pytest.importorskip("fcntl", reason="no such lock on this platform")
    run_recipe(quickstart())
    stages.take()
    before = (tmp_path / "out" / "run.json").read_bytes()
    with (tmp_path / "out" / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another g2sd run is writing there; wait for it or give another --out"):
            run_recipe(quickstart("seed=1"))
    assert stages.take() == [] and (tmp_path / "out" / "run.json").read_bytes() == before
    run_recipe(quickstart("seed=1"))
    assert stages.take()


def test_a_plan_writes_nothing(tmp_path: Path) -> None:
    steps = plan(quickstart(), tmp_path / "out")
    assert [(step.runs, step.reason) for step in steps][:3] == [(True, "has not run"), (True, "after data"), (True, "after data, teacher")]
    assert list(tmp_path.iterdir()) == []
