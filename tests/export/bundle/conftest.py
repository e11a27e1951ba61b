"""Changes to bundles as a fault or a hand would make them."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


def forge_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the manifest and its digest, as a faulty tool would."""
    values = json.loads((folder / "manifest.json").read_text())
    change(values)
    content = json.dumps(values).encode()
    (folder / "manifest.json").write_bytes(content)
    (folder / "manifest.sha256").write_text(f"{hashlib.sha256(content).hexdigest()}  manifest.json\n")


@pytest.fixture
def forge() -> Callable[[Path, Callable[[dict[str, Any]], object]], None]:
    return forge_manifest


@pytest.fixture(scope="session")
def manifest(pristine_bundle: Path) -> dict[str, Any]:
    """Of the tiny bundle."""
    values: dict[str, Any] = json.loads((pristine_bundle / "manifest.json").read_text())
    return values
