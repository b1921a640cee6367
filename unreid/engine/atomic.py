"""Files that are either the old or the new one, never half of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np

from unreid.engine.interrupt import defer_signals


@contextlib.contextmanager
def replace_file(path: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write to a temporary name beside ``path``; it takes the name when all of it is on disk.

    Raises:
        OSError: the write failed (disk full, no permission); the message names ``path`` and
            says that what stood there before is untouched.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    folder = os.path.dirname(path) or "."
    try:
        with defer_signals():
            os.makedirs(folder, exist_ok=True)
            with open(temporary, mode) as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
            _sync_folder(folder)
    except (OSError, RuntimeError) as error:
        cause = _failed_write(error)
        if cause is None:
            raise
        raise OSError(
            cause.errno, f"could not write {path} ({cause}); what stood there before is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _failed_write(error: BaseException | None) -> OSError | None:
    """The failed write behind an error: torch's writer, closing after one, raises another."""
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_folder(folder: str) -> None:
    """The new name outlives a loss of power, too; not every file system can say so."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: str, line: str) -> None:
    """Append ``line`` to a file, on disk when this returns.

    A process that is killed meanwhile leaves at most one incomplete last line.

    Raises:
        OSError: the write failed (disk full, no permission); the message names ``path``, and the
            file ends where it ended before.
    """
    try:
        with defer_signals(), open(path, "ab", buffering=0) as file:
            size = file.tell()
            try:
                left = memoryview(line.encode())
                while left:
                    left = left[file.write(left) :]
                os.fsync(file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    file.truncate(size)
                raise
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path} ({error}); what stood there before is untouched"
        ) from error


def save_json(path: str, content: Mapping[str, Any]) -> None:
    """Indented JSON, written whole or not at all."""
    with replace_file(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def save_arrays(path: str, **arrays: np.ndarray) -> None:
    """A compressed ``.npz`` without pickles, written whole or not at all."""
    with replace_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
