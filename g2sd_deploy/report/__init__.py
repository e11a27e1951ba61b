"""Report of a run: reads artifacts and renders them as HTML, Markdown and a terminal table. It measures nothing."""

from g2sd_deploy.report.console import result_table
from g2sd_deploy.report.reading import read_run
from g2sd_deploy.report.render import Rendered, render_report
from g2sd_deploy.report.summary import RunSummary

__all__ = ["Rendered", "RunSummary", "read_run", "render_report", "result_table"]
