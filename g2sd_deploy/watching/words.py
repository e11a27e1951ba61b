"""What both the live view and plain lines say, in the same words."""

from g2sd_deploy.report import formatting
from g2sd_deploy.watching.view import Checkpoint, Holder, StageView, Training

SMALLEST_TOLD_S = 1.0


def age(seconds: float) -> str:
    """'just now', '42 s ago', '12 min ago', '3 h 5 min ago': ages need no tenths."""
    return "just now" if seconds < SMALLEST_TOLD_S else f"{rough(seconds)} ago"


def rough(seconds: float) -> str:
    """'42 s', '12 min', '3 h 5 min', '2 d 4 h'."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    if minutes < 120:
        return f"{minutes} min"
    hours, rest = divmod(minutes, 60)
    return f"{hours} h {rest} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def position(training: Training) -> str:
    """'step 1,200 of 7,800 (15 %), epoch 3.8 of 25'."""
    total = f" of {training.num_steps:,}" if training.num_steps else ""
    share = f" ({training.share:.0%})".replace("%", " %") if training.share is not None else ""
    epochs = f" of {training.num_epochs:g}" if training.num_epochs else ""
    return f"step {training.done_steps:,}{total}{share}, epoch {training.epoch:.1f}{epochs}"


def losses(training: Training) -> str:
    """'loss 0.4012 (mean of the last 20 rows 0.4205)'."""
    return f"loss {formatting.loss(training.loss)}, smoothed {formatting.loss(training.smoothed_loss)}"


def speed(training: Training) -> str:
    """Learning rate, images per second and time left, as far as they are known."""
    parts = []
    if training.lr is not None:
        parts.append(f"learning rate {training.lr:.3g}")
    if training.images_per_s is not None:
        parts.append(f"{training.images_per_s:,.0f} images/s")
    if training.seconds_left is not None:
        parts.append(f"{rough(training.seconds_left)} left")
    return ", ".join(parts)


def news(training: Training) -> str:
    """How old the newest row is. A run without news may compute, wait or be dead: from the files alone nobody can tell."""
    if training.row_age_s is None:
        return "went on from a checkpoint; no step was told of since"
    if training.is_late:
        return f"no news since {rough(training.row_age_s)}"
    return f"last news {age(training.row_age_s)}"


def checkpoint(found: Checkpoint) -> str:
    return f"checkpoint at step {found.num_steps:,}, {age(found.age_s)}"


def writer(holder: Holder) -> str:
    """Who writes the run, and how surely that is known."""
    match holder.state:
        case "alive":
            return f"process {holder.pid} of this machine holds the run's lock"
        case "gone":
            return "no process of this machine holds the run's lock; the same command goes on from what is there"
        case "elsewhere":
            return f"begun on {holder.host} (process {holder.pid}); whether it lives cannot be seen from here"
        case _:
            return "who writes it is not known"


def state(stage: StageView) -> str:
    """State in a word or two, with what a person wants to know beside it."""
    match stage.state:
        case "running" if stage.training is None:
            return "runs"
        case "waiting" if stage.checkpoint is not None:
            return f"waits; {checkpoint(stage.checkpoint)}"
        case "earlier":
            return "from an earlier run; may run again"
        case "blocked":
            return "not run: it builds on a stage that failed"
        case _:
            return {"waiting": "waits", "running": "trains", "stopped": "stopped", "done": "done", "failed": "FAILED"}[stage.state]
