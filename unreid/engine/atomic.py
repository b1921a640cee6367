"""Files that are either the old or the new one, never half of it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from typing import IO, Any

import numpy as np


@contextlib.contextmanager
def replace_file(path: str, mode: str = "wb") -> Iterator[IO[Any]]:
    """Write to a temporary name beside ``path``; it takes the name when all of it is on disk.

    Raises:
        OSError: the write failed (disk full, no permission); the message names ``path`` and
            says that what stood there before is untouched.
    """
    temporary = f"{path}.{os.getpid()}.tmp"
    try:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        with open(temporary, mode) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise OSError(
            error.errno, f"could not write {path} ({error}); what stood there before is untouched"
        ) from error
    finally:
        with contextlib.suppress(OSError):
            os.remove(temporary)


def save_json(path: str, content: Mapping[str, Any]) -> None:
    """Indented JSON, written whole or not at all."""
    with replace_file(path, "w") as file:
        json.dump(content, file, indent=2)
        file.write("\n")


def save_arrays(path: str, **arrays: np.ndarray) -> None:
    """A compressed ``.npz`` without pickles, written whole or not at all."""
    with replace_file(path) as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
