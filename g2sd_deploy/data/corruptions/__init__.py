"""ImageNet-C-style corruptions: names, severities and the note for reports; ``api.corrupt`` applies them.

Only names and constants are imported here (standard library), because settings need them before any command runs.
"""

from g2sd_deploy.data.corruptions.names import (
    CORRUPTION_NAMES,
    EXTRA_CORRUPTIONS,
    MEAN_CORRUPTIONS,
    SEVERITIES,
    CorruptionName,
    corruption_from_name,
    corruption_note,
)
from g2sd_deploy.data.corruptions.severities import severity_table

__all__ = [
    "CORRUPTION_NAMES",
    "EXTRA_CORRUPTIONS",
    "MEAN_CORRUPTIONS",
    "SEVERITIES",
    "CorruptionName",
    "corruption_from_name",
    "corruption_note",
    "severity_table",
]
