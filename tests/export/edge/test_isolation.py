"""What is copied to a device needs nothing but the standard library, numpy and Pillow, and a runtime when it predicts."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import g2sd_export.edge

EDGE = Path(g2sd_export.edge.__file__).parent
MODULES = sorted(path.stem for path in EDGE.glob("*.py") if not path.stem.startswith("__"))

# Refuses, under `python -I`, the import of every package that is not named; private modules belong to the interpreter.
ISOLATED = """
import importlib.abc, sys, warnings
warnings.simplefilter("error")

class Refuse(importlib.abc.MetaPathFinder):
    allowed = {"edge", *sys.stdlib_module_names, *%(allowed)r}

    def find_spec(self, fullname, path=None, target=None):
        top = fullname.partition(".")[0]
        if top not in self.allowed and not top.startswith("_"):
            raise ModuleNotFoundError(f"No module named {top!r}: not allowed on the device", name=top)

for name in [name for name in sys.modules if name.partition(".")[0] in ("numpy", "PIL", "torch")]:
    raise SystemExit(f"{name} was imported before the test began")
sys.meta_path.insert(0, Refuse())
sys.path.insert(0, %(folder)r)
"""

# ONNX Runtime and what it requires.
RUNTIME = ["onnxruntime", "flatbuffers", "google", "packaging"]


def isolated(folder: Path, allowed: list[str], code: str) -> subprocess.CompletedProcess[str]:
    head = ISOLATED % {"allowed": allowed, "folder": str(folder)}
    return subprocess.run([sys.executable, "-I", "-B", "-c", head + code], capture_output=True, text=True, check=False)


def imports_of(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(level, top-level package) of every import below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name.partition(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, (node.module or "").partition(".")[0]


def test_every_module_imports_with_numpy_and_pillow_alone(pristine_bundle: Path) -> None:
    code = f"import importlib\nfor name in {MODULES}: importlib.import_module('edge.' + name)\nprint('edge.runner' in sys.modules)"
    done = isolated(pristine_bundle, ["numpy", "PIL"], code)
    assert (done.returncode, done.stdout, done.stderr) == (0, "True\n", "")


def test_the_isolation_itself_refuses_what_is_not_allowed(pristine_bundle: Path) -> None:
    done = isolated(pristine_bundle, ["numpy", "PIL"], "import torch")
    assert done.returncode == 1 and "not allowed on the device" in done.stderr


@pytest.mark.parametrize("arguments", [["selftest"], ["predict", "sample.png"], ["bench", "--seconds", "0.1", "--percentile", "50"]])
def test_the_commands_run_with_numpy_pillow_and_onnx_runtime_alone(arguments: list[str], pristine_bundle: Path) -> None:
    arguments = [str(pristine_bundle / item) if item.endswith(".png") else item for item in arguments]
    code = f"import runpy\nsys.argv = ['edge', *{arguments!r}]\nrunpy.run_module('edge', run_name='__main__', alter_sys=True)"
    done = isolated(pristine_bundle, ["numpy", "PIL", *RUNTIME], code)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr


def test_help_needs_no_package_at_all(pristine_bundle: Path) -> None:
    code = "import runpy\nsys.argv = ['edge', '--help']\nrunpy.run_module('edge', run_name='__main__', alter_sys=True)"
    done = isolated(pristine_bundle, [], code)
    assert done.returncode == 0 and "selftest" in done.stdout


@pytest.mark.parametrize("path", sorted(EDGE.glob("*.py")), ids=lambda path: path.name)
def test_imports_are_relative_or_of_the_few_allowed_packages(path: Path) -> None:
    tree = ast.parse(path.read_text())
    anywhere = {package for level, package in imports_of(tree) if level == 0}
    assert anywhere <= {*sys.stdlib_module_names, "numpy", "PIL", "onnxruntime", "openvino"}
    assert all(level <= 1 for level, _ in imports_of(tree))
    at_top = {package for node in tree.body for level, package in imports_of(node) if level == 0 and not isinstance(node, ast.FunctionDef)}
    assert not at_top & {"onnxruntime", "openvino"}
