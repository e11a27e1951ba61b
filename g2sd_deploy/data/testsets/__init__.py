"""Public test sets and any others: fetched, checked, opened, and scored as they were published."""

from g2sd_deploy.data.testsets.label_spaces import LabelSpace
from g2sd_deploy.data.testsets.merging import merge
from g2sd_deploy.data.testsets.opening import Options, open_all, open_test_sets
from g2sd_deploy.data.testsets.scorings import Aligned, LabelSets, Scoring, TestSet

__all__ = ["Aligned", "LabelSets", "LabelSpace", "Options", "Scoring", "TestSet", "merge", "open_all", "open_test_sets"]
