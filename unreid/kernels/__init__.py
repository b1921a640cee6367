"""Compiled kernels in variants for the processor, and numpy reference implementations.

Every kernel is compiled in up to three variants: ``baseline`` for any processor (the modules
``unreid.kernels.NAME``), ``avx2`` and ``avx512`` (``unreid.kernels.VARIANT.NAME``). The best
built variant that the processor supports is used. A kernel also has a reference implementation in
numpy with the same functions, which is used when nothing was compiled.

Environment variables:
    UNREID_KERNELS: ``baseline``, ``avx2`` or ``avx512``: the best variant that may be used.
    UNREID_PURE_PYTHON: ``1`` uses the numpy implementations.

The kernels contain no VNNI or BF16 instructions: torch computes such products, and
``unreid.graph.triangle`` selects one that the processor supports.
"""

from __future__ import annotations

import functools
import importlib
import os
import warnings
from types import ModuleType

import numpy as np
import torch

from unreid.checks import check_choice

#: Slowest first; every processor can run the first.
VARIANTS = ("baseline", "avx2", "avx512")


@functools.cache
def supported_variants() -> tuple[str, ...]:
    """Return the variants that this processor can run, slowest first.

    torch reports ``AVX2`` for processors with AVX2 and FMA, and ``AVX512`` for those that also have
    AVX-512 F, BW, DQ and VL. setup.py compiles the variants for the same instructions.
    """
    capability = torch.backends.cpu.get_cpu_capability()
    if capability.startswith("AVX512"):
        return VARIANTS
    return VARIANTS[:2] if capability.startswith("AVX2") else VARIANTS[:1]


def kernel(name: str) -> ModuleType | None:
    """Return a compiled kernel, or None to use its numpy implementation.

    Args:
        name: Name of the kernel, such as ``knn``.

    Returns:
        The module of the best built variant, at most ``UNREID_KERNELS``.

    Raises:
        ValueError: ``UNREID_KERNELS`` is not a variant.
        RuntimeError: ``UNREID_KERNELS`` is a variant that this processor cannot run.
    """
    if os.environ.get("UNREID_PURE_PYTHON", "") not in ("", "0"):
        return None
    for variant in reversed(_allowed(os.environ.get("UNREID_KERNELS", ""))):
        module = _load(variant, name)
        if module is not None:
            return module
    return None


def variant_of(module: ModuleType) -> str:
    """Return the variant of a compiled kernel, one of :data:`VARIANTS`."""
    middle = module.__name__.split(".")[-2]
    return middle if middle in VARIANTS else VARIANTS[0]


def _allowed(forced: str) -> tuple[str, ...]:
    """Return the variants that may be loaded, slowest first."""
    supported = supported_variants()
    if not forced:
        return supported
    check_choice("UNREID_KERNELS", forced, VARIANTS)
    if forced not in supported:
        raise RuntimeError(
            f"UNREID_KERNELS={forced} needs instructions that this processor lacks; it can run"
            f" {', '.join(supported)}"
        )
    return supported[: supported.index(forced) + 1]


@functools.cache
def _load(variant: str, name: str) -> ModuleType | None:
    """Import a variant of a kernel; return None if it was not built."""
    folder = "" if variant == VARIANTS[0] else f"{variant}."
    try:
        return importlib.import_module(f"unreid.kernels.{folder}{name}")
    except ImportError:
        return None


def num_threads() -> int:
    """Return the number of threads of a kernel: ``torch.get_num_threads()``."""
    return max(1, torch.get_num_threads())


def zero_copy(array: np.ndarray) -> torch.Tensor:
    """Return a zero-copy view of an array as a tensor, for reading only.

    torch's warning about read-only arrays is suppressed; the caller must not write to the tensor.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return torch.from_numpy(array)
