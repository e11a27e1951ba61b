"""The catalogue says only what is known, and its shapes are those of the papers."""

import pytest
from pydantic import ValidationError

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.catalog import CATALOGUE, Listed, find_teacher, full_file_of, nearest_name, teachers

# Published parameter counts in millions: encoder alone, with MAE's decoder, fine-tuned on 1000 classes.
PUBLISHED = {
    "mae_pretrain_vit_base": 85.80,
    "mae_pretrain_vit_large": 303.30,
    "mae_pretrain_full_vit_base": 111.91,
    "mae_finetuned_vit_base": 86.57,
    "mae_finetuned_vit_large": 304.33,
    "mae_finetuned_vit_huge": 632.05,
}


def test_parameter_counts_are_the_published_ones() -> None:
    assert {name: round(teachers()[name].num_parameters / 1e6, 2) for name in PUBLISHED} == PUBLISHED


def test_every_public_form_of_mae_is_listed_at_the_authors_address() -> None:
    forms = {
        "mae_pretrain_vit_{}": "pretrain/mae_pretrain_vit_{}.pth",
        "mae_pretrain_full_vit_{}": "pretrain/mae_pretrain_vit_{}_full.pth",
        "mae_visualize_vit_{}": "visualize/mae_visualize_vit_{}.pth",
        "mae_finetuned_vit_{}": "finetune/mae_finetuned_vit_{}.pth",
    }
    for size in ("base", "large", "huge"):
        for name, path in forms.items():
            assert teachers()[name.format(size)].listed.url == f"https://dl.fbaipublicfiles.com/mae/{path.format(size)}"


def test_the_published_md5_prefixes_are_all_there() -> None:
    prefixes = {name: teacher.listed.md5_prefix for name, teacher in teachers().items() if teacher.listed.md5_prefix}
    assert prefixes == {
        "mae_pretrain_vit_base": "8cad7c",
        "mae_pretrain_vit_large": "b8b06e",
        "mae_pretrain_vit_huge": "9bdbb0",
        "mae_finetuned_vit_base": "1b25e9",
        "mae_finetuned_vit_large": "51f550",
        "mae_finetuned_vit_huge": "2541f2",
    }


def test_an_encoder_is_never_listed_for_g2sd_and_names_its_file_with_decoder() -> None:
    for teacher in teachers().values():
        listed = teacher.listed
        assert ("g2sd" in listed.use_for) <= (listed.content == "masked"), teacher.name
        assert ("specific" in listed.use_for) <= (listed.content == "classifier"), teacher.name
        if listed.content == "encoder" and listed.url is not None:
            assert listed.instead is not None
            assert teachers()[listed.instead].listed.content == "masked" and teachers()[listed.instead].network == teacher.network


def test_every_file_of_the_catalogue_has_a_licence_and_a_place_of_its_own() -> None:
    assert all(teacher.listed.licence for teacher in teachers().values())
    urls = [teacher.listed.url for teacher in teachers().values() if teacher.listed.url]
    assert len(urls) == len(set(urls)) == 19


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("mae_pretrain_full_vit_bse", "mae_pretrain_full_vit_base"),
        ("mae_pretrain_vit_base_full", "mae_pretrain_full_vit_base"),  # the file's own name
        ("mae_visualize_vit_large_ganloss.pth", "mae_visualize_ganloss_vit_large"),
    ],
)
def test_a_misspelt_name_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(UserError, match=f"there is no teacher {wrong}; did you mean {near}"):
        find_teacher(wrong)


def test_a_name_that_is_near_to_nothing_is_answered_with_the_list() -> None:
    assert nearest_name("qqq") is None
    with pytest.raises(UserError, match=r"there is no teacher qqq; `g2sd teacher list`"):
        find_teacher("qqq")


def test_the_file_with_a_decoder_is_found_by_the_shape_of_an_encoder() -> None:
    assert [full_file_of(*shape) for shape in ((768, 12), (1024, 24), (1280, 32), (384, 12))] == [
        "mae_pretrain_full_vit_base", "mae_pretrain_full_vit_large", "mae_pretrain_full_vit_huge", None
    ]  # fmt: skip


def test_the_digest_follows_what_the_teacher_is_and_not_its_title() -> None:
    teacher = teachers()["mae_pretrain_vit_base"]
    changed = {
        field: teacher.model_copy(update={"listed": teacher.listed.model_copy(update={field: value})}).digest
        for field, value in (("title", "x"), ("note", "x"), ("url", "https://x"), ("md5_prefix", "ffff"))
    }
    assert [changed[field] == teacher.digest for field in ("title", "note", "url", "md5_prefix")] == [True, True, False, False]


GOOD = {
    "title": "t",
    "url": "https://x/f",
    "file": "f",
    "licence": "l",
    "layout": "mae",
    "content": "encoder",
    "network": "n",
    "use_for": [],
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"url": None}, "give one of url and page"),
        ({"page": "https://p"}, "give one of url and page"),
        ({"file": None}, "a url needs file"),
        ({"content": "masked"}, "content masked and decoder None do not fit"),
        ({"num_classes": 3}, "content encoder and num_classes 3 do not fit"),
        ({"md5_prefix": "XYZQ"}, "md5_prefix"),
        ({"sha256": "ab"}, "sha256"),
        ({"size": 3}, "size"),
    ],
)
def test_an_entry_that_contradicts_itself_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Listed.model_validate(GOOD | change)


def test_the_catalogue_ships_beside_its_reader() -> None:
    assert CATALOGUE.name == "teachers.yaml" and CATALOGUE.is_file()
