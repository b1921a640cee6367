"""Reader of untrusted checkpoints: tensors and plain values only.

[0] https://pytorch.org/docs/stable/notes/serialization.html (weights_only)
"""

from __future__ import annotations

import contextlib
import os
import pickle
import pickletools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any

import torch

#: Largest pickle in bytes; it holds names and plain values, not the weights.
MAX_PICKLE = 2**26
#: Maximum number of values; the size of the file in bytes is a second limit.
MAX_VALUES = 20_000_000
#: Globals that the pickle of a valid file may contain.
_HARMLESS = re.compile(
    r"torch\.(\w+Storage|Size|device|dtype|b?float\w*|u?int\d+|bool|complex\d+)"
    r"|torch\._utils\._rebuild\w*|torch\._tensor\._rebuild\w*|torch\.storage\.\w+"
    r"|collections\.(OrderedDict|Counter|defaultdict)|_codecs\.encode"
)


def load_tensors(path: str | os.PathLike[str], what: str = "checkpoint") -> Any:
    """Load a file of ``torch.save`` on the CPU with ``weights_only=True`` [0].

    Args:
        path: The file.
        what: Kind of the file, for error messages.

    Raises:
        FileNotFoundError: The file does not exist.
        ValueError: The file is damaged, its pickle calls code (named in the message), or its
            content is much larger than the file. The message names the file.
    """
    path = os.fspath(path)
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{what} {path}: no such file")
    try:
        with warnings.catch_warnings():
            # Warnings about legacy formats are not useful: the file is read, or an error is raised.
            warnings.simplefilter("ignore", UserWarning)
            _check_archive(path)
            with _short_messages():
                content = torch.load(path, map_location="cpu", weights_only=True)
        _check_extent(content, os.path.getsize(path))
    except Exception as error:  # a damaged file can raise errors of many types
        code = sorted(set(_code_in(path))) if isinstance(error, pickle.UnpicklingError) else []
        if code:
            raise ValueError(
                f"{what} {path} is refused: it holds more than tensors and plain values, and asks"
                f" to run {', '.join(code[:3])}; take a file from someone you trust, saved as a"
                " state dict"
            ) from error
        raise ValueError(
            f"{what} {path} cannot be loaded: it is damaged, or no file of tensors"
            f" ({_other_kind(path) or _reason(error)})"
        ) from error
    return content


def _other_kind(path: str) -> str:
    """Return the kind of a file that a failed download wrote instead of weights, or ""."""
    with open(path, "rb") as file:
        start = file.read(1024).lstrip().lower()
    if start.startswith(b"<") and (b"html" in start or b"<?xml" in start):
        return "it is a web page, such as one that asks to confirm a download: download it again"
    if start.startswith(b"version https://git-lfs.github.com"):
        return "it is a pointer of Git LFS: fetch the file with git lfs pull"
    return ""


class _ShortError(pickle.UnpicklingError):
    """Error of the safe unpickler with a message of bounded length."""

    def __str__(self) -> str:
        return super().__str__()[:300]


@contextlib.contextmanager
def _short_messages() -> Iterator[None]:
    """Shorten messages of torch's unpickler while a file is loaded.

    torch searches its error message with a regular expression that takes quadratic time. This takes
    hours for a name of 100 kB in a damaged pickle. There is no public option to avoid it.
    """
    module = getattr(torch, "_weights_only_unpickler", None)
    before = getattr(module, "UnpicklingError", None)
    if module is None or before is None:
        yield
        return
    module.UnpicklingError = _ShortError
    try:
        yield
    finally:
        module.UnpicklingError = before


def check_state_dict(path: str, state: Any) -> None:
    """Raise an error unless ``state`` is a state dict.

    Raises:
        ValueError: An entry is not a name with a tensor; the message names file and entry.
    """
    if not isinstance(state, Mapping):
        raise ValueError(
            f"checkpoint {path} must hold the weights of a model by name, got a"
            f" {type(state).__name__}"
        )
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise ValueError(
                f"checkpoint {path} must hold a tensor by the name of each weight, got"
                f" {type(value).__name__} under {key!r:.60}"
            )


def _check_archive(path: str) -> None:
    """Raise an error for a zip with compressed entries, which ``torch.save`` does not write.

    Raises:
        ValueError: The reason.
        zipfile.BadZipFile: The file is truncated.
    """
    with open(path, "rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    total = sum(member.file_size for member in members)
    if total > os.path.getsize(path):
        raise ValueError(f"its entries unfold into {total} bytes")
    large = [m for m in members if m.filename.endswith("data.pkl") and m.file_size > MAX_PICKLE]
    if large:
        raise ValueError(f"a pickle of {large[0].file_size} bytes")


def _check_extent(content: Any, size: int) -> None:
    """Raise an error for content many times the size of its file.

    Examples are tensors with a stride of zero, and nested references to one list.

    Raises:
        ValueError: The content is too large.
    """
    total, left = 0, min(size, MAX_VALUES) + 10_000
    waiting = [content]
    while waiting:
        node = waiting.pop()
        left -= 1
        if left < 0:
            raise ValueError("its lists unfold into more values than it has bytes")
        if isinstance(node, torch.Tensor):
            total += node.numel() * node.element_size()
        elif isinstance(node, Mapping):
            waiting += node.values()
        elif isinstance(node, (list, tuple, set)):
            waiting += node
    if total > 16 * size + 2**20:
        raise ValueError(f"its tensors unfold into {total} bytes")


def _reason(error: BaseException) -> str:
    """Return the error in one line, without torch's advice to set ``weights_only=False``."""
    text = str(error) or type(error).__name__
    if text.startswith("Weights only load failed"):
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        telling = [line for line in lines if line.startswith(("Unsupported", "Trying to", "Got"))]
        return telling[0] if telling else "no pickle of tensors"
    return " ".join(text.split())[:200]


def _code_in(path: str) -> Iterator[str]:
    """Yield dotted names of the globals that a pickle calls, without those of tensors.

    The pickle is parsed, not run.
    """
    for data in _pickles(path):
        texts: list[str] = []
        try:
            for opcode, argument, _ in pickletools.genops(data):
                name = ""
                if opcode.name in ("GLOBAL", "INST"):
                    name = str(argument).replace(" ", ".")
                elif opcode.name == "STACK_GLOBAL" and len(texts) > 1:
                    name = ".".join(texts[-2:])
                elif isinstance(argument, str):
                    texts = [*texts[-1:], argument]
                if name and not _HARMLESS.fullmatch(name):
                    yield name[:80]
        except Exception:  # truncated: report the names found so far
            continue


def _pickles(path: str) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.endswith(".pkl") and member.file_size <= MAX_PICKLE:
                    yield archive.read(member)
    except Exception:  # not a zip: the whole file may be a pickle
        with open(path, "rb") as file:
            yield file.read(MAX_PICKLE)
