"""Write files atomically: after a crash a file has its old or its new content, never a part."""

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
    """Open a temporary file in the folder of ``path``, and rename it once it is on disk.

    Args:
        path: The file to write or replace.
        mode: Mode of :func:`open`, ``"w"`` or ``"wb"``.

    Raises:
        OSError: The write failed (disk full, no permission). The message names ``path`` and states
            that its previous content is unchanged.
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
            cause.errno, f"could not write {path} ({cause}); its previous content is unchanged"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def _failed_write(error: BaseException | None) -> OSError | None:
    """Return the OSError that caused ``error``, or None.

    The writer of torch raises a RuntimeError when it is closed after a failed write.
    """
    while error is not None and not isinstance(error, OSError):
        error = error.__context__
    return error


def _sync_folder(folder: str) -> None:
    """Flush the renamed entry of the folder to disk; some file systems do not support it."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: str, line: str) -> None:
    """Append ``line`` to a file and flush it to disk.

    A process that is killed meanwhile leaves at most one incomplete last line.

    Raises:
        OSError: The write failed (disk full, no permission). The message names ``path``; the file
            is truncated to its previous length.
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
            error.errno, f"could not write {path} ({error}); its previous content is unchanged"
        ) from error


def save_json(path: str, content: Mapping[str, Any]) -> None:
    """Write indented JSON atomically."""
    with replace_file(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def save_arrays(path: str, **arrays: np.ndarray) -> None:
    """Write a compressed ``.npz`` without pickles atomically."""
    with replace_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
