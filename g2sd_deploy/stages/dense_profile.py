"""What the profile stage times of a task besides the bundle: teacher and student on torch."""

from dataclasses import replace

from g2sd_deploy.artifact import sha256_of
from g2sd_deploy.profiling.candidate import TORCH, Candidate, refused
from g2sd_deploy.profiling.subjects import Wanted, torch_candidates
from g2sd_deploy.profiling.torch_calls import Network
from g2sd_deploy.stages.context import Context
from g2sd_deploy.stages.dense_context import task_file
from g2sd_deploy.stages.dense_models import load_network


def task_candidates(context: Context, role: str, wanted: Wanted) -> list[Candidate]:
    """A network of the task on torch; what is asked for besides runs files, and the bundle has those of the student."""
    task = context.recipe.task
    assert task is not None
    path = context.inputs[role].file(task_file(context.recipe))
    file = load_network(path, task.kind)
    found = torch_candidates(role, Network(file.model, file.task.image_px, file.task.num_channels), wanted)
    reason = "weights of a task run on torch only; the bundle's files are timed on what they were proven on"
    others = [refused(role, runtime, reason, digest=sha256_of(path)) for runtime in wanted.runtimes if runtime not in TORCH]
    return [replace(one, digest=sha256_of(path), file_bytes=path.stat().st_size) for one in found] + others
