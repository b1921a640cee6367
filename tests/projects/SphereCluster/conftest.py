"""Make the package ``spherecluster`` importable, as tools/train_net.py does."""

from __future__ import annotations

import unreid  # noqa: F401  (before fastreid)
from unreid.projects import load_project

load_project("SphereCluster")
