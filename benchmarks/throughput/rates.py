"""How fast this machine multiplies matrices: measured, and as published."""

import time

import torch

PUBLISHED_TFLOPS = {"H200": 989.4, "H100 PCIe": 756.0, "H100": 989.4, "A100": 312.0, "L40S": 362.0, "L4": 121.0, "RTX 4090": 165.2}
"""Dense bf16 on tensor cores, of NVIDIA's data sheets; the first name that a device's own contains counts."""


def published_flops(device: torch.device) -> float | None:
    """Published bf16 rate of a GPU in FLOP/s; None where we know none."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((1e12 * tflops for part, tflops in PUBLISHED_TFLOPS.items() if part in name), None)


def matmul_flops(device: torch.device, dtype: torch.dtype) -> float:
    """Fastest of several products of large square matrices, in FLOP/s."""
    side, repeats = (8192, 30) if device.type == "cuda" else (2048, 8)
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    times = []
    for _ in range(repeats + 3):
        start = _now(device)
        torch.mm(a, b)
        times.append(_now(device) - start)
    return 2 * side**3 / min(times[3:])


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
