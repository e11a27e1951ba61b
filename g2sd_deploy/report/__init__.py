"""Report of a run: reads artifacts and renders them as HTML, Markdown and a terminal table. It measures nothing."""

from g2sd_deploy.report.comparison import render_comparison
from g2sd_deploy.report.comparison_paired import PairedStudents
from g2sd_deploy.report.comparison_runs import same_test
from g2sd_deploy.report.console import result_table
from g2sd_deploy.report.evaluation_page import render_evaluation
from g2sd_deploy.report.evaluation_table import evaluation_tables
from g2sd_deploy.report.reading import read_run
from g2sd_deploy.report.render import Rendered, render_report
from g2sd_deploy.report.summary import RunSummary

__all__ = [
    "PairedStudents",
    "Rendered",
    "RunSummary",
    "evaluation_tables",
    "read_run",
    "render_comparison",
    "render_evaluation",
    "render_report",
    "result_table",
    "same_test",
]
