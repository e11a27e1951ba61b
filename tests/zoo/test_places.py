"""Where things lie is decided by four variables."""

from pathlib import Path

import pytest

from g2sd_deploy.errors import UserError
from g2sd_deploy.zoo.places import places


def test_the_cache_is_named_or_follows_the_desktop_standard(tmp_path: Path) -> None:
    assert places({}).cache == Path.home() / ".cache" / "g2sd"
    assert places({"XDG_CACHE_HOME": "/x"}).cache == Path("/x/g2sd")
    assert places({"XDG_CACHE_HOME": "/x", "G2SD_CACHE": "~/mine"}).cache == Path.home() / "mine"


def test_the_lock_file_lies_in_the_cache_unless_named() -> None:
    assert places({"G2SD_CACHE": "/c"}).lock_file == Path("/c/teachers.lock")
    assert places({"G2SD_CACHE": "/c", "G2SD_LOCK": "/project/teachers.lock"}).lock_file == Path("/project/teachers.lock")


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("Yes", True), ("0", False), ("", False), ("off", False)])
def test_offline_is_yes_or_no(value: str, offline: bool) -> None:
    assert places({"G2SD_OFFLINE": value}).offline is offline


def test_an_offline_of_neither_kind_is_refused() -> None:
    with pytest.raises(UserError, match="G2SD_OFFLINE is 'perhaps'; wanted 1"):
        places({"G2SD_OFFLINE": "perhaps"})


def test_a_mirror_is_a_url_or_a_folder_that_is_there(tmp_path: Path) -> None:
    assert places({"G2SD_MIRROR": "https://m.example/x"}).mirror_folder is None
    assert places({"G2SD_MIRROR": str(tmp_path)}).mirror_folder == tmp_path
    assert places({"G2SD_MIRROR": ""}).mirror is None
    with pytest.raises(UserError, match=r"G2SD_MIRROR is .*/none: there is no such folder; give a folder, or a URL"):
        places({"G2SD_MIRROR": str(tmp_path / "none")})
