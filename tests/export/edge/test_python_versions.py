"""The edge folder runs unchanged under every Python from 3.8 on, as devices have them."""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

import g2sd_export.edge

OLDEST = (3, 8)
VERSIONS = [f"3.{minor}" for minor in range(OLDEST[1], 15) if minor != sys.version_info.minor]
EDGE = sorted(Path(g2sd_export.edge.__file__).parent.glob("*.py"))
NEEDED = "import numpy, PIL, onnxruntime"

# What later versions added and a parser does not see.
NEW_METHODS = {"removeprefix", "removesuffix", "is_relative_to", "with_stem", "readlink", "pairwise", "bit_count", "lcm", "add_note"}
NEW_ARGUMENTS = {"zip": "strict", "dataclass": "slots", "int": "signed"}


@cache
def interpreter(version: str) -> str | None:
    """A Python of this version that has what the edge folder needs, from PATH or from pyenv."""
    root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    folders = [*os.get_exec_path(), *map(str, sorted(root.glob(f"versions/{version}.*/bin")))]
    names = (f"python{version}", "python3", "python")
    wanted = f"import sys; assert sys.version_info[:2] == {tuple(map(int, version.split('.')))}; {NEEDED}"
    for path in dict.fromkeys(filter(None, (shutil.which(name, path=folder) for folder in folders for name in names))):
        if subprocess.run([path, "-I", "-c", wanted], capture_output=True, check=False).returncode == 0:
            return path
    return None


def pitfalls(tree: ast.AST) -> list[str]:
    """Names of methods and arguments that the oldest Python lacks, and unions that are computed instead of only written down."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in NEW_METHODS:
            found.append(node.attr)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [f"{node.func.id}({item.arg}=)" for item in node.keywords if item.arg == NEW_ARGUMENTS.get(node.func.id, "")]
            if node.func.id in ("isinstance", "issubclass", "cast"):
                found += [f"{node.func.id}(|)" for item in node.args if isinstance(item, ast.BinOp)]
    return found


@pytest.mark.parametrize("path", EDGE, ids=lambda path: path.name)
def test_every_module_is_written_in_the_oldest_python(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=OLDEST)
    assert pitfalls(tree) == []
    assert "from __future__ import annotations" in path.read_text(encoding="utf-8") or path.name in ("__init__.py", "errors.py")


@pytest.mark.parametrize("code", ["zip(a, b, strict=True)", "a.removesuffix('b')", "isinstance(a, int | str)"])
def test_what_a_parser_does_not_see_is_found(code: str) -> None:
    assert len(pitfalls(ast.parse(code))) == 1


@pytest.mark.parametrize("version", VERSIONS)
def test_the_selftest_passes_under_it(version: str, pristine_bundle: Path) -> None:
    python = interpreter(version)
    if python is None:
        pytest.skip(f"no Python {version} with numpy, Pillow and onnxruntime on PATH or in PYENV_ROOT")
    environment = {**os.environ, "PYTHONPATH": "", "PYTHONDONTWRITEBYTECODE": "1"}
    commands = (["selftest"], ["predict", "sample.png"], ["bench", "--variant", "fp32-onnxruntime", "--seconds", "0.1"])
    for command in commands:
        done = subprocess.run(
            [python, "-W", "error", "-m", "edge", *command, "--json", "--threads", "1"],
            cwd=pristine_bundle,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, ""), command
        if command == ["selftest"]:
            assert json.loads(done.stdout)["agreement"]["flipped"] == 0
