"""Settings from untrusted files."""

from __future__ import annotations

from pathlib import Path

import pytest

from unreid.reading.yaml_file import MAX_BASES, read_with_bases, read_yaml


def write(folder: Path, text: str | bytes, name: str = "a.yml") -> Path:
    path = folder / name
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_settings__come_as_nested_dicts(tmp_path: Path) -> None:
    path = write(tmp_path, "A: {B: [1, 2.5, x]}\nC: (1,)\n")
    assert read_yaml(path) == {"A": {"B": [1, 2.5, "x"]}, "C": "(1,)"}


@pytest.mark.parametrize(
    "tag",
    [
        "object/apply:os.system [touch pwned]",
        "name:os.system ''",
        "object:os.environ {}",
        "tuple [1]",
    ],
)
def test_tag_of_an_object__is_refused_by_name_and_not_made(
    tag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, f"A: !!python/{tag}\n")
    with pytest.raises(
        ValueError,
        match=r"a\.yml must be a yml of nested keys \(the tag "
        r"tag:yaml.org,2002:python/\S+ would make an object",
    ):
        read_yaml(path)
    assert not (tmp_path / "pwned").exists()


def nested_aliases(merge: str) -> str:
    lines = ["a: &a {k: 1}"]
    for above, name in zip("abcdefg", "bcdefgh"):
        many = ", ".join([f"*{above}"] * 9)
        lines.append(f"{name}: &{name} {{{merge}: [{many}], k{name}: 1}}")
    return "\n".join(lines)


def test_nested_merges__are_refused_or_stay_small(tmp_path: Path) -> None:
    """PyYAML 6.0.4 merges equal keys once; earlier versions repeat them, which is refused."""
    path = write(tmp_path, nested_aliases("<<"))
    try:
        content = read_yaml(path)
    except ValueError as error:
        assert "more than 20000 merged values" in str(error)
    else:
        assert sum(len(value) for value in content.values()) < 100


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (nested_aliases("x"), "unfolds into more than 20000 values"),
        ("a: &a\n  b: *a\n", "nests deeper than 20 levels"),
        ("a: &a 1\n" + "".join(f"k{i}: *a\n" for i in range(65)), "more than 64 aliases"),
        ("a: " + "[" * 400 + "]" * 400, "nests"),
        ("a: " + "x" * 2**16, "bytes, and at most 65536 are read"),
        ("- a\n", "it holds a list"),
        ("", "it holds nothing"),
        ("1: a\n", "keys must be text, got 1"),
        (b"a: \xff\n", "codec can't decode"),
        ("a: 2024-13-45\n", "month must be in"),
        ("a: " + "9" * 5000, "digits"),
        ("? [a]\n: b\n", "unhashable"),
    ],
)
def test_what_is_no_settings__is_refused_with_the_reason(
    text: str | bytes, why: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=rf"a\.yml must be a yml of nested keys \(.*{why}"):
        read_yaml(write(tmp_path, text))


def test_aliases_that_stay_small__are_read(tmp_path: Path) -> None:
    path = write(tmp_path, "a: &a {k: 1}\nb: {<<: *a, l: 2}\nc: *a\n")
    assert read_yaml(path) == {"a": {"k": 1}, "b": {"k": 1, "l": 2}, "c": {"k": 1}}


def test_bases__lie_below_and_are_found_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(tmp_path, "A: {B: 1, C: 2}\nD: 3\n", "first.yml")
    write(tmp_path, "_BASE_: first.yml\nA: {C: 4}\n", "second.yml")
    path = write(tmp_path / "sub", "_BASE_: ../second.yml\nD: 5\n")
    assert read_with_bases(path) == {"A": {"B": 1, "C": 4}, "D": 5}


def test_bases__in_a_circle_are_refused(tmp_path: Path) -> None:
    write(tmp_path, "_BASE_: b.yml\n")
    write(tmp_path, "_BASE_: ./a.yml\n", "b.yml")
    with pytest.raises(ValueError, match=r"b\.yml: _BASE_ \./a\.yml leads back"):
        read_with_bases(tmp_path / "a.yml")


def test_bases__without_end_are_refused(tmp_path: Path) -> None:
    for i in range(MAX_BASES + 1):
        write(tmp_path, f"_BASE_: {i + 1}.yml\n", f"{i}.yml")
    write(tmp_path, "A: 1\n", f"{MAX_BASES + 1}.yml")
    with pytest.raises(ValueError, match="more than 16 files are based on each other"):
        read_with_bases(tmp_path / "0.yml")


@pytest.mark.parametrize(
    ("base", "error", "why"),
    [
        ("[b.yml]", ValueError, "must be the name of a file"),
        ("", ValueError, "must be the name"),
        ("https://example.org/b.yml", ValueError, "must be a file on this machine"),
        ("b.yml", FileNotFoundError, r"a\.yml: no file .*b\.yml \(_BASE_\)"),
        (".", FileNotFoundError, "no file"),
    ],
)
def test_base__that_is_no_file_is_refused(
    base: str, error: type[Exception], why: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=why):
        read_with_bases(write(tmp_path, f"_BASE_: {base}\n"))


def test_node_over_a_value__is_refused(tmp_path: Path) -> None:
    write(tmp_path, "A: 1\n", "b.yml")
    with pytest.raises(ValueError, match="A is a node of keys in one file and a value in another"):
        read_with_bases(write(tmp_path, "_BASE_: b.yml\nA: {B: 1}\n"))
