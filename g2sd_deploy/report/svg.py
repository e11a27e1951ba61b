"""From a matplotlib figure to SVG that lives inside a page: themed by CSS variables, no ids that clash, nothing loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Figures are drawn in these stand-in colours; each becomes a CSS variable, so one chart serves light, dark and print.
COLOURS = {
    "teacher": "#010101",
    "student": "#020202",
    "baseline": "#030303",
    "other": "#040404",
    "green": "#090909",
    "rose": "#0a0a0a",
    "heat": "#0b0b0b",
    "teal": "#0c0c0c",
    "brown": "#0d0d0d",
    "ink": "#050505",
    "muted": "#060606",
    "line": "#070707",
    "paper": "#080808",
}
_STYLE = {
    "svg.fonttype": "none",
    "font.family": "DejaVu Sans",
    "font.size": 11.0,
    "text.parse_math": False,
    "axes.edgecolor": COLOURS["line"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.labelsize": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": COLOURS["line"],
    "grid.linewidth": 0.8,
    "text.color": COLOURS["ink"],
    "xtick.color": COLOURS["line"],
    "ytick.color": COLOURS["line"],
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "xtick.labelsize": 10.5,
    "ytick.labelsize": 10.5,
    "xtick.major.size": 0.0,
    "ytick.major.size": 0.0,
    "xtick.minor.size": 0.0,
    "ytick.minor.size": 0.0,
}


@contextmanager
def figure(width_px: int, height_px: int) -> Iterator[Figure]:
    """A styled figure whose units are CSS pixels; draw on it and call `inline_svg` before the context ends."""
    import matplotlib
    from matplotlib.figure import Figure

    style: dict[Any, Any] = _STYLE  # matplotlib types the keys as one Literal of all its settings
    with matplotlib.rc_context(style):
        yield Figure(figsize=(width_px / 72, height_px / 72), dpi=72, layout="constrained")


def inline_svg(drawn: Figure, name: str, title: str, description: str) -> str:
    """Serialise a figure as an `<svg>` element without namespaces.

    Args:
        drawn: Figure drawn in the colours of COLOURS.
        name: Unique within the page; prefixes every id. Lower-case letters, digits and dashes.
        title: What the chart is; with the description all that readers get who do not see it.
        description: What it shows, in sentences with the numbers that matter.

    Returns:
        The element; the same figure always gives the same text.
    """
    import matplotlib

    buffer = StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        drawn.savefig(buffer, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    # The parser is fed by matplotlib only, never by a file, so entity attacks cannot reach it.
    root = ElementTree.fromstring(buffer.getvalue())
    _drop_foreign(root)
    _localise(root)
    _rename_ids(root, name)
    for size in ("width", "height", "version"):
        root.attrib.pop(size, None)
    _describe(root, name, title, description)
    return _themed(ElementTree.tostring(root, encoding="unicode", short_empty_elements=False))


def _describe(root: ElementTree.Element, name: str, title: str, description: str) -> None:
    """The text alternative: title and description inside the image, read out in its place."""
    root.set("role", "img")
    root.set("aria-labelledby", f"{name}-title")
    root.set("aria-describedby", f"{name}-desc")
    for index, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, id=f"{name}-{tag}")
        element.text = text
        root.insert(index, element)


def _drop_foreign(root: ElementTree.Element) -> None:
    """Remove metadata (it links to the web) and style sheets (theirs would apply to the whole page)."""
    for parent in root.iter():
        for child in list(parent):
            if child.tag.rpartition("}")[2] in ("metadata", "style"):
                parent.remove(child)


def _localise(root: ElementTree.Element) -> None:
    """Drop XML namespaces: an HTML parser supplies them."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        for key in [key for key in element.attrib if key.startswith("{")]:
            element.set(key.rpartition("}")[2], element.attrib.pop(key))


def _rename_ids(root: ElementTree.Element, name: str) -> None:
    """Keep only ids that something refers to, and number them under the chart's name."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = dict.fromkeys(re.findall(r"(?:url\(#|href=\"#)([^)\"]+)", text))
    names = {old: f"{name}-{index}" for index, old in enumerate(used)}
    for element in root.iter():
        identity = element.attrib.pop("id", None)
        if identity in names:
            element.set("id", names[identity])
        for key, value in element.attrib.items():
            element.set(key, re.sub(r"#([\w-]+)", lambda found: "#" + names.get(found[1], found[1]), value) if "#" in value else value)


def _themed(text: str) -> str:
    for name, colour in COLOURS.items():
        text = text.replace(colour, f"var(--{name})")
    return re.sub(r" ?font-family: [^;\"]*;", "", text)
