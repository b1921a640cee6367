"""JSON from untrusted files."""

from __future__ import annotations

from pathlib import Path

import pytest

from unreid.reading.json_file import read_json


def test_object__comes_as_a_dict(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"a": [1, null]}')
    assert read_json(tmp_path / "a.json") == {"a": [1, None]}


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "Expecting value"),
        (b'{"a": ', "Expecting value"),
        (b"[1]", "it holds a list"),
        (b"\xff\xfe", "codec"),
        (b'{"a": ' + b"[" * 100_000, "nests too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "digits"),
    ],
)
def test_anything_else__is_named_with_the_reason(content: bytes, why: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ValueError, match=rf"a\.json must be a JSON object \(.*{why}"):
        read_json(tmp_path / "a.json")


def test_missing_file__is_said_to_be_missing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "a.json")
