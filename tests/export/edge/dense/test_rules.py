"""What holds for the edge folder holds for its folder of dense tasks: few imports, old Pythons, and a place in every bundle."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import g2sd_export.edge
from g2sd_export.bundle.writing import _copy_edge

EDGE = Path(g2sd_export.edge.__file__).parent
MODULES = sorted((EDGE / "dense").glob("*.py"))
NEWER_THAN_3_8 = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "pairwise"}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_imports_are_relative_or_of_the_few_allowed_packages(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    far = {alias.name.partition(".")[0] for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    near = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    far |= {(node.module or "").partition(".")[0] for node in near if node.level == 0}
    assert far <= {*sys.stdlib_module_names, "numpy", "PIL"} and all(node.level <= 2 for node in near)


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.name)
def test_every_module_is_written_in_the_oldest_python(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text, feature_version=(3, 8))
    assert "from __future__ import annotations" in text or path.name == "__init__.py"
    assert not {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)} & NEWER_THAN_3_8
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "zip"]
    assert not [keyword for call in calls for keyword in call.keywords]
    values = [node.value for node in tree.body if isinstance(node, ast.Assign)]  # computed at import, as annotations are not
    builtins = {
        node.value.id
        for value in values
        for node in ast.walk(value)
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Name)
    }
    assert not builtins & {"tuple", "list", "dict", "set"}


def test_a_bundle_gets_the_folder_and_no_leftovers(tmp_path: Path) -> None:
    _copy_edge(tmp_path / "edge")
    copied = {path.relative_to(tmp_path / "edge").as_posix() for path in (tmp_path / "edge").rglob("*") if path.is_file()}
    wanted = {path.relative_to(EDGE).as_posix() for path in EDGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert copied == wanted and "dense/task.py" in copied


def test_every_module_imports_from_a_copy_with_numpy_and_pillow_alone(tmp_path: Path) -> None:
    _copy_edge(tmp_path / "edge")
    names = [f"edge.dense.{path.stem}" for path in MODULES if path.stem != "__init__"]
    code = f"import sys, importlib\nsys.path.insert(0, {str(tmp_path)!r})\nfor name in {names}: importlib.import_module(name)\n"
    code += "print(sorted({'torch', 'onnxruntime', 'openvino', 'g2sd_export'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-B", "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
