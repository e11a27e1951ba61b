"""Whatever a recipe may name as a teacher is opened as what it is wanted as, or refused in one line that says what to do."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from g2sd_deploy.artifact import Identity, Made, commit, unfinished_folder
from g2sd_deploy.errors import UserError
from g2sd_deploy.models.checkpoint import ClassifierFile, save_classifier, save_encoder, save_generic, save_masked
from g2sd_deploy.models.masked import DecoderSpec, GenericStudent, MaskedAutoencoder
from g2sd_deploy.models.vit import Classifier, Encoder, EncoderSpec
from g2sd_deploy.zoo import opening
from g2sd_deploy.zoo.bundled import FASHION_MNIST, SCENES
from g2sd_deploy.zoo.opening import Hints, fingerprint_of, imagenet_classes, imagenet_preprocessing, open_file, open_teacher, path_of
from g2sd_deploy.zoo.roles import Role

SPEC = EncoderSpec(8, 4, 3, 16, 2, 4)
DECODER = DecoderSpec(8, 1, 2)
ROLES: tuple[Role, ...] = ("masked", "encoder", "classifier")


def no_tick(done: int, total: int | None) -> None:
    return


def open_as(reference: object, role: Role) -> opening.Opened:
    return open_teacher(str(reference), role, tick=no_tick)


def a_classifier(classes: int = 3) -> ClassifierFile:
    names = tuple(f"c{i}" for i in range(classes))
    return ClassifierFile(Classifier(SPEC, classes, pooling="mean"), imagenet_preprocessing(8), names)


@pytest.fixture
def ours(tmp_path: Path) -> dict[str, Path]:
    """One file of each kind of ours."""
    paths = {kind: tmp_path / f"{kind}.safetensors" for kind in ("encoder", "masked", "generic", "classifier")}
    save_encoder(paths["encoder"], Encoder(SPEC))
    save_masked(paths["masked"], MaskedAutoencoder(SPEC, DECODER))
    save_generic(paths["generic"], GenericStudent(SPEC, DECODER, 12))
    save_classifier(paths["classifier"], a_classifier())
    return paths


@pytest.mark.parametrize(
    ("kind", "fits"),
    [
        ("encoder", {"encoder"}),
        ("masked", {"masked", "encoder"}),
        ("generic", {"encoder"}),
        ("classifier", {"classifier", "encoder"}),
    ],
)
def test_a_file_of_ours_plays_the_roles_that_it_can_and_no_other(ours: dict[str, Path], kind: str, fits: set[str]) -> None:
    for role in ROLES:
        if role in fits:
            opened = open_as(ours[kind], role)
            assert opened.kind == role and opened.own is (role == kind)
        else:
            with pytest.raises(UserError, match=rf"{kind}\.safetensors: holds "):
                open_as(ours[kind], role)


def test_an_encoder_as_teacher_of_g2sd_is_refused_with_the_name_of_the_file_to_pull(encoder_of_base: Path) -> None:
    """The trap of G2SD issue 7: the file of the authors of MAE that everybody finds first has no decoder."""
    with pytest.raises(UserError, match=r"holds an encoder without decoder.*stays near 0\.2.*pull mae_pretrain_full_vit_base") as caught:
        open_as(encoder_of_base, "masked")
    assert "teacher.encoder" in str(caught.value) and "\n" not in str(caught.value)
    assert open_as(encoder_of_base, "encoder").kind == "encoder"


def test_the_same_trap_in_the_catalogue_is_refused_before_anything_is_pulled() -> None:
    for use in (lambda name: open_as(name, "masked"), lambda name: fingerprint_of(name, "masked")):
        for name, instead in (
            ("mae_pretrain_vit_base", "mae_pretrain_full_vit_base"),
            ("timm_vit_large_patch16_224_mae", "mae_pretrain_full_vit_large"),
            ("mae_finetuned_vit_huge", "mae_pretrain_full_vit_huge"),
        ):
            with pytest.raises(UserError, match=rf"^teacher\.masked is {name}: holds .* without decoder.*pull {instead} and"):
                use(name)
    with pytest.raises(UserError, match=r"^teacher\.classifier is mae_pretrain_full_vit_base: .* no classifier's head"):
        fingerprint_of("mae_pretrain_full_vit_base", "classifier")


def test_a_name_of_the_catalogue_is_pulled_and_opened_with_what_the_catalogue_knows(
    make_teacher: Any, server: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = make_teacher()
    monkeypatch.setattr(opening, "teachers", lambda: {"tiny": teacher})
    monkeypatch.setattr(opening, "find_teacher", lambda name: teacher)
    monkeypatch.setenv("G2SD_CACHE", str(tmp_path / "cache"))
    opened = open_as("tiny", "masked")
    assert isinstance(opened.model, MaskedAutoencoder) and opened.model.encoder.spec == SPEC and opened.model.decoder.spec == DECODER
    assert (opened.licence, opened.notes, opened.preprocessing) == ("MIT", (), teacher.preprocessing)
    assert opened.path == tmp_path / "cache" / "tiny" / "weights.pth"
    assert open_as("tiny", "encoder").kind == "encoder" and len(server.ranges) == 1
    assert fingerprint_of("tiny", "masked") == teacher.digest


def test_a_path_may_hold_variables_and_a_home(tmp_path: Path, ours: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEACHERS", str(tmp_path))
    assert open_as("$TEACHERS/masked.safetensors", "masked").path == ours["masked"]


def test_what_is_neither_name_nor_path_is_answered_with_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"teacher\.masked is mae_pretrain_vit_base_full\.pth: .*did you mean mae_pretrain_full_vit_base\?"):
        open_as("mae_pretrain_vit_base_full.pth", "masked")
    with pytest.raises(UserError, match=r"teacher\.encoder is nowhere/qqq: .*`g2sd teacher list`"):
        open_as("nowhere/qqq", "encoder")


def finished_stage(folder: Path, files: dict[str, Path], failure: str = "") -> Path:
    with unfinished_folder(folder) as writing:
        for name, source in files.items():
            (writing / name).write_bytes(source.read_bytes())
        made = Made({"final_loss": 1.0}, failure=failure)
        commit(writing, folder, Identity("generic", {}, {}, "1"), made, tools={}, environment={}, seconds=0.0)
    return folder


@pytest.mark.parametrize(
    ("kind", "role"), [("generic", "encoder"), ("encoder", "encoder"), ("masked", "masked"), ("classifier", "classifier")]
)
def test_the_folder_of_a_finished_stage_is_a_teacher(tmp_path: Path, ours: dict[str, Path], kind: str, role: Role) -> None:
    """Sequential distillation: a finished student teaches the next."""
    folder = finished_stage(tmp_path / "run" / "generic", {f"{kind}.safetensors": ours[kind]})
    assert open_as(folder, role).kind == role
    before = fingerprint_of(str(folder), role)
    finished_stage(folder, {"masked.safetensors": ours["masked"], "x": ours["encoder"]})
    assert fingerprint_of(str(folder), role) != before


def test_a_stage_that_is_unfinished_failed_changed_or_of_another_kind_is_refused(tmp_path: Path, ours: dict[str, Path]) -> None:
    (tmp_path / "empty").mkdir()
    assert fingerprint_of(str(tmp_path / "empty"), "encoder") == "missing"
    with pytest.raises(UserError, match="no stage finished there; give the folder of one"):
        open_as(tmp_path / "empty", "encoder")
    with pytest.raises(UserError, match=r"that stage failed \(it diverged\)"):
        open_as(finished_stage(tmp_path / "failed", {"masked.safetensors": ours["masked"]}, "it diverged"), "masked")
    with pytest.raises(UserError, match=r"made no model \(notes\.txt\)"):
        open_as(finished_stage(tmp_path / "data", {"notes.txt": ours["masked"]}), "masked")
    with pytest.raises(UserError, match="holds a student of G2SD, whose decoder predicts features and no pixels"):
        open_as(finished_stage(tmp_path / "student", {"generic.safetensors": ours["generic"]}), "masked")
    changed = finished_stage(tmp_path / "changed", {"masked.safetensors": ours["masked"]})
    with (changed / "masked.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(UserError, match="changed or cut off"):
        open_as(changed, "masked")


def test_the_bundled_teacher_plays_every_role() -> None:
    assert {open_as(FASHION_MNIST, role).kind for role in ROLES} == set(ROLES)


def test_the_bundled_teacher_of_scenes_has_a_decoder_and_no_classifier() -> None:
    assert (open_as(SCENES, "masked").kind, open_as(SCENES, "encoder").kind) == ("masked", "encoder")
    with pytest.raises(UserError, match="has masked, segmenter, detector of it and no classifier; bundled:fashion-mnist has one"):
        path_of(SCENES, "classifier")


def test_the_fingerprint_of_a_file_is_its_hash_and_follows_it(ours: dict[str, Path]) -> None:
    opened = open_as(ours["masked"], "masked")
    assert fingerprint_of(str(ours["masked"]), "masked") == opened.sha256
    ours["masked"].write_bytes(ours["encoder"].read_bytes())
    assert fingerprint_of(str(ours["masked"]), "masked") == open_as(ours["masked"], "encoder").sha256 != opened.sha256
    assert fingerprint_of("/nowhere/at/all", "masked") == "missing"


def test_a_foreign_classifier_of_a_thousand_classes_is_of_imagenet_and_others_have_to_be_named(tmp_path: Path) -> None:
    path = tmp_path / "x.pth"
    state = {name.removeprefix("encoder."): value for name, value in Classifier(SPEC, 1000, pooling="cls").state_dict().items()}
    torch.save({"model": state}, path)
    opened = open_file(path, Hints(heads=4))
    assert opened.class_names == imagenet_classes() and opened.class_names[0] == "n01440764" and opened.class_names[999] == "n15075141"
    assert opened.preprocessing == imagenet_preprocessing(8)
    assert opened.notes == ("ImageNet's mean and standard deviation assumed; a file does not say",)
    state |= {name: state[name][:7] for name in ("head.weight", "head.bias")}
    torch.save({"model": state}, path)
    with pytest.raises(UserError, match=r"tells 7 classes apart and does not say which; .*--classes NAMES\.txt"):
        open_file(path, Hints(heads=4))
    with pytest.raises(UserError, match="tells 7 classes apart, but 2 names were given"):
        open_file(path, Hints(heads=4, class_names=("a", "b")))


def test_a_conversion_that_fails_names_the_file(tmp_path: Path) -> None:
    save_file({"conv1.weight": torch.zeros(3)}, tmp_path / "resnet.safetensors")
    with pytest.raises(UserError, match=r"resnet\.safetensors: the weights patch_embed\.proj\.weight are missing"):
        open_as(tmp_path / "resnet.safetensors", "encoder")


def test_a_file_of_ours_with_a_damaged_description_is_refused(tmp_path: Path) -> None:
    for described, message in (("{", "description of the model is damaged"), ('{"kind": "diffuser"}', "which this version does not know")):
        save_file({"x": torch.zeros(3)}, tmp_path / "x.safetensors", metadata={"g2sd_deploy": described})
        with pytest.raises(UserError, match=message):
            open_as(tmp_path / "x.safetensors", "encoder")
