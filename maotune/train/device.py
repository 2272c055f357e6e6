"""The device of a learner, and the peak memory of its process."""

import sys

import torch

from maotune.contract import AbstractLearner


def device_of(learner: AbstractLearner) -> torch.device:
    """Return the device of the learner's parameters, or of its buffers where nothing is tuned."""
    for tensor in (*learner.parameters(), *learner.buffers()):
        return tensor.device
    return torch.device("cpu")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory so far in bytes: allocated on a CUDA device, else resident in the process (0: unknown)."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    try:
        import resource
    except ImportError:  # Windows
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
