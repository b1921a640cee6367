"""Template rendering: all text is escaped, and an undefined name is an error."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

_FOLDER = Path(__file__).resolve().parent / "templates"
#: Chart.js and its plugins, in loading order (vendor/README.md).
VENDORED = ("chart.umd.min.js", "chartjs-plugin-zoom.min.js", "chartjs-chart-matrix.min.js")


def render(template: str, **content: Any) -> str:
    """Return the rendered template, with the chart script and its hash available to it."""
    environment = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    script = _script()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return environment.get_template(template).render(
        **content, script=Markup(script), script_hash=f"sha256-{digest}"
    )


def _script() -> str:
    """Return all JavaScript of the page; the content policy allows only its hash."""
    paths = [_FOLDER.parent / "vendor" / name for name in VENDORED]
    return "\n".join(path.read_text(encoding="utf-8") for path in [*paths, _FOLDER / "charts.js"])
