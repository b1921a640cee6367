"""Reader of an untrusted JSON file."""

from __future__ import annotations

import json
import os
from typing import Any

#: Largest file in bytes.
MAX_BYTES = 2**26


def read_json(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: Not JSON, not an object, too large or too deep. The message names the file.
    """
    path = os.fspath(path)
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise ValueError(f"{size} bytes, and at most {MAX_BYTES} are read")
        with open(path, encoding="utf-8") as file:
            content = json.load(file)
        if not isinstance(content, dict):
            raise ValueError(f"it holds a {type(content).__name__}")
    except FileNotFoundError:
        raise
    except RecursionError as error:
        raise ValueError(f"{path} must be a JSON object (it nests too deep)") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} must be a JSON object ({error})") from error
    return content
