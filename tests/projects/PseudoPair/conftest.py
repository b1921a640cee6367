"""Makes the package ``pseudopair`` importable, as tools/train_net.py does."""

from __future__ import annotations

import sys

import unreid  # noqa: F401  (before fastreid)
from unreid.projects import projects_root

sys.path.insert(0, str(projects_root() / "PseudoPair"))
