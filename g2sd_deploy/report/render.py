"""Turn a RunSummary into HTML and Markdown: one Document, two templates, so both say the same."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from importlib.resources import files
from typing import TYPE_CHECKING

from g2sd_deploy.report import (
    accuracy,
    dense_page,
    formatting,
    front,
    invariance,
    latency_page,
    layers_page,
    making,
    other_sets,
    papers,
    provenance,
    shipping,
    sizes,
)
from g2sd_deploy.report.as_data import report_json
from g2sd_deploy.report.document import Document, Section
from g2sd_deploy.report.headline import build_headline
from g2sd_deploy.report.summary import RunSummary

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_LONG_NAME = 20


@dataclass(frozen=True)
class Rendered:
    """The same report for people, for text tools and for programs; `json` is empty where the data lies beside the page already."""

    html: str
    markdown: str
    json: str = ""


class Verbatim(str):
    """Markdown that is already escaped."""


def render_report(run: RunSummary) -> Rendered:
    """Render the report.

    Args:
        run: What `read_run` returned.

    Returns:
        One HTML page that loads nothing, and the same content as GitHub Markdown and as JSON. Equal runs give equal bytes.
    """
    document = build_document(run)
    return replace(render_document(document), json=report_json(run, document))


def render_document(document: Document) -> Rendered:
    """A document as one HTML page that loads nothing, and as GitHub Markdown."""
    css = files(__package__).joinpath("templates/report.css").read_text(encoding="utf-8")
    return Rendered(
        html=_html_environment().get_template("report.html.jinja").render(document=document, css=css),
        markdown=_markdown_environment().get_template("report.md.jinja").render(document=document),
    )


def build_document(run: RunSummary) -> Document:
    """Everything the page says, as plain text and charts: the result first, then how it was made."""
    version = next((stage.tools["g2sd_deploy"] for stage in reversed(run.stages) if "g2sd_deploy" in stage.tools), "")
    return Document(
        title=run.title,
        recipe=run.recipe,
        description=run.description,
        finished=formatting.moment(max(stage.finished_at for stage in run.stages)),
        footer=f"g2sd-deploy {version}".strip() + ". Every number comes from the artifacts of this run; the report measures nothing.",
        headline=build_headline(run),
        sections=(
            *(_task_sections(run) if run.task else _classifier_sections(run)),
            *_present(front.front_section(run)),
            shipping.parity_section(run),
            latency_page.latency_section(run),
            *_present(layers_page.layers_section(run), sizes.sizes_section(run)),
            making.bundle_section(run),
            making.data_section(run),
            making.training_section(run),
            provenance.provenance_section(run),
            making.stages_section(run),
            making.environment_section(run),
        ),
    )


def _task_sections(run: RunSummary) -> tuple[Section, ...]:
    """What the evaluation of a segmenter or detector says."""
    return (dense_page.quality_section(run), *_present(dense_page.classes_section(run), dense_page.pictures_section(run)))


def _classifier_sections(run: RunSummary) -> tuple[Section, ...]:
    """Accuracy, robustness, and what the evaluation measured beyond them."""
    always = (accuracy.accuracy_section(run), accuracy.robustness_section(run))
    if run.evaluation is None:
        return always
    paper = papers.paper_row(run)
    found = (
        other_sets.sets_section(run.evaluation, paper),
        *other_sets.corrupted_sets_sections(run.evaluation, paper),
        invariance.occlusion_section(run.evaluation),
        invariance.similarity_section(run.evaluation),
    )
    return (*always, *_present(*found))


def _present(*sections: Section | None) -> tuple[Section, ...]:
    return tuple(section for section in sections if section)


def escape_markdown(value: object) -> str:
    """Make text inert in GitHub Markdown and in a table cell.

    Args:
        value: Text, or Verbatim (returned as it is).

    Returns:
        One line in which no character starts markup, HTML, maths or a new cell.
    """
    if isinstance(value, Verbatim):
        return value
    line = " ".join(str(value).split())
    line = re.sub(r"([\\`*_{}\[\]<>#|~&$])", r"\\\1", line)
    return re.sub(r"^([-+=]|\d+[.)](?=\s|$))", lambda found: found[0][:-1] + "\\" + found[0][-1], line)


def fenced(text: str, language: str = "") -> Verbatim:
    """A code block whose fence is longer than any run of backticks inside."""
    fence = "`" * max(3, 1 + max((len(run) for run in re.findall(r"`+", text)), default=0))
    return Verbatim(f"{fence}{language}\n{text}\n{fence}")


def tie(text: str) -> str:
    """Keep a number and its unit on one line: a no-break space between them."""
    return re.sub(r"(?<=\d) (?=(?:%|M|MiB|ms|s|min|h|px|pp)\b|%)", "\u00a0", text)


def breakable(text: str) -> Markup:
    """Let a long name of a model break after a dash, dot, slash or underscore."""
    from markupsafe import Markup, escape

    shown = str(escape(text))
    return Markup(re.sub(r"(?<=[-._/])(?=\w)", "<wbr>", shown) if len(text) > _LONG_NAME else shown)


def _html_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    loader = PackageLoader("g2sd_deploy.report")
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["tie"] = tie
    environment.filters["breakable"] = breakable
    return environment


def _markdown_environment() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("g2sd_deploy.report"),
        autoescape=False,
        finalize=escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["fenced"] = fenced
    environment.filters["verbatim"] = Verbatim
    return environment
