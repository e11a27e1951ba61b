"""What can be timed: one model on one runtime, opened for a batch size and a number of threads when its turn comes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

from g2sd_deploy.settings.profile import RuntimeName

if TYPE_CHECKING:
    from g2sd_deploy.profiling.layers import LayerSubject

RUNTIMES: tuple[RuntimeName, ...] = get_args(RuntimeName)
ON_CPU: tuple[RuntimeName, ...] = ("torch", "torch-compile", "onnxruntime", "openvino")
TORCH: tuple[RuntimeName, ...] = ("torch", "torch-compile", "torch-cuda", "torch-compile-cuda")
"""Those that run weights; the others run files."""

NO_COPIES = "it computes in the memory of the host: nothing is copied to a device"


@dataclass(frozen=True)
class Case:
    """What all of one session share.

    Attributes:
        batch: Images of a call.
        threads: Of a runtime on the CPU.
    """

    batch: int
    threads: int


@dataclass(frozen=True)
class Opened:
    """A model that is ready to be called.

    Attributes:
        call: One batch; returns when the answer is on the host.
        version: Of the runtime.
        provider: What the runtime computes with, where it has a choice.
        phases: One call with its parts timed apart, in ms: `to_device_ms`, `compute_ms`, `from_device_ms`; None where nothing is copied.
    """

    call: Callable[[], object]
    version: str
    provider: str = ""
    phases: Callable[[], Mapping[str, float]] | None = None


@dataclass(frozen=True)
class Candidate:
    """A model on a runtime.

    Attributes:
        model: As it was asked for: a path, a name, or a role in a run.
        runtime: Who computes.
        precision: Number format of the matrix products; empty where nobody says.
        open: Makes it ready; raises UserError where it cannot run here.
        variant: Of a bundle; empty otherwise.
        digest: SHA-256 of the model's file, or of its bundle's manifest.
        file_bytes: Size of the file that is run, or of the weights.
        refusal: Why it is not run at all; empty where it may be tried.
        layers: What its layers are asked of; None where the runtime tells nothing of layers.
    """

    model: str
    runtime: RuntimeName
    precision: str
    open: Callable[[Case], Opened]
    variant: str = ""
    digest: str = ""
    file_bytes: int | None = None
    refusal: str = ""
    layers: "Callable[[], LayerSubject] | None" = None

    @property
    def on_gpu(self) -> bool:
        """Whether a GPU computes, so that threads of the CPU mean nothing."""
        return self.runtime not in ON_CPU

    @property
    def label(self) -> str:
        """For people, and unique among the candidates of a profile."""
        return " ".join(part for part in (self.model, self.variant, self.runtime, self.precision) if part)

    def row(self, case: Case, scenario: str) -> dict[str, Any]:
        """What a profile says of it whether it was timed or not."""
        return {
            "model": self.model,
            "variant": self.variant,
            "runtime": self.runtime,
            "version": "",
            "provider": "",
            "precision": self.precision,
            "digest": self.digest,
            "file_bytes": self.file_bytes,
            "batch": case.batch,
            "threads": None if self.on_gpu else case.threads,
            "scenario": scenario,
        }


def refused(model: str, runtime: RuntimeName, reason: str, *, variant: str = "", digest: str = "", precision: str = "") -> Candidate:
    """A row that says why there are no numbers."""
    return Candidate(model, runtime, precision, _never, variant, digest, refusal=reason)


def _never(case: Case) -> Opened:
    raise AssertionError(f"a refused candidate was opened for {case}")
