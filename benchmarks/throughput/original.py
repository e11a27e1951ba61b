"""The authors' side: their models and their own `train_one_epoch`, patched from outside just enough to run. None of their code is here.

What is patched, all at run time:
- `torch._six` and `numpy.float`, which torch and numpy no longer have, and an empty `IPython`;
- the literal 196 of `torch.rand(batch, 196)` in engine_distill.py, the number of patches at 224 px: answered with that of the case;
- on a CPU: `torch.cuda.synchronize` does nothing, and `mixup_target`'s device is the CPU. `torch.cuda.amp` switches itself off there; in a
  side named bf16 its `autocast` is the CPU's, to bfloat16, around just what the authors put into it.
"""

import argparse
import contextlib
import functools
import importlib
import io
import math
import sys
import time
import types
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from throughput.cases import CUTMIX, LAYER_DECAY, MASK_RATIO, MIXUP, SMOOTHING, Case


class Original:
    """Trains a case with the authors' code, in the batches it is given."""

    def __init__(self, case: Case, batch: int, device: torch.device, precision: str, original: Path, timm032: Path) -> None:
        self.case, self.batch_size, self.device = case, batch, device
        _shim(device, precision, original, timm032)
        generic = case.stage == "generic"
        self.misc = importlib.import_module("util.misc")
        self.models = importlib.import_module("models_mae" if generic else "models_vit")
        self.engine = importlib.import_module("engine_distill" if generic else "engine_finetune_dis")

    def build(self) -> None:
        """Make both networks, the optimiser and a batch."""
        generator = torch.Generator().manual_seed(0)
        px = self.case.student.image_px
        images = torch.randn(self.batch_size, 3, px, px, generator=generator)
        labels = torch.randint(self.case.num_classes, (self.batch_size,), generator=generator)
        self.batch = (images.pin_memory(), labels.pin_memory()) if self.device.type == "cuda" else (images, labels)
        torch.manual_seed(0)
        self.epoch = self._generic() if self.case.stage == "generic" else self._specific()

    def run(self, steps: int) -> list[float]:
        """Seconds of each of some steps."""
        loader = TimedBatches(self.batch, steps)
        with contextlib.redirect_stdout(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.epoch(loader)
        return loader.seconds

    def _generic(self) -> Any:
        case, batch = self.case, self.batch_size
        teacher = _masked(self.models, case.teacher, case.teacher_decoder, teacher=True, suplayer=case.teacher_blocks, supervise_all=True)
        student = _masked(
            self.models,
            case.student,
            case.student_decoder,
            encoder_pred_channel=case.teacher.width,
            decoder_pred_channel=case.teacher_decoder.width,
            supervise_all=True,
        )
        teacher.to(self.device).requires_grad_(False)
        student.to(self.device)
        groups = importlib.import_module("timm.optim.optim_factory").add_weight_decay(student, 0.05)
        optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.95))
        args, scaler, real = _args(mask_ratio=MASK_RATIO), self.misc.NativeScalerWithGradNormCount(), torch.rand

        def rand(*size: Any, **rest: Any) -> Tensor:
            return real(batch, case.student.num_patches, **rest) if size == (batch, 196) else real(*size, **rest)

        def epoch(loader: "TimedBatches") -> None:
            torch.rand = rand
            try:
                self.engine.train_one_epoch(student, loader, optimizer, self.device, 0, scaler, args=args, model_teacher=teacher)
            finally:
                torch.rand = real

        return epoch

    def _specific(self) -> Any:
        case, models, decay = self.case, self.models, importlib.import_module("util.lr_decay")
        student = _classifier(models, case.student, case.num_classes, distillation=True, use_distoken=True).to(self.device)
        teacher = _classifier(models, case.teacher, case.num_classes, global_pool=True).to(self.device).requires_grad_(False)
        skip = student.no_weight_decay()
        groups = decay.param_groups_lrd(student, 0.05, no_weight_decay_list=skip, layer_decay=LAYER_DECAY)
        optimizer = torch.optim.AdamW(groups, lr=1e-4)
        mixup = importlib.import_module("timm.data.mixup").Mixup(
            mixup_alpha=MIXUP, cutmix_alpha=CUTMIX, label_smoothing=SMOOTHING, num_classes=case.num_classes
        )
        criterion = importlib.import_module("timm.loss").SoftTargetCrossEntropy()
        args, scaler = _args(enable_nkd=False), self.misc.NativeScalerWithGradNormCount()

        def epoch(loader: "TimedBatches") -> None:
            self.engine.train_one_epoch(
                student, teacher, criterion, loader, optimizer, self.device, 0, scaler, None, mixup_fn=mixup, args=args
            )

        return epoch


class TimedBatches:
    """A loader of one batch, again and again, that measures from when it hands one out until it is asked for the next."""

    def __init__(self, batch: tuple[Tensor, Tensor], steps: int) -> None:
        self.batch, self.steps = batch, steps
        self.seconds: list[float] = []

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _ in range(self.steps):
            images = self.batch[0] if self.batch[0].is_pinned() else self.batch[0].clone()  # a CPU's mixup writes into it
            start = time.perf_counter()
            yield images, self.batch[1]
            self.seconds.append(time.perf_counter() - start)


def _args(**rest: Any) -> argparse.Namespace:
    return argparse.Namespace(accum_iter=1, lr=1e-4, min_lr=1e-6, warmup_epochs=0, epochs=300, **rest)


def _masked(models: Any, encoder: Any, decoder: Any, **rest: Any) -> nn.Module:
    built: nn.Module = models.MaskedAutoencoderViT(
        **_shape(encoder),
        decoder_embed_dim=decoder.width,
        decoder_depth=decoder.depth,
        decoder_num_heads=decoder.heads,
        norm_pix_loss=True,
        **rest,
    )
    return built


def _classifier(models: Any, encoder: Any, num_classes: int, **rest: Any) -> nn.Module:
    built: nn.Module = models.VisionTransformer(**_shape(encoder), qkv_bias=True, num_classes=num_classes, **rest)
    return built


def _shape(encoder: Any) -> dict[str, Any]:
    return {
        "img_size": encoder.image_px,
        "patch_size": encoder.patch_px,
        "embed_dim": encoder.width,
        "depth": encoder.depth,
        "num_heads": encoder.heads,
        "mlp_ratio": encoder.mlp_ratio,
        "norm_layer": functools.partial(nn.LayerNorm, eps=1e-6),
    }


def _shim(device: torch.device, precision: str, original: Path, timm032: Path) -> None:
    import collections.abc

    import numpy as np

    six, ipython = types.ModuleType("torch._six"), types.ModuleType("IPython")
    vars(six).update(inf=math.inf, container_abcs=collections.abc, string_classes=(str, bytes), int_classes=int)
    vars(ipython).update(embed=None)
    sys.modules.update({"torch._six": six, "IPython": ipython})
    vars(np)["float"] = float
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        del sys.modules[name]  # ours, a newer one, that the shapes of a case are written with
    sys.path[:0] = [str(original / "G2SD"), str(timm032)]
    warnings.simplefilter("ignore")
    found = importlib.import_module("timm").__version__
    if found != "0.3.2":
        raise SystemExit(f"--timm: {timm032} holds timm {found}; wanted 0.3.2, the version that the authors ask for")
    if device.type == "cpu":
        if precision == "bf16":
            torch.cuda.amp.autocast = functools.partial(torch.autocast, "cpu", torch.bfloat16)
        torch.cuda.synchronize = lambda *_, **__: None
        mixup = importlib.import_module("timm.data.mixup")
        mixup.mixup_target = functools.partial(mixup.mixup_target, device="cpu")
