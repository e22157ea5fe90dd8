"""How much memory there is, and how a process keeps what it has freed."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Numbers of glibc's mallopt."""
LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")
"""Where a container's limit stands, by the second and the first version of control groups."""


def memory() -> int:
    """Bytes of memory of this machine, or of the container that this runs in."""
    found = [2**63]
    with suppress(AttributeError, OSError, ValueError):  # not on Windows
        found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    for limit in LIMITS:
        with suppress(OSError, ValueError):  # "max" where there is none
            found.append(int(Path(limit).read_text()))
    return min(found)


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
