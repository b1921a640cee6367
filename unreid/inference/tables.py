"""CSV files: UTF-8, one header line, atomic writes."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from typing import Any

from unreid.data.csv_cells import escape_cell
from unreid.engine.atomic import replace_file


def write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write rows under a header; None becomes an empty field.

    Text that a spreadsheet would evaluate gets a leading apostrophe: see
    :mod:`unreid.data.csv_cells`.

    Raises:
        OSError: See :func:`unreid.engine.atomic.replace_file`.
    """
    with replace_file(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(
            [escape_cell(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
        )
        text.detach()
