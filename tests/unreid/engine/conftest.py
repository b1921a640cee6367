"""Load the project CALR, which these tests train."""

from __future__ import annotations

from unreid.projects import load_project

load_project("CALR")
