"""Import unreid first, which makes fast-reid importable."""

from __future__ import annotations

import unreid  # noqa: F401
