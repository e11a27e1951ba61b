"""Tiny runs with a task: a teacher that is made on the spot, both distillation stages, a baseline and their scores."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from g2sd_deploy import pipeline, planning
from g2sd_deploy.artifact import Artifact, read_artifact
from g2sd_deploy.errors import RunFailed, UserError
from g2sd_deploy.models.dense.detector_file import load_detector
from g2sd_deploy.models.dense.segmenter_file import load_segmenter
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import CheckpointEvery, Runtime
from g2sd_deploy.settings import Recipe
from g2sd_deploy.training.average import MovingAverage

TRAIN = {"epochs": 1, "batch_size": 8, "base_lr": 1e-2}
ENCODER = {"patch_px": 8, "width": 16, "depth": 4, "heads": 2}
TINY: dict[str, Any] = {
    "name": "tiny",
    "data": {
        "source": "scenes",
        "root": "bundled:fashion-mnist",
        "image_px": 32,
        "num_channels": 3,
        "mean": [0.5, 0.5, 0.5],
        "std": [0.25, 0.25, 0.25],
        "max_train_images": 32,
        "max_test_images": 6,
    },
    "pretrain": {"encoder": ENCODER | {"width": 24}, "decoder": {"width": 8, "depth": 2, "heads": 1}, **TRAIN},
    "finetune": dict(TRAIN),
    "student": ENCODER,
    "generic": {"method": "g2sd", "decoder": {"width": 8, "depth": 1, "heads": 1}, "teacher_decoder_block": 1, **TRAIN},
    "baseline": TRAIN | {"start": "generic"},
    "evaluate": {},
}
TASKS: dict[str, dict[str, Any]] = {
    "segmentation": {
        "task": {"kind": "segmentation", "channels": 8, "aux_channels": 4},
        "specific": {"method": "cwd", "drop_path": 0.2, **TRAIN},
    },
    "detection": {
        "task": {
            "kind": "detection",
            "window": 2,
            "channels": 8,
            "box_width": 16,
            "anchor_scale": 4.0,
            "region_samples": 16,
            "proposals": 16,
            "max_detections": 5,
        },
        "specific": {"method": "frs", "ramp_steps": 2, "drop_path": 0.2, **TRAIN},
    },
}
FILES = {"segmentation": "segmenter.safetensors", "detection": "detector.safetensors"}
TEACHERS = {"segmentation": "segmenter", "detection": "detector"}


def recipe_of(kind: str, **sections: dict[str, Any] | None) -> Recipe:
    """The tiny recipe of a task with some settings replaced (None: the section left out)."""
    values = TINY | TASKS[kind]
    for name, section in sections.items():
        kept = {} if section is None or "method" in section else values.get(name, {})
        values = values | {name: None if section is None else kept | section}
    return Recipe.model_validate({name: value for name, value in values.items() if value is not None})


def run_recipe(recipe: Recipe, folder: Path, *, checkpoint_every: int | None = None, **options: Any) -> list[planning.Step]:
    runtime = (
        Runtime(torch.device("cpu"))
        if checkpoint_every is None
        else Runtime(torch.device("cpu"), checkpoint_every=CheckpointEvery(steps=checkpoint_every))
    )
    return pipeline.run(recipe, folder, runtime=runtime, progress=SilentProgress(), command="g2sd run tiny", **options)


def stage_of(folder: Path, stage: str) -> Artifact:
    found = read_artifact(folder / stage)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A finished run of a task. Not to be changed."""
    made: dict[str, Path] = {}

    def run(kind: str) -> Path:
        if kind not in made:
            made[kind] = tmp_path_factory.mktemp(kind) / "run"
            run_recipe(recipe_of(kind), made[kind], until="evaluate")
        return made[kind]

    return run


@pytest.fixture(params=TASKS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_teacher_student_and_baseline_are_scored_on_the_same_images(run_of: Callable[[str], Path], kind: str) -> None:
    metrics = stage_of(run_of(kind), "evaluate").metrics
    assert (metrics["task"], metrics["num_images"], list(metrics["models"])) == (kind, 6, ["teacher", "student", "baseline"])
    for figures in metrics["models"].values():
        score = figures["miou"] if kind == "segmentation" else figures["box"]["ap"]
        assert score is None or 0 <= score <= 1
    sizes = [metrics["models"][name]["num_parameters"] for name in ("teacher", "student", "baseline")]
    assert sizes[0] > sizes[1] == sizes[2]


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_pictures_show_each_image_beside_its_truth_and_every_answer(run_of: Callable[[str], Path], kind: str) -> None:
    evaluated = stage_of(run_of(kind), "evaluate")
    assert len(evaluated.metrics["pictures"]) == 4
    for row in evaluated.metrics["pictures"]:
        assert list(row) == ["image", "truth", "teacher", "student", "baseline"]
        pictures = {name: pixels_of(evaluated.file(file)) for name, file in row.items()}
        assert pictures["image"].shape == (320, 320, 3) and {picture.shape[2] for picture in pictures.values()} == {3}
        assert {picture.shape[:2] for picture in pictures.values()} == {(320, 320)}
        assert not np.array_equal(pictures["truth"], pictures["image"])


def test_the_student_learns_from_labels_and_teacher(run_of: Callable[[str], Path], kind: str) -> None:
    rows = [json.loads(line) for line in stage_of(run_of(kind), "specific").file("history.jsonl").read_text().splitlines()]
    terms = {
        "segmentation": {"loss_ce", "loss_aux", "loss_cwd"},
        "detection": {"loss_rpn_objectness", "loss_region_mask", "loss_frs_feature", "loss_frs_objectness"},
    }[kind]
    assert terms <= rows[-1].keys()
    if kind == "detection":  # the ramp starts at 0
        assert rows[0]["loss_frs_feature"] == 0 < rows[-1]["loss_frs_feature"]
    baseline = [json.loads(line) for line in stage_of(run_of(kind), "baseline").file("history.jsonl").read_text().splitlines()]
    assert not {"loss_cwd", "loss_frs_feature"} & baseline[-1].keys()


def test_the_students_file_says_how_it_is_asked(run_of: Callable[[str], Path], kind: str) -> None:
    path = stage_of(run_of(kind), "specific").file(FILES[kind])
    file = load_segmenter(path) if kind == "segmentation" else load_detector(path)
    assert (file.task.kind, file.task.image_px, file.task.mean) == (kind, 32, (0.5, 0.5, 0.5))
    assert len(file.class_names) == {"segmentation": 11, "detection": 10}[kind]
    if kind == "segmentation":
        assert (file.task.inference, file.task.stride) == ("slide", 21)


def test_the_baseline_starts_where_the_student_starts(run_of: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    from_scratch = tmp_path / "run"
    run_recipe(
        recipe_of(kind, baseline={"start": "scratch"}, generic=None, specific=None, student=ENCODER, pretrain=None, finetune=None),
        from_scratch,
        until="baseline",
    )
    first = [
        json.loads(stage_of(folder, "baseline").file("history.jsonl").read_text().splitlines()[0])["loss"]
        for folder in (run_of(kind), from_scratch)
    ]
    assert first[0] != first[1]
    parents = stage_of(run_of(kind), "baseline").parents
    assert "generic" in parents and "generic" not in stage_of(from_scratch, "baseline").parents


def test_a_second_run_does_nothing(run_of: Callable[[str], Path], kind: str) -> None:
    steps = run_recipe(recipe_of(kind), run_of(kind), until="evaluate")
    assert [step.stage.name for step in steps if step.runs] == []


def changed(one: Recipe, other: Recipe) -> list[str]:
    """Stages whose own settings differ."""
    pairs = zip(planning.stages_of(one), planning.stages_of(other), strict=True)
    return [first.name for first, second in pairs if first.config != second.config]


def test_what_only_the_exported_file_reads_makes_no_stage_stale() -> None:
    plain, logits = (recipe_of("segmentation", export={}, task={"output": output}) for output in (None, "logits"))
    assert changed(plain, logits) == ["export"]
    assert changed(plain, recipe_of("segmentation", export={}, task={"channels": 12})) == [
        *("finetune", "specific", "baseline", "evaluate", "export")
    ]


class KilledError(BaseException):
    """Like a signal that nothing can catch."""


def test_training_goes_on_after_a_kill_to_the_same_bytes(
    run_of: Callable[[str], Path], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, folder = MovingAverage.update, tmp_path / "run"
    run_recipe(recipe_of(kind), folder, until="generic")

    def killing(self: MovingAverage, num_steps: int) -> None:
        update(self, num_steps)
        if num_steps == 3:
            raise KilledError

    monkeypatch.setattr(MovingAverage, "update", killing)
    with pytest.raises(KilledError):
        run_recipe(recipe_of(kind), folder, until="specific", checkpoint_every=2)
    monkeypatch.setattr(MovingAverage, "update", update)
    run_recipe(recipe_of(kind), folder, until="specific", checkpoint_every=2)
    made = stage_of(folder, "specific")
    assert made.metrics["resumed_at"] == 2
    for name in (FILES[kind], "history.jsonl"):
        assert made.file(name).read_bytes() == stage_of(run_of(kind), "specific").file(name).read_bytes()


def test_a_finished_stage_teaches_another_run(run_of: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    teacher = {TEACHERS[kind]: str(run_of(kind) / "finetune"), "masked": str(run_of(kind) / "pretrain")}
    run_recipe(recipe_of(kind, pretrain=None, finetune=None, teacher=teacher), tmp_path / "run", until="specific")
    made, own = stage_of(tmp_path / "run", "specific"), stage_of(run_of(kind), "specific")
    assert made.file(FILES[kind]).read_bytes() == own.file(FILES[kind]).read_bytes()
    part = stage_of(tmp_path / "run", "teacher").metrics["parts"][TEACHERS[kind]]
    assert part["num_parameters"] == stage_of(run_of(kind), "finetune").metrics["num_parameters"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"reference": "nowhere.safetensors"}, "there is no such file or stage folder; give one such as runs/NAME/finetune"),
        ({"reference": "generic"}, "the stage generic made no segmenter; give the folder of one that did"),
        ({"data": {"mean": [0.4, 0.5, 0.5]}}, "was trained with image_px, num_channels, mean and std .* so make them agree"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    run_of: Callable[[str], Path], tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    run = run_of("segmentation")
    reference = {"generic": str(run / "generic")}.get(change.get("reference", ""), change.get("reference", str(run / "finetune")))
    teacher = {"segmenter": reference, "masked": str(run / "pretrain")}
    recipe = recipe_of("segmentation", pretrain=None, finetune=None, teacher=teacher, data=change.get("data", {}))
    with pytest.raises(UserError, match=message):
        run_recipe(recipe, tmp_path / "run", until="teacher")


def test_the_teachers_of_scenes_inside_the_package_are_taken_in(kind: str, tmp_path: Path) -> None:
    lent = {"masked": "bundled:scenes", TEACHERS[kind]: "bundled:scenes"}
    recipe = recipe_of(kind, pretrain=None, finetune=None, teacher=lent, data={"image_px": 64})
    run_recipe(recipe, tmp_path / "run", until="teacher")
    parts = stage_of(tmp_path / "run", "teacher").metrics["parts"]
    assert parts["masked"]["trained_px"] == parts[TEACHERS[kind]]["trained_px"] == 64
    assert parts[TEACHERS[kind]]["source"] == "bundled:scenes" and parts[TEACHERS[kind]]["classes_used"] == (
        11 if kind == "segmentation" else 10
    )


def test_a_bundled_teacher_without_the_part_is_refused(tmp_path: Path) -> None:
    lent = {"masked": "bundled:fashion-mnist", "segmenter": "bundled:fashion-mnist"}
    with pytest.raises(UserError, match="the package has masked, classifier of it and no segmenter; bundled:scenes has one"):
        run_recipe(recipe_of("segmentation", pretrain=None, finetune=None, teacher=lent), tmp_path / "run", until="teacher")


def test_a_recipe_says_what_its_scenes_hold(tmp_path: Path) -> None:
    contents = {"max_garments": 2, "smallest": 0.5, "largest": 0.6, "max_turn_deg": 5.0, "min_visible": 0.5, "seed": 3}
    run_recipe(recipe_of("detection", data={"scenes": contents}), tmp_path / "run", until="data")
    assert stage_of(tmp_path / "run", "data").metrics["train_where"]["spec"] == contents | {"image_px": 32}
    with pytest.raises(UserError, match=r"data\.scenes: largest is 0\.9; give 0\.2 to 0\.7"):
        run_recipe(recipe_of("detection", data={"scenes": {"largest": 0.9}}), tmp_path / "wrong", until="data")


def test_a_bad_test_image_ends_the_data_stage(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for split, num in (("train", 8), ("test", 2)):
        for part, mode in (("images", "RGB"), ("annotations", "L")):
            (root / part / split).mkdir(parents=True)
            for index in range(num):
                Image.new(mode, (40, 40)).save(root / part / split / f"{index}.png")
    (root / "classes.txt").write_text("ground\nthing\n")
    data = {"source": "masks", "root": str(root), "max_train_images": None, "max_test_images": None}
    run_recipe(recipe_of("segmentation", data=data), tmp_path / "good", until="data")
    assert stage_of(tmp_path / "good", "data").metrics["num_test"] == 2
    Image.new("L", (39, 40)).save(root / "annotations" / "test" / "1.png")
    with pytest.raises(
        RunFailed, match=r"test/1.*39.*every test image and its truth has to be sound: `g2sd data verify` lists all bad ones"
    ):
        run_recipe(recipe_of("segmentation", data=data), tmp_path / "bad", until="data")


@pytest.mark.parametrize(
    ("kind", "sections", "message"),
    [
        ("segmentation", {"specific": TRAIN | {"method": "frs"}}, "specific.method is frs; with task segmentation use finetune or cwd"),
        ("detection", {"specific": TRAIN | {"method": "cwd"}}, "specific.method is cwd; with task detection use finetune or frs"),
        (
            "segmentation",
            {"data": {"source": "coco"}},
            "data.source is coco, which knows no classes of pixels; with task segmentation use scenes",
        ),
        ("detection", {"data": {"source": "masks"}}, "data.source is masks, which knows no boxes and masks of objects"),
        ("segmentation", {"data": {"max_test_images": None}}, "data.source scenes makes any number of images: say how many"),
        ("segmentation", {"data": {"ignore_zero": True}}, "data.ignore_zero is for masks, not for data.source scenes; remove it"),
        ("segmentation", {"data": {"source": "masks", "scenes": {}}}, "data.scenes is for data.source scenes, not for masks; remove it"),
        ("segmentation", {"data": {"classes": "x"}}, "data.classes is for source huggingface, not for scenes"),
        (
            "segmentation",
            {"data": {"stored_px": 40}},
            "data.stored_px: set for classifiers, and not read with task segmentation; remove it",
        ),
        ("detection", {"baseline": {"augment": {"flip": False}}}, "baseline.augment: .* set in task.augment"),
        ("detection", {"evaluate": {"occlusion": {}}}, "evaluate.occlusion: set for classifiers"),
        ("segmentation", {"student": {"depth": 3}}, "student.depth is 3; task segmentation takes features behind four blocks"),
        ("segmentation", {"student": {"patch_px": 2}}, "student.patch_px is 2; task segmentation knows patches of 4, 8 and 16 px"),
        ("detection", {"data": {"image_px": 48}}, "data.image_px is 48; task detection needs a multiple of 32"),
        ("segmentation", {"task": {"stride": 40}}, "task.stride is 40, but windows are 32 px wide: lower it"),
        ("segmentation", {"task": {"stride": 8, "inference": "whole"}}, "task.stride is 8, which only inference slide reads; remove it"),
        ("segmentation", {"task": {"output": "classes"}}, "task.output is classes, but sliding windows are averaged"),
        ("segmentation", {"quantise": {**TRAIN}}, "quantise is for classifiers, not for a task; remove it"),
        ("detection", {"pretrain": None, "finetune": None, "teacher": {"masked": "x", "segmenter": "y"}}, "name a teacher.detector"),
        ("detection", {"pretrain": None, "finetune": None, "teacher": {"masked": "x"}}, "add teacher.detector, or pretrain and finetune"),
        ("detection", {"generic": None, "specific": None}, "baseline.start is generic, but there is no generic stage"),
        ("detection", {"finetune": {"schedule": "steps"}}, "schedule is steps and drops are .*; steps needs drops"),
        ("detection", {"finetune": {"schedule": "steps", "drops": [0.9, 0.5]}}, "they have to ascend"),
        (
            "detection",
            {"finetune": {"schedule": "steps", "drops": [0.9], "min_lr": 0.1}},
            "min_lr is 0.1, which schedule steps does not read",
        ),
        ("detection", {"task": {"augment": {"scale": [2.0, 1.0]}}}, "give the smaller factor first"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(kind: str, sections: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        recipe_of(kind, **sections)


@pytest.mark.parametrize(
    ("section", "values", "message"),
    [
        ("data", {"source": "masks"}, "data.source masks is for a task; add task"),
        ("data", {"source": "folder", "ignore_zero": True}, "data.ignore_zero is for the masks of a task"),
        ("data", {"source": "folder", "scenes": {}}, "data.scenes is for data.source scenes, which is for a task; remove it"),
        ("data", {"source": "folder", "classes": "x"}, "data.classes is for the masks of a task"),
        ("specific", TRAIN | {"method": "cwd"}, "specific.method cwd is for a task"),
    ],
)
def test_settings_of_a_task_need_one(section: str, values: dict[str, Any], message: str) -> None:
    changed: dict[str, Any] = {"data": {"source": "folder"}, "specific": TRAIN | {"method": "hard"}}
    changed[section] = values
    with pytest.raises(ValidationError, match=message):
        recipe_of("segmentation", task=None, **changed)


def test_the_student_ships_in_a_bundle_that_is_proven_and_timed(run_of: Callable[[str], Path], kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    shutil.copytree(run_of(kind), folder)
    recipe = recipe_of(
        kind,
        export={"only": ["fp32-onnxruntime"], "timing_seconds": 0.2},
        profile={"batches": [1], "threads": 1, "seconds": 0.2, "runtimes": ["torch", "onnxruntime"], "layers": False},
    )
    run_recipe(recipe, folder)
    exported, profiled = stage_of(folder, "export"), stage_of(folder, "profile").metrics
    assert exported.failure == ""
    parity = exported.metrics["parity"]
    assert parity["verdict"] == "passed" and parity["num_images"] == 6
    assert {"segmentation": "changed_share", "detection": "unmatched_share"}[kind] in parity
    manifest = json.loads((exported.folder / "bundle" / "manifest.json").read_text())
    assert manifest["task"]["kind"] == kind
    rows = {(row["model"], row["runtime"]): row for row in profiled["rows"]}
    assert rows["teacher", "torch"]["p50_ms"] > 0 and rows["student", "torch"]["p50_ms"] > 0
    assert "weights of a segmenter or detector run on torch only" in " ".join(rows["teacher", "onnxruntime"]["reasons"])
    assert (stage_of(folder, "report").folder / "report.html").is_file()
