"""How a process keeps its memory."""

from __future__ import annotations

import ctypes

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""


def keep_freed_memory() -> None:
    """Let what is freed stay with the process, up to a GiB, rather than go back to the system.

    The gradients of a large layer are freed and asked for again at every step. By default glibc returns them each time,
    and the system clears them again page by page, which takes up to a third of a training step on a CPU. Without glibc
    this does nothing.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    mallopt(TRIM_THRESHOLD, 2**30)
    mallopt(MMAP_THRESHOLD, 2**25)
