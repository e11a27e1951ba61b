"""The wheel holds what a user needs, under names that collide with nobody's."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).parent.parent
MIB = 2**20

pytestmark = pytest.mark.skipif(not (ROOT / "pyproject.toml").is_file(), reason="not a source tree")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """Built from this tree, with what is installed."""
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def names(wheel: zipfile.ZipFile) -> set[str]:
    return {name for name in wheel.namelist() if not name.endswith("/")}


def metadata(wheel: zipfile.ZipFile, file: str) -> str:
    (name,) = (name for name in names(wheel) if name.endswith(f".dist-info/{file}"))
    return wheel.read(name).decode()


def test_the_wheel_holds_two_packages_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    top = {PurePosixPath(name).parts[0] for name in names(wheel)}
    assert {name for name in top if not name.endswith(".dist-info")} == {"g2sd_deploy", "g2sd_export"}


def tracked(folder: str, inside: str) -> set[str]:
    """Files of a source folder, by the name that they must have in the wheel."""
    files = (path.relative_to(ROOT / folder) for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {f"{inside}/{path.as_posix()}" for path in files}


def test_every_file_of_the_packages_is_in_the_wheel_once(wheel: zipfile.ZipFile) -> None:
    wanted = tracked("g2sd_deploy", "g2sd_deploy") | tracked("export/g2sd_export", "g2sd_export")
    wanted |= tracked("recipes", "g2sd_deploy/recipes") | tracked("export/targets", "g2sd_export/target_files")
    assert {name for name in names(wheel) if ".dist-info/" not in name} == wanted
    assert len(wheel.namelist()) == len(set(wheel.namelist()))


@pytest.mark.parametrize(
    "name",
    [
        "g2sd_deploy/py.typed",
        "g2sd_export/py.typed",
        "g2sd_deploy/recipes/quickstart.yaml",
        "g2sd_deploy/recipes/quickstart_teacher.yaml",
        "g2sd_export/edge/__main__.py",
        "g2sd_deploy/assets/fashion_mnist/SHA256SUMS",
        "g2sd_deploy/assets/fashion_mnist/train-images-idx3-ubyte.gz",
        "g2sd_deploy/assets/teacher/fashion_mnist_masked.safetensors",
        "g2sd_deploy/assets/teacher/fashion_mnist_classifier.safetensors",
        "g2sd_deploy/assets/scenes_teacher/masked.safetensors",
        "g2sd_deploy/assets/scenes_teacher/segmenter.safetensors",
        "g2sd_deploy/assets/scenes_teacher/detector.safetensors",
    ],
)
def test_the_wheel_holds(name: str, wheel: zipfile.ZipFile) -> None:
    assert name in names(wheel)


def test_the_wheel_holds_the_templates_of_the_report(wheel: zipfile.ZipFile) -> None:
    assert any(name.startswith("g2sd_deploy/report/templates/") for name in names(wheel))


def test_data_and_teachers_are_small(wheel: zipfile.ZipFile) -> None:
    for folder, most in (("fashion_mnist", 8), ("teacher", 8), ("scenes_teacher", 9)):
        size = sum(info.file_size for info in wheel.infolist() if info.filename.startswith(f"g2sd_deploy/assets/{folder}/"))
        assert 0 < size <= most * MIB, folder


def test_the_licences_travel_along(wheel: zipfile.ZipFile) -> None:
    texts = {PurePosixPath(name).name: wheel.read(name).decode() for name in names(wheel) if ".dist-info/licenses/" in name}
    assert "Apache License" in texts["LICENSE"]
    assert "Fashion-MNIST" in texts["NOTICE"] and "Zalando" in texts["NOTICE"] and "MIT" in texts["NOTICE"]
    data = [name for name in names(wheel) if name.startswith("g2sd_deploy/assets/fashion_mnist/") and "LICENSE" in name.upper()]
    assert data and "Permission is hereby granted, free of charge" in wheel.read(data[0]).decode()


def test_the_metadata_names_the_command_and_the_extras(wheel: zipfile.ZipFile) -> None:
    assert "g2sd = g2sd_deploy.cli:main" in metadata(wheel, "entry_points.txt")
    described = metadata(wheel, "METADATA")
    assert {line.partition(": ")[2] for line in described.splitlines() if line.startswith("Provides-Extra: ")} == {
        "dev", "tensorrt", "tensorrt-rtx", "modelopt", "signing", "huggingface", "s3"
    }  # fmt: skip
    assert "Requires-Python: >=3.11" in described


def test_the_command_works_from_the_wheel_and_finds_its_recipes(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    wheel.extractall(tmp_path / "site")
    done = subprocess.run(
        [sys.executable, "-P", "-m", "g2sd_deploy", "recipes", "list"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path / "site")},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == sorted(path.stem for path in (ROOT / "recipes").glob("*.yaml"))
