"""Validation of arguments, with error messages that name the expected and the found value.

Notation: N images, D channels.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Sequence
from numbers import Integral, Real
from typing import Any

import numpy as np

#: Largest accepted deviation of the norm of a unit row from 1.
UNIT_TOLERANCE = 1e-3


def _range_words(minimum: float | None, maximum: float | None, open_minimum: bool) -> str:
    words = []
    if minimum is not None:
        words.append(f"{'>' if open_minimum else '>='} {minimum}")
    if maximum is not None:
        words.append(f"<= {maximum}")
    return " and ".join(words)


def check_integer(
    name: str, value: Any, minimum: int | None = None, maximum: int | None = None
) -> int:
    """Return ``value`` as an int, or raise ``ValueError`` naming ``name`` and the range."""
    words = _range_words(minimum, maximum, False)
    wanted = f"an integer {words}".rstrip()
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    number = int(value)
    if (minimum is not None and number < minimum) or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def check_number(
    name: str,
    value: Any,
    minimum: float | None = None,
    maximum: float | None = None,
    *,
    open_minimum: bool = False,
) -> float:
    """Return ``value`` as a finite float inside the range, or raise ``ValueError``.

    ``open_minimum`` excludes ``minimum`` itself.
    """
    words = _range_words(minimum, maximum, open_minimum)
    wanted = f"a number {words}".rstrip()
    if isinstance(value, bool) or not isinstance(value, Real) or not _is_finite(value):
        raise ValueError(f"{name} must be {wanted}, got {value!r:.60}")
    number = float(value)
    below = minimum is not None and (number <= minimum if open_minimum else number < minimum)
    if below or (maximum is not None and number > maximum):
        raise ValueError(f"{name} must be {wanted}, got {value!r}")
    return number


def _is_finite(value: Real) -> bool:
    """Return whether a value is finite as a float; an integer that overflows is not."""
    try:
        return math.isfinite(value)
    except OverflowError:
        return False


def nearest(name: str, known: Iterable[str]) -> str:
    """Return the hint ``; did you mean 'x'?`` for the known name nearest to ``name``, or ``""``."""
    known = list(known)
    folded = {k.lower(): k for k in known}
    close = difflib.get_close_matches(str(name).lower(), list(folded), n=1, cutoff=0.6)
    return f"; did you mean {folded[close[0]]!r}?" if close else ""


def check_choice(name: str, value: Any, choices: Sequence[Any]) -> Any:
    """Return ``value`` when it is one of ``choices``, or raise ``ValueError`` listing them."""
    if not any(value is c or (type(value) is type(c) and value == c) for c in choices):
        listed = ", ".join(repr(c) for c in choices)
        hint = nearest(str(value), [str(c) for c in choices])
        raise ValueError(f"{name} must be one of {listed}, got {value!r}{hint}")
    return value


def check_features(name: str, features: Any, *, unit: bool = True) -> None:
    """Raise an error unless ``features`` is a matrix of finite rows, by default of norm 1.

    Args:
        name: Name of the argument in the error message.
        features: (N, D) floating array or torch tensor on any device, N >= 1, D >= 1.
        unit: Whether every row must have norm 1, up to ``UNIT_TOLERANCE``.

    Raises:
        TypeError: ``features`` has no shape, or is not floating point.
        ValueError: Wrong number of axes, no row, NaN or infinity, or a row whose norm is not 1.
    """
    shape = getattr(features, "shape", None)
    if shape is None:
        raise TypeError(f"{name} must be an array or tensor (N, D), got {type(features).__name__}")
    if len(shape) != 2 or shape[0] < 1 or shape[1] < 1:
        raise ValueError(f"{name} must have shape (N, D) with N, D >= 1, got {tuple(shape)}")
    if "float" not in str(features.dtype):
        raise TypeError(f"{name} must be floating point, got {features.dtype}")
    if isinstance(features, np.ndarray):
        squared = np.einsum("ij,ij->i", features, features, dtype=np.float64)
    else:
        # The float32 norm avoids an (N, D) temporary in float64.
        lengths = features.detach().float().norm(dim=1)
        squared = lengths.double().square().cpu().numpy()
    bad = np.flatnonzero(~np.isfinite(squared))
    if bad.size:
        raise ValueError(f"{name} must be finite, but row {bad[0]} holds NaN or infinity")
    if unit:
        off = np.flatnonzero(np.abs(np.sqrt(squared) - 1.0) > UNIT_TOLERANCE)
        if off.size:
            length = math.sqrt(squared[off[0]])
            raise ValueError(
                f"{name} must have unit rows, but row {off[0]} has length {length:.4g}"
                f" ({off.size} of {shape[0]} rows are off); divide each row by its length"
            )


def check_targets(name: str, targets: Any, num_clusters: int) -> None:
    """Raise an error unless the labels of a batch are integers in 0..num_clusters-1.

    Call this before indexing, because an index out of range makes a CUDA context unusable.

    Args:
        name: Name of the argument in the error message.
        targets: (B,) integer array or torch tensor on any device; B may be 0.
        num_clusters: C, the number of labels.

    Raises:
        TypeError: ``targets`` is not of an integer type.
        ValueError: A label below 0 or above C - 1.
    """
    if "int" not in str(targets.dtype):
        raise TypeError(f"{name} must be integers, got {targets.dtype}")
    if len(targets) == 0:
        return
    low, high = int(targets.min()), int(targets.max())
    if low < 0 or high >= num_clusters:
        found = low if low < 0 else high
        raise ValueError(f"{name} must be in 0..{num_clusters - 1}, got {found}")
