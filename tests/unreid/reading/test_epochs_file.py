"""Reading ``epochs.jsonl``: the written values, and errors that name a damaged line."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unreid.reading.epochs_file import EpochRecord, read_epochs

names = st.text(max_size=8)
numbers = st.dictionaries(names, st.floats(-1e14, 1e14) | st.integers(-(10**9), 10**9), max_size=3)
records = st.builds(
    EpochRecord,
    epoch=st.integers(0, 10**6),
    iterations=st.integers(0, 10**6),
    started=names,
    finished=names,
    relabelled=st.booleans(),
    losses=numbers,
    learning_rate=st.none() | st.floats(0, 10),
    labels=numbers,
    quality=st.dictionaries(names, numbers, max_size=2),
    remarks=st.dictionaries(names, names, max_size=2),
    seconds=numbers,
    label_seconds=numbers,
    scores=st.dictionaries(names, numbers, max_size=2),
)


@given(records)
def test_record__comes_back_from_its_line(record: EpochRecord) -> None:
    line = record.to_line()
    assert line.endswith("\n") and line.count("\n") == 1
    assert EpochRecord.from_line(line) == record


def test_value_that_is_not_finite__is_null_in_the_file_and_absent_when_read() -> None:
    line = EpochRecord(0, losses={"a": math.nan, "b": 1.0}).to_line()
    assert json.loads(line)["losses"] == {"a": None, "b": 1.0}
    assert EpochRecord.from_line(line).losses == {"b": 1.0}


def test_torn_last_line__is_skipped_without_a_remark(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    whole = EpochRecord(0, losses={"a": 1.0}).to_line() + EpochRecord(1).to_line()
    for cut in range(len(whole) + 1):
        path.write_text(whole[:cut])
        found, remarks = read_epochs(path)
        assert remarks == []
        # A complete line without its final line break is valid.
        assert len(found) == sum(cut >= end - 1 for end in (whole.index("\n") + 1, len(whole)))


def test_damaged_line__is_a_remark_with_its_number_and_the_others_stay(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    good = EpochRecord(3, iterations=5).to_line()
    bad = [
        "[1, 2]\n",
        "{\n",
        '{"epoch": -1}\n',
        '{"epoch": true}\n',
        '{"epoch": 1.5}\n',
        "[" * 100_000 + "\n",
        f'{{"epoch": {10**400}}}\n',
        "\x00\xff\n",
    ]
    path.write_text(good.replace("3", "2", 1) + "".join(bad) + "\n" + good, encoding="latin-1")
    found, remarks = read_epochs(path)
    assert [r.epoch for r in found] == [2, 3]
    assert [r.split(": ")[1].split()[:2] for r in remarks] == [
        ["line", str(i)] for i in range(2, 2 + len(bad))
    ]


def test_epoch_that_stands_twice__counts_by_the_later_line(tmp_path: Path) -> None:
    path = tmp_path / "epochs.jsonl"
    path.write_text(
        "".join(
            r.to_line()
            for r in (EpochRecord(1, iterations=1), EpochRecord(0), EpochRecord(1, iterations=2))
        )
    )
    found, _ = read_epochs(path)
    assert [(r.epoch, r.iterations) for r in found] == [(0, 0), (1, 2)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("losses", [1]),
        ("losses", {"a": "high"}),
        ("labels", {"clusters": 10**400}),
        ("labels", {"clusters": True}),
        ("quality", {"final": 3}),
        ("seconds", {"train": math.inf}),
        ("scores", {"set": {"mAP": [1]}}),
        ("remarks", {"a": 1}),
        ("started", 5),
        ("learning_rate", "1e-3"),
        ("iterations", "2"),
        ("iterations", -2),
    ],
)
def test_value_of_another_kind__is_left_out(field: str, value: object) -> None:
    record = EpochRecord.from_line(json.dumps({"epoch": 0, field: value}))
    left = getattr(record, field)
    assert left in ({}, "", None, 0, {"final": {}}, {"set": {}})


def test_file_that_is_missing_or_too_large__is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "epochs.jsonl"
    with pytest.raises(FileNotFoundError):
        read_epochs(path)
    path.write_text(EpochRecord(0).to_line())
    monkeypatch.setattr("unreid.reading.epochs_file.MAX_BYTES", 3)
    with pytest.raises(ValueError, match=r"epochs\.jsonl must be lines of JSON .*at most 3"):
        read_epochs(path)
