"""Reader of the arrays of an ``.npz``, without pickles and with bounded memory.

[0] https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html

Notation: N images.
"""

from __future__ import annotations

import os
import zipfile
from dataclasses import dataclass

import numpy as np

#: Limit in bytes of all arrays of a file: 4 million images with paths of 60 characters.
MAX_BYTES = 2**30
_STORED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


def read_arrays(
    path: str | os.PathLike[str], *names: str, limit: int = MAX_BYTES
) -> dict[str, np.ndarray]:
    """Return the arrays ``names`` of an ``.npz``; other arrays are not read.

    Sizes are read from the headers first, because a file of 10 kB may decompress to 10 GB.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, an array is missing or holds objects (a pickle), or the
            arrays take more than ``limit`` bytes. The message names the file.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            total = sum(_bytes_of(archive, name) for name in names)
            if total > limit:
                raise ValueError(f"its arrays take {total} bytes, and at most {limit} are read")
        with np.load(path, allow_pickle=False) as file:
            return {name: file[name] for name in names}
    except Exception as error:  # zip, zlib, struct and numpy raise different types
        reason = " ".join((str(error) or type(error).__name__).split())[:200]
        raise ValueError(f"{path} is not a file of arrays, or damaged ({reason})") from error


def _bytes_of(archive: zipfile.ZipFile, name: str) -> int:
    """Return the bytes of one array by its header [0]."""
    if archive.namelist().count(f"{name}.npy") != 1:
        found = ", ".join(archive.namelist()[:8]) or "nothing"
        raise ValueError(f"it must hold {name} once; found {found}")
    member = archive.getinfo(f"{name}.npy")
    if member.compress_type not in _STORED or member.flag_bits & 1:
        raise ValueError(f"{name} is encrypted, or has a compression that numpy does not use")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = {
            (1, 0): np.lib.format.read_array_header_1_0,
            (2, 0): np.lib.format.read_array_header_2_0,
        }.get(version)
        if read is None:
            raise ValueError(f"{name} has the unknown format version {version}")
        shape, _, dtype = read(file, max_header_size=10_000)
    if dtype.hasobject:
        raise ValueError(f"{name} holds objects, a pickle: it could run code, and is not read")
    count = 1
    for length in shape:
        if not isinstance(length, int) or length < 0:
            raise ValueError(f"{name} has a negative length")
        count *= length
    return count * dtype.itemsize


@dataclass(frozen=True)
class LabelFile:
    """Labels of one epoch, or of each camera separately.

    Attributes:
        paths: N paths relative to the data root.
        camids: (N,) int64, >= 0.
        labels: (N,) int64, >= -1.
    """

    paths: list[str]
    camids: np.ndarray
    labels: np.ndarray


def read_labels(path: str | os.PathLike[str]) -> LabelFile:
    """Return the validated content of a label file.

    Raises:
        FileNotFoundError, ValueError: See :func:`read_arrays`; also inconsistent arrays.
    """
    arrays = read_arrays(path, "paths", "camids", "labels")
    paths = arrays["paths"]
    if paths.ndim != 1 or paths.dtype.kind != "U" or not len(paths):
        raise ValueError(
            f"{os.fspath(path)} is no file of labels: paths must be (N,) texts, got"
            f" {paths.dtype} {paths.shape}"
        )
    numbers = {}
    for name, least in (("camids", 0), ("labels", -1)):
        array = arrays[name]
        if array.shape != paths.shape or array.dtype.kind not in "iu":
            raise ValueError(
                f"{os.fspath(path)} is no file of labels: {name} must be"
                f" ({len(paths)},) integers, got {array.dtype} {array.shape}"
            )
        if int(array.min()) < least or int(array.max()) >= len(paths):
            raise ValueError(
                f"{os.fspath(path)} is no file of labels: {name} must be in {least}.."
                f"{len(paths) - 1}, got {array.min()}..{array.max()}"
            )
        numbers[name] = array.astype(np.int64)
    return LabelFile([str(p) for p in paths], numbers["camids"], numbers["labels"])
