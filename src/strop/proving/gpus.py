"""What a run took of GPUs."""

from typing import Any

import torch


def gpu_cost(wall_seconds: float) -> dict[str, Any]:
    """Return what the cost of a run says of the GPUs this process has used: nothing where it has used none.

    Args:
        wall_seconds: of the run.
    """
    if not torch.cuda.is_available():
        return {}
    peaks = [torch.cuda.max_memory_allocated(device) for device in range(torch.cuda.device_count())]
    used = [peak for peak in peaks if peak]
    return {"gpu_seconds": round(wall_seconds * len(used), 3), "peak_gpu_bytes": sum(used)} if used else {}
