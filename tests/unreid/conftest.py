"""fast-reid can be imported once unreid is."""

from __future__ import annotations

import unreid  # noqa: F401
