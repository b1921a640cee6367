"""Import unreid first: it makes fast-reid importable."""

from __future__ import annotations

import unreid  # noqa: F401
