"""Where the time of a model goes: its layers by the runtime's own profiler, folded to the blocks of a vision transformer."""

from g2sd_deploy.profiling.layers.rendering import render_layers
from g2sd_deploy.profiling.layers.subjects import (
    LayerSubject,
    Running,
    refused_subject,
    subject_of_file,
    subjects_of_bundle,
)
from g2sd_deploy.profiling.layers.tables import layer_tables

__all__ = ["LayerSubject", "Running", "layer_tables", "refused_subject", "render_layers", "subject_of_file", "subjects_of_bundle"]
