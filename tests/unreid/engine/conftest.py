"""Makes CALR importable: it is the method that these tests train."""

from __future__ import annotations

from unreid.projects import load_project

load_project("CALR")
