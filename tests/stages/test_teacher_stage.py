"""The teacher stage: what the recipe names becomes files that the other stages read, or one line that says why not."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch

from g2sd_deploy.artifact import Artifact, Made, sha256_of
from g2sd_deploy.data.images import ImageSet
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import (
    ClassifierFile,
    load_classifier,
    load_encoder,
    load_masked,
    save_classifier,
    save_encoder,
    save_masked,
)
from g2sd_deploy.models.masked import DecoderSpec, MaskedAutoencoder
from g2sd_deploy.models.position import resize_positions
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec
from g2sd_deploy.progress import SilentProgress
from g2sd_deploy.runtime import Runtime
from g2sd_deploy.settings import Recipe, TeacherSettings
from g2sd_deploy.stages import teacher
from g2sd_deploy.stages.context import Context, Dataset
from g2sd_deploy.stages.teacher import fingerprint, references
from g2sd_deploy.zoo.bundled import FASHION_MNIST
from g2sd_deploy.zoo.opening import imagenet_classes, imagenet_preprocessing, path_of
from g2sd_deploy.zoo.roles import Role
from g2sd_export.edge.preprocess import Preprocessing

SPEC = EncoderSpec(8, 4, 3, 16, 2, 4)
PREPROCESSING = imagenet_preprocessing(8)
CLASSES = ("a", "b", "c")
BOTH = TeacherSettings(masked=FASHION_MNIST, classifier=FASHION_MNIST)

RunStage = Callable[..., tuple[Made, Path]]


@pytest.fixture
def run_stage(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunStage:
    """Run the teacher stage on data of these classes and this preprocessing; returns its figures and its folder."""

    def run(
        settings: TeacherSettings, classes: tuple[str, ...] = CLASSES, preprocessing: Preprocessing = PREPROCESSING
    ) -> tuple[Made, Path]:
        side, channels = preprocessing.image_px, preprocessing.num_channels
        empty = ImageSet(np.empty((0, side, side, channels), np.uint8), np.empty(0, np.int64))
        monkeypatch.setattr(teacher, "open_dataset", lambda _: Dataset(empty, empty, preprocessing, classes))
        changed = recipe.model_copy(update={"teacher": settings, "pretrain": None, "finetune": None})
        folder = tmp_path / "artifact"
        folder.mkdir(exist_ok=True)
        context = Context(changed, "teacher", {"data": Mock()}, folder, tmp_path, Runtime(torch.device("cpu")), SilentProgress(), "key")
        return teacher.run(context), folder

    return run


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    """Files of ours for 8 px images of three classes."""
    paths = {role: str(tmp_path / f"{role}.safetensors") for role in ("masked", "encoder", "classifier")}
    save_masked(Path(paths["masked"]), MaskedAutoencoder(SPEC, DecoderSpec(8, 1, 2)))
    save_encoder(Path(paths["encoder"]), Encoder(SPEC))
    model = Classifier(SPEC, 3, pooling="mean")
    torch.nn.init.normal_(model.head.weight)
    save_classifier(Path(paths["classifier"]), ClassifierFile(model, PREPROCESSING, CLASSES))
    return paths


def test_the_bundled_teacher_is_taken_in_unchanged(run_stage: RunStage) -> None:
    taught = load_classifier(path_of(FASHION_MNIST, "classifier"))
    made, folder = run_stage(BOTH, taught.class_names, taught.preprocessing)
    assert {path.name: sha256_of(path) for path in folder.iterdir()} == fingerprint(BOTH)
    assert made.metrics["source"] == FASHION_MNIST
    assert made.metrics["num_parameters"] > made.metrics["classifier_parameters"] > 0


def test_each_role_that_is_named_and_no_other_leaves_a_file(run_stage: RunStage, files: dict[str, str]) -> None:
    for named in ({"masked"}, {"encoder"}, {"classifier"}, {"encoder", "classifier"}):
        made, folder = run_stage(TeacherSettings.model_validate({role: files[role] for role in named}))
        assert {path.name for path in folder.iterdir()} == {f"{role}.safetensors" for role in named}
        assert made.metrics["parts"].keys() == named and made.metrics["num_parameters"] > 0
        assert ("classifier_parameters" in made.metrics) is ("classifier" in named)
        for path in folder.iterdir():
            assert sha256_of(path) == made.metrics["parts"][path.stem]["sha256"]
            path.unlink()


def test_an_encoder_is_taken_out_of_whatever_holds_one(run_stage: RunStage, files: dict[str, str]) -> None:
    for role, load in (("masked", load_masked), ("classifier", lambda path: load_classifier(path).model)):
        _, folder = run_stage(TeacherSettings(encoder=files[role]))
        taken, whole = load_encoder(folder / "encoder.safetensors"), load(Path(files[role]))
        assert all(torch.equal(value, whole.encoder.state_dict()[name]) for name, value in taken.state_dict().items())


def foreign(path: Path, model: Classifier) -> str:
    torch.save({"model": {name.removeprefix("encoder."): value for name, value in model.state_dict().items()}, "epoch": 3}, path)
    return str(path)


def test_a_foreign_file_is_converted_and_the_figures_say_what_was_done(run_stage: RunStage, tmp_path: Path) -> None:
    spec = replace(SPEC, width=192, heads=3)
    source = foreign(tmp_path / "vit.pth", Classifier(spec, 1000, pooling="cls"))
    made, folder = run_stage(TeacherSettings(classifier=source), imagenet_classes())
    part = made.metrics["parts"]["classifier"]
    assert (part["dropped_keys"], part["file"], part["sha256"]) == (1, "vit.pth", sha256_of(Path(source)))
    assert part["description"] == "ViT classifier, cls pooling" and part["classes_used"] == 1000
    assert any("3 heads assumed" in warning for warning in made.metrics["warnings"])
    assert load_classifier(folder / "classifier.safetensors").preprocessing == PREPROCESSING


def test_a_teacher_of_imagenet_is_restricted_to_the_classes_of_the_data_exactly(run_stage: RunStage, tmp_path: Path) -> None:
    model = Classifier(replace(SPEC, width=192, heads=3), 1000, pooling="cls").eval()
    torch.nn.init.normal_(model.head.weight)
    names = (imagenet_classes()[217], imagenet_classes()[0])  # two of Imagenette's
    made, folder = run_stage(TeacherSettings(classifier=foreign(tmp_path / "vit.pth", model)), names)
    file, images = load_classifier(folder / "classifier.safetensors"), torch.randn(2, 3, 8, 8)
    assert file.class_names == names
    torch.testing.assert_close(file.model(images), model(images)[:, [217, 0]])
    part = made.metrics["parts"]["classifier"]
    assert (part["classes_of_file"], part["classes_used"]) == (1000, 2)


def test_classes_that_the_teacher_does_not_know_are_refused(run_stage: RunStage, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"tells 3 classes apart \(a, b, c, ...\), the data has 2 \(b, z, ...\), and 1 of them \(z, ...\)"):
        run_stage(TeacherSettings(classifier=files["classifier"]), ("b", "z"))


def test_another_image_size_is_refused_with_the_setting_that_allows_it(run_stage: RunStage, files: dict[str, str]) -> None:
    large = replace(PREPROCESSING, image_px=16, resize_px=20)
    for role in ("masked", "encoder", "classifier"):
        with pytest.raises(
            UserError, match=rf"teacher\.{role} was trained on .* of 8 px, data\.image_px is 16; .*teacher\.resize_positions"
        ):
            run_stage(TeacherSettings.model_validate({role: files[role]}), preprocessing=large)


def test_with_leave_positions_are_fitted_to_the_data(run_stage: RunStage, files: dict[str, str]) -> None:
    large = replace(PREPROCESSING, image_px=16, resize_px=20)
    made, folder = run_stage(TeacherSettings.model_validate({**files, "resize_positions": True}), preprocessing=large)
    before, after = load_masked(Path(files["masked"])), load_masked(folder / "masked.safetensors")
    assert after.encoder.spec == replace(SPEC, image_px=16)
    assert torch.equal(after.encoder.pos_embed, resize_positions(before.encoder.pos_embed, 4))
    assert load_classifier(folder / "classifier.safetensors").preprocessing == large
    assert made.metrics["parts"]["masked"]["trained_px"] == 8
    with pytest.raises(UserError, match="patches of 4 px do not divide images of 18 px"):
        run_stage(TeacherSettings(masked=files["masked"], resize_positions=True), preprocessing=replace(large, image_px=18))


def test_other_normalisation_is_refused_where_it_is_known(run_stage: RunStage, files: dict[str, str]) -> None:
    for change in ({"mean": (0.5,) * 3}, {"std": (0.5,) * 3}, {"resize_px": 8}):
        with pytest.raises(UserError, match=r"normalisation and size belong to the model, so make data\.mean"):
            run_stage(TeacherSettings(classifier=files["classifier"]), preprocessing=replace(PREPROCESSING, **change))
    run_stage(TeacherSettings(masked=files["masked"]), preprocessing=replace(PREPROCESSING, mean=(0.5,) * 3))  # nobody knows it


def test_other_channels_are_refused(run_stage: RunStage, files: dict[str, str]) -> None:
    grey = Preprocessing(8, 9, 1, (0.5,), (0.5,))
    with pytest.raises(UserError, match=r"teacher\.masked sees images of 3 channels, data\.num_channels is 1"):
        run_stage(TeacherSettings(masked=files["masked"]), preprocessing=grey)


def test_an_encoder_as_masked_teacher_is_refused(run_stage: RunStage, files: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"encoder\.safetensors: holds an encoder without decoder, .* so it is refused"):
        run_stage(TeacherSettings(masked=files["encoder"]))
    with pytest.raises(UserError, match=r"teacher\.masked is mae_pretrain_vit_base: .*pull mae_pretrain_full_vit_base"):
        run_stage(TeacherSettings(masked="mae_pretrain_vit_base"))


def test_a_wrong_entry_of_the_catalogue_is_refused_when_the_run_is_planned() -> None:
    with pytest.raises(UserError, match="pull mae_pretrain_full_vit_base"):
        fingerprint(TeacherSettings(masked="mae_pretrain_vit_base"))
    assert fingerprint(TeacherSettings(masked="mae_pretrain_full_vit_base")).keys() == {"masked.safetensors"}


@pytest.mark.parametrize(
    ("stage", "role"), [("pretrain", "masked"), ("finetune", "classifier"), ("specific", "classifier"), ("generic", "encoder")]
)
def test_a_finished_stage_of_another_run_is_a_teacher(
    run_stage: RunStage, artifact_of: Callable[[str], Artifact], tiny_run: Path, stage: str, role: Role
) -> None:
    taught = load_classifier(artifact_of("finetune").file("classifier.safetensors"))
    settings = TeacherSettings.model_validate({role: str(tiny_run / stage)})
    _, folder = run_stage(settings, taught.class_names, taught.preprocessing)
    assert [path.name for path in folder.iterdir()] == [f"{role}.safetensors"]
    assert fingerprint(settings) == {f"{role}.safetensors": artifact_of(stage).digest}


def test_a_teachers_path_may_hold_variables(tmp_path: Path, files: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHERS", str(tmp_path))
    settings = TeacherSettings(masked="$TEACHERS/masked.safetensors", classifier="$TEACHERS/none.safetensors")
    assert list(references(settings)) == ["masked", "classifier"]
    assert fingerprint(settings) == {"masked.safetensors": sha256_of(Path(files["masked"])), "classifier.safetensors": "missing"}


def test_a_catalogue_teacher_is_pulled_with_progress_and_its_normalisation_is_compared(
    run_stage: RunStage, files: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from g2sd_deploy.zoo.opening import Hints, open_file

    def opened(reference: str, role: Role, *, tick: Any) -> Any:
        tick(1 << 20, 2 << 20)
        return open_file(Path(files["masked"]), Hints())

    def with_preprocessing(*args: Any, **kwargs: Any) -> Any:
        return replace(opened(*args, **kwargs), preprocessing=PREPROCESSING, licence="MIT")

    monkeypatch.setattr(teacher, "open_teacher", with_preprocessing)
    made, _ = run_stage(TeacherSettings(masked="some_name"), preprocessing=replace(PREPROCESSING, resize_px=8))  # crops are random anyway
    assert made.metrics["parts"]["masked"]["licence"] == "MIT"
    with pytest.raises(UserError, match=r"teacher\.masked was trained with .*, the recipe's data asks for"):
        run_stage(TeacherSettings(masked="some_name"), preprocessing=replace(PREPROCESSING, mean=(0.5,) * 3))
