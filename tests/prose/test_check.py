"""The wording check finds the phrases of its list, and the repository has none of them."""

from __future__ import annotations

import pytest

from tests.prose.check import check, find_phrases, main, read_phrases, tracked_files


@pytest.mark.parametrize(
    "sentence",
    ["Images of the drawn set.", "Letters: N images.", "It ended without a word.",
     "The numpy twin takes over.", "Your own pictures, with ids.", "What came of a grid."],
)  # fmt: skip
def test_a_private_phrase_is_found(sentence: str) -> None:
    assert list(find_phrases(sentence, "a.py", read_phrases()))


@pytest.mark.parametrize(
    "sentence",
    ["Images of the synthetic dataset.", "Notation: N images.", "Boxes are drawn on the image.",
     "Draw a sample without replacement.", "The word list has 30 terms."],
)  # fmt: skip
def test_standard_terms_pass(sentence: str) -> None:
    assert not list(find_phrases(sentence, "a.py", read_phrases()))


def test_a_finding_names_file_line_and_term(tmp_path, capsys) -> None:
    file = tmp_path / "page.md"
    file.write_text("# Title\n\nThe drawn people of the demo.\n")
    assert main([str(file)]) == 1
    out = capsys.readouterr().out
    assert f"{file}:3: 'drawn people'" in out and "synthetic" in out


def test_the_repository_has_no_private_phrase() -> None:
    files = tracked_files()
    assert len(files) > 100
    assert [str(finding) for finding in check(files)] == []
