"""What a person names is opened as what it is; how images are prepared is never guessed and never overruled."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import timm
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.torch import save_file

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier
from g2sd_deploy.models.vit import Classifier, EncoderSpec
from g2sd_deploy.predictors import AskedPreprocessing, open_predictor
from g2sd_deploy.predictors.timm_models import digest_of_weights
from g2sd_export.edge import tensorrt_runner
from g2sd_export.edge.image_input import ImageInput
from g2sd_export.edge.preprocess import Preprocessing

CPU = torch.device("cpu")
OURS = Preprocessing(8, 10, 1, (0.25,), (0.5,), "bilinear")
FULL = AskedPreprocessing((0.5, 0.5, 0.5), (0.25, 0.25, 0.25), resize_px=8, interpolation="bicubic")
SIZE = 160
TIMM = "test_vit"  # of timm, for tests: 0.4 million weights, 160 px


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    model = Classifier(EncoderSpec(8, 4, 1, width=16, depth=1, heads=2), 3, pooling="cls", token="g2sd")
    save_classifier(tmp_path / "ours.safetensors", ClassifierFile(model, OURS, ("a", "b", "c")))
    return tmp_path / "ours.safetensors"


@pytest.fixture
def foreign(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX file of somebody else: mean of each channel times a matrix, 6 px, 4 classes."""

    def write(
        name: str = "foreign.onnx", *, last: str = "Identity", two: bool = False, shape: tuple[Any, ...] = ("n", 3, 6, 6), **metadata: str
    ) -> Path:
        nodes = [
            helper.make_node("ReduceMean", ["in", "axes"], ["pooled"], keepdims=0),
            helper.make_node("MatMul", ["pooled", "weight"], ["raw"]),
            helper.make_node(last, ["raw"], ["scores"]),
        ]
        weight = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
        stored = [numpy_helper.from_array(np.array([2, 3]), "axes"), numpy_helper.from_array(weight, "weight")]
        names = {"scores": 4, "pooled": 3} if two else {"scores": 4}
        outputs = [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", number]) for output, number in names.items()]
        graph = helper.make_graph(nodes, "g", [helper.make_tensor_value_info("in", TensorProto.FLOAT, shape)], outputs, stored)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        for key, value in metadata.items():
            model.metadata_props.add(key=key, value=value)
        onnx.save(model, tmp_path / name)
        return tmp_path / name

    return write


def test_our_classifier_is_opened_with_everything_it_says(classifier: Path) -> None:
    found = open_predictor(str(classifier), CPU)
    assert (found.name, found.kind, found.preprocessing, found.class_names) == (str(classifier), "classifier", OURS, ("a", "b", "c"))
    assert (found.num_classes, found.model_bytes, found.digest) == (3, classifier.stat().st_size, sha256_of(classifier))
    assert found.module is not None and isinstance(found.module(), Classifier)
    assert found.open(1).infer(np.zeros((2, 8, 8, 1), np.uint8)).shape == (2, 3)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (AskedPreprocessing(mean=(0.286,)), "--mean 0.286 is asked for, but its file says 0.25; drop --mean"),
        (AskedPreprocessing(std=(0.5, 0.5, 0.5)), "--std 0.5,0.5,0.5 is asked for, but its file says 0.5; drop --std"),
        (AskedPreprocessing(image_px=16), "--image-px 16 is asked for, but its file says 8; drop --image-px"),
        (AskedPreprocessing(resize_px=8), "--resize-px 8 is asked for, but its file says 10; drop --resize-px"),
        (
            AskedPreprocessing(interpolation="bicubic"),
            "--interpolation bicubic is asked for, but its file says bilinear; drop --interpolation",
        ),
    ],
    ids=lambda value: "" if isinstance(value, str) else None,
)
def test_what_contradicts_the_model_is_refused_and_what_repeats_it_is_not(
    classifier: Path, asked: AskedPreprocessing, message: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"{classifier}: {message}: how images are prepared belongs to the model")):
        open_predictor(classifier, CPU, asked)
    same = AskedPreprocessing((0.25,), (0.5,), 8, 10, "bilinear")
    assert open_predictor(classifier, CPU, same).preprocessing == OURS


def test_a_foreign_file_is_completed_by_what_is_asked_for(foreign: Callable[..., Path]) -> None:
    found = open_predictor(foreign(), CPU, FULL)
    assert found.preprocessing == Preprocessing(6, 8, 3, (0.5,) * 3, (0.25,) * 3, "bicubic")
    assert (found.kind, found.class_names, found.num_classes, found.num_parameters, found.module) == ("onnx", None, 4, 12, None)
    assert found.open(1).infer(np.zeros((2, 6, 6, 3), np.uint8)).shape == (2, 4)
    with pytest.raises(UserError, match="--image-px 7 is asked for, but its input says 6; drop --image-px"):
        open_predictor(foreign(), CPU, AskedPreprocessing(FULL.mean, FULL.std, 7, 8, "bicubic"))


def test_what_nobody_says_is_named_with_its_options_and_not_guessed(foreign: Callable[..., Path]) -> None:
    path = foreign(shape=("n", 3, "h", "w"))
    with pytest.raises(UserError) as caught:
        open_predictor(path, CPU, AskedPreprocessing(mean=(0.5, 0.5, 0.5), interpolation="bicubic"))
    assert str(caught.value) == (
        f"{path}: nothing says its image_px, resize_px, std, and they are not guessed; give --image-px --resize-px --std, "
        f'or write them into {path.with_suffix(".json")} as {{"preprocessing": {{...}}}}'
    )


@pytest.mark.parametrize("asked", [(0.5,), (0.5, 0.5)])
def test_values_for_another_number_of_channels_are_refused(foreign: Callable[..., Path], asked: tuple[float, ...]) -> None:
    with pytest.raises(UserError, match=r"foreign.onnx: preprocessing: mean is .*; it must hold 3 finite numbers, one per channel"):
        open_predictor(foreign(), CPU, AskedPreprocessing(asked, FULL.std, 6, 6, "bicubic"))


def test_a_file_beside_it_says_what_the_model_does_not(foreign: Callable[..., Path]) -> None:
    path = foreign(two=True)
    with pytest.raises(UserError, match=r'several outputs that may be logits; .* as "output" in .*foreign.json'):
        open_predictor(path, CPU, FULL)
    told = {
        "preprocessing": {"mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25], "resize_px": 8, "interpolation": "bicubic"},
        "class_names": ["p", "q", "r", "s"],
        "output": "scores",
        "sha256": sha256_of(path),
    }
    path.with_suffix(".json").write_text(json.dumps(told))
    found = open_predictor(path, CPU)
    assert (found.preprocessing.resize_px, found.class_names) == (8, ("p", "q", "r", "s"))
    with pytest.raises(UserError, match=r"--mean 0.4,0.4,0.4 is asked for, but .*foreign.json says 0.5,0.5,0.5; drop --mean"):
        open_predictor(path, CPU, AskedPreprocessing(mean=(0.4, 0.4, 0.4)))


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"preprocesing": {}}, "foreign.json: holds preprocesing; a file beside foreign.onnx describes it with some of preprocessing"),
        ({"preprocessing": {"crop": 1}}, "wanted a JSON object with some of image_px"),
        ({"preprocessing": 3}, "wanted a JSON object"),
        ({"preprocessing": {"image_px": 7}}, "its input says image_px 6, and .*foreign.json says 7; correct one of them"),
        ({"preprocessing": {"resize_px": "8"}}, "resize_px is '8'; it must be a whole number"),
        ({"class_names": ["p"]}, "gives 4 logits, but 1 class names are stored with it"),
        ({"class_names": "pqrs"}, "class_names is 'pqrs'; it must be a list of texts"),
        ({"layout": "CHWN"}, "layout is 'CHWN'; it must be NCHW or NHWC"),
        ({"output": 3}, "output is 3; it must be a text"),
        ({"sha256": "ab"}, "describes a model of sha256 ab, and the one beside it has"),
        ([], "holds list"),
        ("{", "cannot be read as JSON"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_a_file_beside_it_that_is_wrong_is_refused(foreign: Callable[..., Path], told: Any, message: str) -> None:
    path = foreign()
    path.with_suffix(".json").write_text(told if isinstance(told, str) else json.dumps(told))
    asked = AskedPreprocessing(FULL.mean, FULL.std, interpolation="bicubic") if "resize_px" in str(told) else FULL
    with pytest.raises(UserError, match=message):
        open_predictor(path, CPU, asked)


def test_metadata_is_believed_and_damaged_metadata_is_refused(foreign: Callable[..., Path]) -> None:
    pre = Preprocessing(6, 6, 3, (0.5,) * 3, (0.25,) * 3)
    good = foreign("good.onnx", preprocessing=json.dumps(pre.to_dict()), class_names='["p","q","r","s"]')
    assert open_predictor(good, CPU).preprocessing == pre
    other = pre.to_dict() | {"image_px": 5, "resize_px": 5}
    for name, metadata, message in (
        ("text.onnx", {"preprocessing": "resize and crop"}, "wanted a JSON object"),
        ("other.onnx", {"preprocessing": json.dumps(other)}, "its metadata says image_px 5, and its input says 6"),
        ("names.onnx", {"class_names": "{}"}, "wanted a JSON list of texts"),
    ):
        with pytest.raises(UserError, match=message):
            open_predictor(foreign(name, **metadata), CPU, FULL)


def test_probabilities_are_told_from_logits_by_what_made_them(foreign: Callable[..., Path]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 6, 6, 3), dtype=np.uint8)
    logits, logs = (open_predictor(foreign(last=last), CPU, FULL).open(1).infer(pixels) for last in ("Identity", "Softmax"))
    shift = logits - logs
    np.testing.assert_allclose(shift, shift[:, :1].repeat(4, 1), atol=1e-5)
    with pytest.raises(UserError, match="'scores' comes out of a Sigmoid"):
        open_predictor(foreign(last="Sigmoid"), CPU, FULL)


def test_weights_that_lie_beside_an_onnx_file_count_and_must_be_there(foreign: Callable[..., Path]) -> None:
    path = foreign()
    alone = open_predictor(path, CPU, FULL)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="weights.bin", size_threshold=60)
    beside = path.parent / "weights.bin"
    first = open_predictor(path, CPU, FULL)
    assert first.model_bytes > path.stat().st_size and first.digest != alone.digest
    beside.write_bytes(bytes([beside.read_bytes()[0] ^ 1]) + beside.read_bytes()[1:])
    assert open_predictor(path, CPU, FULL).digest != first.digest
    beside.unlink()
    with pytest.raises(UserError, match=r"its weights lie in .*weights.bin, which is not there"):
        open_predictor(path, CPU, FULL)


@pytest.fixture
def timm_weights(tmp_path: Path) -> dict[str, torch.Tensor]:
    return timm.create_model(TIMM).state_dict()


@pytest.mark.parametrize("prefix", ["", "timm:"])
@pytest.mark.parametrize("ending", [".safetensors", ".pth"])
def test_a_timm_name_with_a_file_of_weights(tmp_path: Path, timm_weights: dict[str, torch.Tensor], prefix: str, ending: str) -> None:
    file = tmp_path / f"w{ending}"
    save_file(timm_weights, file) if ending == ".safetensors" else torch.save(timm_weights, file)
    found = open_predictor(f"{prefix}{TIMM}@{file}", CPU)
    config = timm.get_pretrained_cfg(TIMM)
    assert config is not None
    assert (found.kind, found.digest, found.model_bytes) == ("timm", sha256_of(file), file.stat().st_size)
    assert found.preprocessing == Preprocessing(SIZE, int(SIZE / config.crop_pct), 3, tuple(config.mean), tuple(config.std), "bicubic")
    assert found.class_names is not None and found.class_names[:2] == ("n01440764", "n01443537") and found.num_classes == 1000
    assert found.module is not None
    inputs = torch.zeros(1, 3, SIZE, SIZE)
    reference = timm.create_model(TIMM).eval()
    reference.load_state_dict(timm_weights)
    with torch.inference_mode():
        np.testing.assert_array_equal(found.module()(inputs), reference(inputs))


def test_weights_that_do_not_fit_a_timm_model_are_named(tmp_path: Path, timm_weights: dict[str, torch.Tensor]) -> None:
    file = tmp_path / "w.pth"
    other = dict(timm_weights) | {"head.bias": torch.zeros(7)}
    torch.save(other, file)
    with pytest.raises(UserError, match=r"head\.bias has shape \[7\] in place of \[1000\]"):
        open_predictor(f"{TIMM}@{file}", CPU)
    other["more"] = other.pop("head.bias")
    torch.save(other, file)
    with pytest.raises(UserError, match=r"missing head\.bias; unknown more"):
        open_predictor(f"{TIMM}@{file}", CPU)
    with pytest.raises(UserError, match="there is no weight file"):
        open_predictor(f"{TIMM}@{tmp_path / 'absent.pth'}", CPU)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet50@{file}", r"several weights of this name, whose images are prepared differently \(resnet50.a1_in1k"),
        ("resnet18.nosuch@{file}", r"timm refuses it \(Invalid pretrained tag"),
        ("timm:nosuch", "knows no model nosuch"),
        ("vit_small_patch14_dinov2.lvd142m@{file}", "gives features and no logits"),
    ],
)
def test_timm_names_that_cannot_be_scored_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.setattr("g2sd_deploy.predictors.timm_models._fill", lambda *_: None)  # tells nothing about the weights
    (tmp_path / "w.pth").touch()
    with pytest.raises(UserError, match=message):
        open_predictor(name.format(file=tmp_path / "w.pth"), CPU)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"crop_mode": "squash"}, "timm prepares its images by squash"),
        ({"input_size": (3, 160, 128)}, "takes images of 128 x 160 pixels"),
        ({"interpolation": "lanczos"}, "interpolation is 'lanczos'; it must be bicubic or bilinear"),
    ],
)
def test_what_timm_does_that_we_do_not_is_refused(monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str) -> None:
    model = timm.create_model(TIMM)
    model.pretrained_cfg = {**model.pretrained_cfg, **changes}
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: model)
    with pytest.raises(UserError, match=message):
        open_predictor(TIMM, CPU)


def test_sizes_for_testing_are_timms_own(monkeypatch: pytest.MonkeyPatch) -> None:
    model = timm.create_model(TIMM)
    model.pretrained_cfg = {**model.pretrained_cfg, "crop_pct": 0.9, "test_input_size": (3, 192, 192), "test_crop_pct": 0.94}
    monkeypatch.setattr(timm, "create_model", lambda *_, **__: model)
    found = open_predictor(TIMM, CPU)
    assert (found.preprocessing.image_px, found.preprocessing.resize_px) == (192, 204)  # 192 / 0.94 = 204.3
    assert found.digest == digest_of_weights(model.state_dict())


def test_a_hub_out_of_reach_is_one_clear_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreachable(*_: Any, **__: Any) -> None:
        raise FileNotFoundError("cannot find the file on the Hub\nand much more")

    monkeypatch.setattr(timm, "create_model", unreachable)
    with pytest.raises(UserError) as caught:
        open_predictor(TIMM, CPU)
    assert "cannot be fetched from the hub (FileNotFoundError: cannot find the file on the Hub)" in str(caught.value)
    assert "\n" not in str(caught.value) and f"{TIMM}@FILE" in str(caught.value)


def test_a_digest_of_weights_changes_with_names_values_and_shapes_alone() -> None:
    one = {"a": torch.arange(6.0), "b": torch.tensor(3)}
    assert digest_of_weights(one) == digest_of_weights(dict(reversed(one.items())))
    others = [
        {"c": one["a"], "b": one["b"]},
        {**one, "b": torch.tensor(4)},
        {**one, "a": one["a"].reshape(2, 3)},
        {**one, "a": one["a"].half()},
    ]
    assert len({digest_of_weights(other) for other in [one, *others]}) == 5


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("runs/absent.onnx", "runs/absent.onnx: there is no such model; give a classifier"),
        ("resnet5O", "there is no such model; did you mean resnet50"),
        ("absent.safetensors", "there is no such model; give"),
    ],
)
def test_names_of_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        open_predictor(name, CPU)


def test_files_and_folders_of_no_known_kind_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "bad.onnx").write_bytes(b"\x00noise")
    (tmp_path / "empty.onnx").touch()
    for name, message in (
        ("notes.txt", "is a file of no known kind"),
        ("bad.onnx", "is no whole ONNX file"),
        ("empty.onnx", "is no whole ONNX file"),
        ("", "holds neither classifier.safetensors nor a bundle's manifest.json"),
    ):
        with pytest.raises(UserError, match=message):
            open_predictor(tmp_path / name, CPU, FULL)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine of 6 px and 4 classes, opened by a stand-in."""

    class Opened:
        image, num_classes = ImageInput("in", "NCHW", None, 3, 6), 4

        def __init__(self, *_: Any) -> None: ...

        def runner(self, pre: Preprocessing) -> Preprocessing:
            return pre

    monkeypatch.setattr(tensorrt_runner, "Engine", Opened)
    (tmp_path / "model.plan").write_bytes(b"engine")
    return tmp_path / "model.plan"


def test_an_engine_is_described_beside_it_or_on_the_command_line(engine: Path) -> None:
    with pytest.raises(UserError, match="nothing says its resize_px, mean, std, interpolation, and they are not guessed"):
        open_predictor(engine, CPU)
    found = open_predictor(engine, CPU, FULL)
    assert (found.kind, found.digest, found.class_names, found.num_classes) == ("engine", sha256_of(engine), None, 4)
    assert found.preprocessing.image_px == 6 and found.open(None) == found.preprocessing
    engine.with_suffix(".json").write_text(
        json.dumps({"preprocessing": found.preprocessing.to_dict(), "class_names": ["p", "q", "r", "s"]})
    )
    assert open_predictor(engine, CPU).class_names == ("p", "q", "r", "s")
    with pytest.raises(UserError, match="--image-px 8 is asked for, but its input says 6"):
        open_predictor(engine, CPU, AskedPreprocessing(image_px=8))


@pytest.mark.parametrize("ending", ["engine", "plan", "trt"])
def test_an_engine_without_tensorrt_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    monkeypatch.setattr(tensorrt_runner, "_optional", lambda _: None)
    (tmp_path / f"model.{ending}").touch()
    with pytest.raises(UserError, match=r"TensorRT cannot be imported; .* pip install tensorrt"):
        open_predictor(tmp_path / f"model.{ending}", CPU)
