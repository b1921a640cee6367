"""Text of a CSV cell that no spreadsheet takes for a formula, and back.

A cell that begins with ``= + - @``, a tab or a carriage return is a formula for a spreadsheet, and
a file name can be one. Such a cell gets an apostrophe in front, as OWASP advises [0]. A cell of
apostrophes followed by one of these gets one more, so that reading takes exactly one away again.

[0] https://owasp.org/www-community/attacks/CSV_Injection
"""

from __future__ import annotations

import re

_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"'*[+-]?[0-9]+(\.[0-9]+)?")


def _is_formula(text: str) -> bool:
    """Whether a spreadsheet computes this; plain numbers stay as they are."""
    return bool(_FORMULA.match(text)) and not _NUMBER.fullmatch(text)


def guard_cell(text: str) -> str:
    """Return the cell to write for a text."""
    return f"'{text}" if _is_formula(text) else text


def unguard_cell(cell: str) -> str:
    """Return the text that :func:`guard_cell` wrote as this cell."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell[1:]) else cell
