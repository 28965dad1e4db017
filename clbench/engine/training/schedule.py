"""The learning-rate schedule shared by all methods."""

import math


def warmup_cosine(step: int, warmup: int, total: int) -> float:
    """Factor on the peak learning rate: linear warm-up, then cosine to zero.

    ``(step + 1) / warmup`` during warm-up, then ``(1 + cos(pi (step - warmup) / (total -
    warmup))) / 2``, as in the published MTIL protocol (ZSCL).

    >>> [round(warmup_cosine(s, 2, 6), 3) for s in range(7)]
    [0.5, 1.0, 1.0, 0.854, 0.5, 0.146, 0.0]
    """
    if step < warmup:
        return (step + 1) / warmup
    progress = (step - warmup) / max(1, total - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
