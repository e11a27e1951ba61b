"""Licences as model cards and bills of materials want them."""

from __future__ import annotations

import re
from typing import Any

UNKNOWN = "unknown"

# The SPDX identifiers that weights, code and data of this field come under; whatever else is said is passed on as text.
_SPDX_NAMES = """
0BSD AGPL-3.0-only Apache-2.0 BSD-2-Clause BSD-3-Clause CC-BY-3.0 CC-BY-4.0 CC-BY-NC-3.0 CC-BY-NC-4.0 CC-BY-NC-ND-4.0 CC-BY-NC-SA-4.0
CC-BY-ND-4.0 CC-BY-SA-3.0 CC-BY-SA-4.0 CC0-1.0 GPL-2.0-only GPL-3.0-only GPL-3.0-or-later ISC LGPL-3.0-only MIT MPL-2.0 ODC-By-1.0
ODbL-1.0 PDDL-1.0 Unlicense Zlib
"""
_SPDX = frozenset(_SPDX_NAMES.split())


def cyclonedx_licences(licence: str) -> list[dict[str, Any]]:
    """The ``licenses`` of a CycloneDX component: an identifier, an expression of identifiers, or a name; empty for "unknown"."""
    if licence == UNKNOWN:
        return []
    if licence in _SPDX:
        return [{"license": {"id": licence}}]
    words = re.sub(r"[()]", " ", licence).split()
    if set(words[::2]) <= _SPDX and set(words[1::2]) <= {"AND", "OR"} and len(words) % 2:
        return [{"expression": licence}]
    return [{"license": {"name": licence}}]


def card_licence(licence: str) -> dict[str, str]:
    """The ``license`` of a model card's head, as the Hugging Face Hub spells it."""
    if licence == UNKNOWN:
        return {"license": UNKNOWN}
    if licence in _SPDX:
        return {"license": licence.lower().removesuffix("-only").removesuffix("-or-later")}
    return {"license": "other", "license_name": licence}
