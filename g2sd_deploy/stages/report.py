"""Report stage: the page and the Markdown of the whole run."""

from g2sd_deploy.artifact import Made
from g2sd_deploy.report import read_run, render_report
from g2sd_deploy.stages.context import Context


def run(context: Context) -> Made:
    """Render every artifact of the run."""
    rendered = render_report(read_run(context.run_folder))
    (context.folder / "report.html").write_text(rendered.html, encoding="utf-8")
    (context.folder / "report.md").write_text(rendered.markdown, encoding="utf-8")
    return Made({})
