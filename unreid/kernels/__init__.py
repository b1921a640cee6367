"""Compiled kernels where they were built, and the way to do without them.

Every kernel has a twin in numpy under the same function names, which is its test oracle and its
fallback: ``UNREID_PURE_PYTHON=1`` in the environment, or an install without a C compiler, makes
``kernel`` answer None, and the caller takes the twin.
"""

from __future__ import annotations

import importlib
import os
import warnings
from types import ModuleType

import numpy as np
import torch


def kernel(name: str) -> ModuleType | None:
    """The compiled module ``unreid.kernels.<name>``, or None when its twin must do the work."""
    if os.environ.get("UNREID_PURE_PYTHON", "") not in ("", "0"):
        return None
    try:
        return importlib.import_module(f"unreid.kernels.{name}")
    except ImportError:
        return None


def num_threads() -> int:
    """Threads a kernel may use: torch's number, so that one setting rules both."""
    return max(1, torch.get_num_threads())


def borrow(array: np.ndarray) -> torch.Tensor:
    """A tensor on the memory of an array, for reading only.

    torch warns of arrays that are read-only, as a bank's features are; who borrows does not write.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
