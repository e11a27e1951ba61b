"""The recipes of ADE20K and COCO, value by value, and what their comments promise.

The settings are those of the authors' files: pengzhiliang/G2SD@6146adf (G2SD_seg_dis: run.sh, src/configs/distill, src/configs/mae;
G2SD_det_dis: run.sh, projects/ViTDet/configs/COCO) and its issue 2; the scores are those of their slides.
"""

import re
from functools import cache
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from torch.utils.flop_counter import FlopCounterMode

from g2sd_deploy.models.dense.network_file import DenseNetwork
from g2sd_deploy.models.dense.segmenter import Segmenter
from g2sd_deploy.models.vit import EncoderSpec
from g2sd_deploy.planning import stages_of
from g2sd_deploy.recipe import find_recipe, load_recipe
from g2sd_deploy.report import papers
from g2sd_deploy.settings import DetectionSettings, LabelledTrainSettings, Recipe
from g2sd_deploy.stages.dense_models import global_blocks, make_network
from g2sd_deploy.training.schedule import learning_rate, num_steps_of
from g2sd_deploy.zoo.catalog import find_teacher

Values = dict[str, Any]
NUM_IMAGES = {"ade20k": 20_210, "coco": 118_287}
NUM_CLASSES = {"ade20k": 150, "coco": 80}
SHARED_DATA: Values = {"num_channels": 3, "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225), "max_train_images": None}
DATA: dict[str, Values] = {
    "ade20k": {"source": "masks", "train_split": "training", "test_split": "validation", "image_px": 512, "ignore_zero": True},
    "coco": {"source": "coco", "train_split": "train2017", "test_split": "val2017", "image_px": 1024, "ignore_zero": False},
}
TASK: dict[str, Values] = {
    "ade20k": {
        "kind": "segmentation",
        "channels": None,  # the encoder's width
        "aux_channels": 256,
        "relative_positions": True,
        "layer_scale": 1.0,
        "inference": "slide",
        "stride": 341,
        "augment": {"scale": (0.5, 2.0), "flip": True, "photometric": True, "max_share": 0.75},
        "output": None,
    },
    "coco": {
        "kind": "detection",
        "window": 14,
        "relative_positions": True,
        "channels": 256,
        "box_width": 1024,
        "anchor_scale": 8.0,  # detectron2: anchors of 32, 64, 128, 256 and 512 px at strides 4 to 64
        "region_samples": 512,
        "proposals": 1000,
        "max_detections": 100,
        "min_score": 0.05,
        "augment": {"scale": (0.1, 2.0), "flip": True},
    },
}
TRAIN: dict[str, Values] = {
    "ade20k": {"batch_size": 16, "schedule": "linear", "min_lr": 0.0, "drops": (), "weight_decay": 0.05, "layer_decay": 0.65},
    "coco": {"batch_size": 64, "schedule": "steps", "min_lr": 0.0, "weight_decay": 0.05, "layer_decay": 0.7},
}
SHARED_TRAIN: Values = {"betas": (0.9, 0.999), "drop_path": 0.1, "clip_grad": None, "precision": "bf16", "ema_decay": None}
METHOD: dict[str, Values] = {
    "ade20k": {"method": "cwd", "weight": 3.0, "temperature": 1.0},
    "coco": {"method": "frs", "feature_weight": 0.001, "objectness_weight": 0.1, "ramp_steps": 500},
}
STEPS = {"ade20k": 160_000, "coco": 184_375}
WARMUP = {"ade20k": 1500, "coco": 250}
DROPS = {"ade20k": [], "coco": [163_889, 177_546]}
TEACHERS = {"ade20k": ("segmenter", "mae_vit_base_ade20k"), "coco": ("detector", "mae_vit_base_coco")}
WIDTHS = {"tiny": (192, 3), "small": (384, 6), "base": (768, 12)}

# name: peak rate, settings of training that are not its data set's, scores in percent, parameters in millions
TABLE: dict[str, tuple[float, Values, Values, float]] = {
    "mae_vit_base_ade20k": (1e-4, {}, {"miou": 48.3}, 163.88),
    "g2sd_vit_small_ade20k": (1e-4, {}, {"miou": 48.0}, 42.00),
    "g2sd_vit_tiny_ade20k": (5e-4, {"layer_decay": 0.75}, {"miou": 44.5}, 11.03),
    "mae_vit_base_coco": (1e-4, {"weight_decay": 0.1}, {"box_ap": 51.6, "mask_ap": 45.9}, 113.89),
    "g2sd_vit_small_coco": (1e-4, {}, {"box_ap": 50.6, "mask_ap": 44.8}, 46.00),
    "g2sd_vit_tiny_coco": (1e-4, {}, {"box_ap": 46.3, "mask_ap": 41.3}, 28.48),
}
NAMES = list(TABLE)
STUDENTS = [name for name in NAMES if name.startswith("g2sd")]
WORDS = {"miou": "mIoU", "box_ap": "box AP", "mask_ap": "mask AP"}


def set_of(name: str) -> str:
    return name.rpartition("_")[2]


def size_of(name: str) -> str:
    return name.split("_")[2]


@cache
def recipe_of(name: str) -> Recipe:
    return load_recipe(find_recipe(name))


def trained(name: str) -> LabelledTrainSettings:
    """The one stage of the recipe that trains."""
    recipe = recipe_of(name)
    found = recipe.finetune if recipe.student is None else recipe.specific
    assert found is not None
    return found


def entry(name: str, label: str) -> str:
    lines = find_recipe(name).read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    found = re.search(rf"^# {label}: +(.*)$", re.sub(r"\n# {11}", " ", "\n".join(lines[:end])), re.MULTILINE)
    assert found, f"{name} has no {label}"
    return found[1]


@cache
def network_of(name: str) -> DenseNetwork:
    recipe, (width, heads) = recipe_of(name), WIDTHS[size_of(name)]
    assert recipe.task is not None
    with torch.device("meta"):
        return make_network(recipe.task, EncoderSpec(recipe.data.image_px, 16, 3, width, 12, heads), NUM_CLASSES[set_of(name)]).eval()


@pytest.mark.parametrize("name", NAMES)
def test_images_and_task_are_the_authors(name: str) -> None:
    recipe, data_set = recipe_of(name), set_of(name)
    assert recipe.seed == 0 and recipe.baseline is None
    wanted = SHARED_DATA | DATA[data_set]
    assert {key: getattr(recipe.data, key) for key in wanted} == wanted
    assert recipe.task is not None and recipe.task.model_dump() == TASK[data_set]


@pytest.mark.parametrize("name", NAMES)
def test_every_value_of_training_is_the_authors(name: str) -> None:
    data_set, (rate, own, *_) = set_of(name), TABLE[name]
    found = trained(name).model_dump()
    wanted = SHARED_TRAIN | TRAIN[data_set] | own | (METHOD[data_set] if name in STUDENTS else {})
    assert {key: found[key] for key in wanted} == wanted
    assert found["base_lr"] * found["batch_size"] / 256 == pytest.approx(rate)


@pytest.mark.parametrize("name", NAMES)
def test_the_passes_are_the_published_steps(name: str) -> None:
    settings, data_set = trained(name), set_of(name)
    num_steps = num_steps_of(settings.epochs, settings.batch_size, NUM_IMAGES[data_set])
    warmup = round(settings.warmup_epochs * (NUM_IMAGES[data_set] // settings.batch_size))
    assert (num_steps, warmup) == (STEPS[data_set], WARMUP[data_set])

    def rate(step: int) -> float:
        return learning_rate(
            step, num_steps=num_steps, warmup_steps=warmup, peak=1.0, floor=0.0, schedule=settings.schedule, drops=settings.drops
        )

    assert rate(0) == 0.0 and rate(warmup) == 1.0
    for number, drop in enumerate(DROPS[data_set]):
        assert rate(drop - 1) == pytest.approx(0.1**number) and rate(drop) == pytest.approx(0.1 ** (number + 1))
    if data_set == "ade20k":
        assert rate(num_steps - 1) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_network_is_the_authors_and_as_large_as_the_comment_says(name: str) -> None:
    network, width = network_of(name), WIDTHS[size_of(name)][0]
    if isinstance(network, Segmenter):
        assert (network.spec.taps, network.spec.channels) == ((3, 5, 7, 11), width)
    else:
        assert (network.spec.global_blocks, network.spec.train_level_proposals) == ((2, 5, 8, 11), 2000)
        assert global_blocks(12) == (2, 5, 8, 11)
    millions = f"{sum(p.numel() for p in network.parameters()) / 1e6:.2f}"
    assert millions == f"{TABLE[name][3]:.2f}" and f"{millions} M parameters" in entry(name, "Result")


@pytest.mark.parametrize("name", NAMES)
def test_the_comment_states_the_published_scores(name: str) -> None:
    result = entry(name, "Result")
    assert result.startswith(", ".join(f"{value} % {WORDS[measure]}" for measure, value in TABLE[name][2].items()))
    assert "stated: the authors' CVPR 2023 slides" in result


@pytest.mark.parametrize("name", STUDENTS)
def test_the_report_sets_the_same_scores_beside_a_run(name: str) -> None:
    written = YAML(typ="safe").load((find_package() / "papers.yaml").read_text(encoding="utf-8"))["recipes"][name]
    width = WIDTHS[size_of(name)][0]
    assert (written["student"], written["shape"]) == (TABLE[name][2], {"width": width, "depth": 12})
    assert written["teacher"] == TABLE[TEACHERS[set_of(name)][1]][2]


def find_package() -> Any:
    from importlib.resources import files

    return files(papers.__package__ or "")


@pytest.mark.parametrize("name", STUDENTS)
def test_a_student_goes_on_from_the_recipes_that_its_comment_names(name: str) -> None:
    recipe, (role, teacher), size = recipe_of(name), TEACHERS[set_of(name)], size_of(name)
    assert [stage.name for stage in stages_of(recipe)] == ["data", "teacher", "specific", "evaluate", "export", "profile", "report"]
    assert recipe.teacher is not None and recipe.student is not None
    assert recipe.teacher.model_dump(exclude_none=True) == {role: f"runs/{teacher}/finetune", "resize_positions": False}
    width, heads = WIDTHS[size]
    shape = {"patch_px": 16, "width": width, "depth": 12, "heads": heads, "mlp_ratio": 4.0, "positions": "sincos"}
    assert recipe.student.model_dump() == {**shape, "weights": f"runs/g2sd_vit_{size}/generic"}
    command = entry(name, "Command")
    assert command.startswith(f"g2sd run recipes/{name}.yaml --set data.root=FOLDER after ")
    assert f"g2sd run recipes/g2sd_vit_{size}.yaml --until generic --set data.root=IMAGENET" in command
    assert f"g2sd run recipes/{teacher}.yaml --set data.root=FOLDER" in command
    of_generic, of_task = load_recipe(find_recipe(f"g2sd_vit_{size}")), recipe_of(teacher)
    assert of_generic.student is not None and of_generic.student.model_dump() == {**shape, "weights": None}
    assert (of_task.data, of_task.task) == (recipe.data, recipe.task)


@pytest.mark.parametrize("teacher", [teacher for _, teacher in TEACHERS.values()])
def test_a_teacher_is_fine_tuned_from_the_public_encoder(teacher: str) -> None:
    recipe = recipe_of(teacher)
    assert [stage.name for stage in stages_of(recipe)] == ["data", "teacher", "finetune", "evaluate", "report"]
    assert recipe.teacher is not None
    assert recipe.teacher.model_dump(exclude_none=True) == {"encoder": "mae_pretrain_vit_base", "resize_positions": True}
    assert "fine-tuning" in find_teacher("mae_pretrain_vit_base").listed.use_for


@pytest.mark.parametrize("data_set", TEACHERS)
def test_the_two_sizes_differ_in_shape_rate_and_layer_decay_alone(data_set: str) -> None:
    lines = find_recipe(f"g2sd_vit_tiny_{data_set}").read_text(encoding="utf-8").splitlines()
    own = [line.partition(":")[0] for line in lines if not line.startswith("#")]
    assert own == ["base", "name", "description", "student", *(["specific"] if data_set == "ade20k" else [])]


@pytest.mark.parametrize("name", [name for name in NAMES if "tiny" not in name])
def test_the_comment_says_how_it_runs_on_eight_gpus(name: str) -> None:
    assert f"torchrun --nproc-per-node 8 -m g2sd_deploy run recipes/{name}.yaml --set data.root=FOLDER" in entry(name, "8 GPUs")


def forward_macs(network: DenseNetwork) -> float:
    """Multiplications of one image up to the logits, or to the levels and their objectness."""
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        images = torch.empty(1, 3, network.encoder.spec.image_px, network.encoder.spec.image_px)
        if isinstance(network, Segmenter):
            network.forward_train(images, None, None)
        else:
            network.levels(images, None)
    return float(counter.get_total_flops() / 2)


def region_macs(task: DetectionSettings) -> int:
    """Multiplications of the heads: boxes of every region (7 x 7), masks (14 x 14, doubled) of the quarter that may cover an object."""
    channels, classes = task.channels, NUM_CLASSES["coco"]
    conv = 9 * channels**2
    boxes = 49 * (4 * conv + channels * task.box_width) + task.box_width * (5 * classes + 1)
    masks = 196 * (4 * conv + 4 * channels**2) + 784 * channels * classes
    return task.region_samples * boxes + task.region_samples // 4 * masks


@cache
def step_macs(name: str) -> float:
    """Multiplications of one training image; a backward pass costs two forward passes, and the teacher has none."""
    own, task = forward_macs(network_of(name)), recipe_of(name).task
    if isinstance(task, DetectionSettings):
        own += region_macs(task)
    if name not in STUDENTS:
        return 3 * own
    if isinstance(task, DetectionSettings):  # the adapters, one convolution a level
        own += 9 * task.channels**2 * sum((1024 // stride) ** 2 for stride in (4, 8, 16, 32, 64))
    return forward_macs(network_of(TEACHERS[set_of(name)][1])) + 3 * own


@pytest.mark.parametrize("name", NAMES)
def test_the_hours_are_those_of_the_arithmetic(name: str) -> None:
    images = STEPS[set_of(name)] * trained(name).batch_size
    per_s = 0.3 * 312e12 / 2  # one A100 at 30 %, in multiplications with an addition each
    found = re.match(r"(\d+); estimated", entry(name, "Hours"))
    assert found and int(found[1]) == round(step_macs(name) * images / per_s / 3600)
    if name in STUDENTS:
        generic = re.search(r"generic (\d+)", entry(f"g2sd_vit_{size_of(name)}", "Hours"))
        teacher = re.match(r"\d+", entry(TEACHERS[set_of(name)][1], "Hours"))
        assert generic and teacher
        assert f"The generic stage takes {generic[1]} more, the teacher {teacher[0]}." in entry(name, "Hours")
