"""Report stage: the page, the Markdown and the data of the whole run."""

from g2sd_deploy.artifact import Made
from g2sd_deploy.report import read_run, render_report
from g2sd_deploy.stages.context import Context


def run(context: Context) -> Made:
    """Render every artifact of the run."""
    rendered = render_report(read_run(context.run_folder))
    for name, text in (("report.html", rendered.html), ("report.md", rendered.markdown), ("report.json", rendered.json)):
        (context.folder / name).write_text(text, encoding="utf-8")
    return Made({})
