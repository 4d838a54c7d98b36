"""How the process treats memory that tensors on the CPU have freed."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_MORE = 2**26


def keep_freed_memory() -> bool:
    """Let the C library keep freed memory for the next tensors instead of returning it.

    By default glibc hands large blocks back to the system as they are freed, and every training
    step takes them anew, page by page. A process that keeps them peaks at the same size, stays
    there, and spends its time on the network. Call it in programs, not in libraries: it concerns
    the whole process, once and for all.

    Returns:
        Whether the settings were taken; only glibc knows them. Elsewhere, as on macOS and
        Windows, nothing happens.

    References:
        mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html

    Example:
        >>> keep_freed_memory() in (True, False)
        True
    """
    if not _is_glibc():
        return False
    mallopt = ctypes.CDLL(None).mallopt
    settings = ((_M_MMAP_THRESHOLD, _NEVER), (_M_TRIM_THRESHOLD, _NEVER), (_M_TOP_PAD, _MORE))
    return all(mallopt(name, value) == 1 for name, value in settings)


def _is_glibc() -> bool:
    """Return whether the process runs on glibc."""
    confstr = getattr(os, "confstr", None)  # Windows has none
    try:
        return confstr is not None and "glibc" in (confstr("CS_GNU_LIBC_VERSION") or "")
    except (ValueError, OSError):  # a C library that does not know the name
        return False
