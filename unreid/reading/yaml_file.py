"""Reader of untrusted settings in YAML, with the ``_BASE_`` files, as nested dicts.

These files are rejected: files with object tags, files that expand to many values (aliases of
aliases), files that nest too deeply, and files that are their own base.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import yaml

#: Largest file in bytes; a full config has about ten thousand.
MAX_BYTES = 2**16
#: Maximum numbers of values after expansion of aliases, of aliases, and of nesting levels.
MAX_VALUES, MAX_ALIASES, MAX_DEPTH = 20_000, 64, 20
#: Maximum number of files in a ``_BASE_`` chain.
MAX_BASES = 16
_BASE = "_BASE_"


class _Loader(yaml.SafeLoader):
    """Safe loader that limits aliases and values merged by ``<<``."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._aliases = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            self._aliases += 1
            if self._aliases > MAX_ALIASES:
                raise ValueError(f"more than {MAX_ALIASES} aliases")
        return super().compose_node(parent, index)

    def flatten_mapping(self, node: Any) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MAX_VALUES:
            raise ValueError(f"more than {MAX_VALUES} merged values")


def read_yaml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the nested settings of one file; its ``_BASE_`` is not read.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The content is invalid; the message names the file and the reason.
    """
    path = os.fspath(path)
    try:
        size = os.path.getsize(path)
        if size > MAX_BYTES:
            raise ValueError(f"{size} bytes, and at most {MAX_BYTES} are read")
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, _Loader)  # a SafeLoader
        if not isinstance(content, dict):
            raise ValueError(f"it holds {_kind(content)}")
        _check_extent(content)
    except FileNotFoundError:
        raise
    except RecursionError as error:
        raise ValueError(f"{path} must be a yml of nested keys (it nests too deep)") from error
    except yaml.constructor.ConstructorError as error:
        tag = (error.problem or "").partition("tag '")[2].rstrip("'")
        why = (
            f"the tag {tag} would make an object: only plain values are read"
            if "python" in tag
            else error.problem
        )
        raise ValueError(f"{path} must be a yml of nested keys ({why})") from error
    except (
        OSError,
        yaml.YAMLError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        OverflowError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise ValueError(f"{path} must be a yml of nested keys ({reason})") from error
    return content


def read_with_bases(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Return the settings of a file, merged recursively into those of its ``_BASE_`` file.

    Args:
        path: File to read. A ``_BASE_`` is a path relative to the file that contains it, an
            absolute path, or a path that begins with ``~``.

    Raises:
        FileNotFoundError: The file or a base does not exist; for a base, the message names both.
        ValueError: See :func:`read_yaml`; also a base that is not a file name, or a file that is
            its own base.
    """
    chain: list[dict[str, Any]] = []
    seen: list[str] = []
    current = os.fspath(path)
    while True:
        seen.append(os.path.realpath(current))
        content = read_yaml(current)
        chain.append(content)
        if _BASE not in content:
            break
        base = content.pop(_BASE)
        if not isinstance(base, str) or not base or "\0" in base:
            raise ValueError(f"{current}: _BASE_ must be the name of a file, got {base!r}")
        if "://" in base:
            raise ValueError(f"{current}: _BASE_ must be a file on this machine, got {base}")
        following = os.path.join(os.path.dirname(current), os.path.expanduser(base))
        if os.path.realpath(following) in seen:
            raise ValueError(
                f"{current}: _BASE_ {base} leads back to a file that it is the base of"
            )
        if len(seen) >= MAX_BASES:
            raise ValueError(f"{current}: more than {MAX_BASES} files are based on each other")
        if not os.path.isfile(following):
            raise FileNotFoundError(f"{current}: no file {following} (_BASE_)")
        current = following
    merged: dict[str, Any] = {}
    for content in reversed(chain):
        _merge(content, merged, current)
    return merged


def _merge(above: Mapping[str, Any], below: dict[str, Any], path: str) -> None:
    for key, value in above.items():
        if isinstance(value, dict) and key in below:
            if not isinstance(below[key], dict):
                raise ValueError(
                    f"{path}: {key} is a node of keys in one file and a value in another"
                )
            _merge(value, below[key], path)
        else:
            below[key] = value


def _check_extent(content: Any) -> None:
    """Check the size after expansion of aliases, which can be exponential in the file size.

    Raises:
        ValueError: Too many values, too many levels, or a key that is not text.
    """
    left = MAX_VALUES
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        node, depth = waiting.pop()
        left -= 1
        if left < 0:
            raise ValueError(f"it unfolds into more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise ValueError(f"it nests deeper than {MAX_DEPTH} levels")
        if isinstance(node, dict):
            for key in node:
                if not isinstance(key, str):
                    raise ValueError(f"keys must be text, got {key!r:.60}")
            waiting += [(value, depth + 1) for value in node.values()]
        elif isinstance(node, (list, tuple, set)):
            waiting += [(value, depth + 1) for value in node]


def _kind(content: Any) -> str:
    return "nothing" if content is None else f"a {type(content).__name__}"
