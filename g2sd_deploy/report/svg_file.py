"""From a chart that lives inside a page to a file of its own, light and dark as the reader has it."""

import re
from importlib.resources import files

_THEMES = re.compile(r":root \{.*?^\}\n(?=\*)", re.DOTALL | re.MULTILINE)


def svg_file(chart: str) -> str:
    """An SVG document.

    Args:
        chart: What `inline_svg` gives.
    """
    css = files(__package__).joinpath("templates/report.css").read_text(encoding="utf-8")
    themes = _THEMES.search(css)
    assert themes is not None, "report.css no longer begins with its colours"
    style = f"<style>\n{themes[0]}svg {{ background: var(--paper); font-family: var(--sans); }}\n</style>"
    head, _, body = chart.partition(">")
    return head.replace("<svg", '<svg xmlns="http://www.w3.org/2000/svg"', 1) + ">" + style + body + "\n"
