"""How the process handles memory freed by CPU tensors."""

from __future__ import annotations

import ctypes
import os

# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3
_NEVER = 2**31 - 1
_MORE = 2**26


def keep_freed_memory() -> bool:
    """Make the C library keep freed memory for later tensors instead of returning it.

    By default glibc returns large blocks to the system as they are freed, and every training step
    requests them again, page by page. Keeping them avoids that cost; the peak size of the process
    is the same, but it does not shrink. Call this in programs, not in libraries: it affects the
    whole process and cannot be undone.

    Returns:
        Whether the settings were applied. Only glibc supports them; on macOS and Windows nothing
        happens.

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
