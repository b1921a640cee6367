"""CSV cells: formulas are escaped, and unescaping restores the text."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.data.csv_cells import escape_cell, unescape_cell
from unreid.data.folder import read_folder
from unreid.inference.tables import write_csv

FORMULAS = ["=1+1", "+a", "-a", "@SUM(A1)", "\t=1", "\r=1", "'=1", "''@x", "-1+2", "=", "-1.jpg"]


@pytest.mark.parametrize("text", FORMULAS)
def test_formula__gets_an_apostrophe(text: str) -> None:
    assert escape_cell(text) == f"'{text}" and unescape_cell(escape_cell(text)) == text


@pytest.mark.parametrize("text", ["", "a=1", "cam1/=x.jpg", "-1", "+2.5", "-0.123456", "'a", "''"])
def test_text_that_is_no_formula__is_unchanged(text: str) -> None:
    assert escape_cell(text) == text and unescape_cell(text) == text


@given(st.text(alphabet="'=+-@\t\ra1.", max_size=8))
def test_round_trip__is_exact_for_any_text(text: str) -> None:
    assert unescape_cell(escape_cell(text)) == text


def test_label_csv__is_read_back_with_the_same_names(tmp_path: Path) -> None:
    names = ["=cmd.jpg", "+a.jpg", "-a.jpg", "@a.jpg", "'=a.jpg", "'a.jpg", "plain.jpg"]
    for name in names:
        (tmp_path / name).touch()
    rows = [(name, "=door" if name == "+a.jpg" else "-1", -1) for name in names]
    write_csv(str(tmp_path / "labels.csv"), ("path", "camera", "identity"), rows)
    text = (tmp_path / "labels.csv").read_text()
    assert not [
        line
        for line in text.splitlines()
        for cell in line.split(",")
        if cell[0] in "=+@" or (cell[0] == "-" and cell != "-1")
    ]
    items = read_folder(tmp_path, csv="labels.csv")
    assert {Path(i.path).name: i.camera for i in items} == {path: c for path, c, _ in rows}
