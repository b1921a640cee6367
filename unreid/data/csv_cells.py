"""Escape CSV cells that a spreadsheet would evaluate as a formula, and undo it.

Spreadsheets evaluate a cell that begins with ``= + - @``, a tab or a carriage return, and a file
name may begin so (CSV injection). Such a cell is prefixed with an apostrophe, as OWASP recommends
[0]. A cell of apostrophes before one of these characters gets one more apostrophe, so that the
mapping is invertible.

[0] https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"'*[+-]?[0-9]+(\.[0-9]+)?")


def _is_formula(text: str) -> bool:
    """Return whether a spreadsheet would evaluate this text; numbers do not count."""
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)


def escape_cell(text: str) -> str:
    """Return the CSV cell of a text, escaped if it would be a formula."""
    return f"'{text}" if _is_formula(text) else text


def unescape_cell(cell: str) -> str:
    """Return the text of a cell that :func:`escape_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell
