"""Parser of a report page: addresses, scripts, and charts with their data and tables."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

#: Elements without an end tag.
_VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class ReadChart:
    """A chart of a page: the data of its script, and its table."""

    title: str = ""
    spec: dict[str, Any] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    @property
    def lines(self) -> dict[str, list[tuple[float, float]]]:
        """Return name -> points of a line chart."""
        return {
            line["name"]: [tuple(p) for p in line["points"]] for line in self.spec.get("lines", [])
        }

    def column(self, name: str) -> list[tuple[float, float]]:
        """Return (x, value) of a table column, without empty cells."""
        at = self.header.index(name)
        return [(float(row[0]), float(row[at])) for row in self.rows if row[at]]


class Reading(HTMLParser):
    """Parsed content of a page.

    Attributes:
        addresses: Values of every attribute that a browser would fetch.
        charts: Charts by title.
        scripts: Contents of the script elements.
        policy: The content security policy.
        text: All visible text.
        tags: Names of all elements.
        unclosed: Elements without their end tag.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.source = page.read_text(encoding="utf-8")
        self.addresses: list[str] = []
        self.charts: dict[str, ReadChart] = {}
        self.scripts: list[str] = []
        self.policy = ""
        self.tags: list[str] = []
        self.shown: list[str] = []
        self.unclosed: list[str] = []
        self._chart = ReadChart()
        self.feed(self.source)
        self.close()

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.shown).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append(tag)
        if tag not in _VOID:
            self.unclosed.append(tag)
        for name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
            if values.get(name) is not None:
                self.addresses.append(str(values[name]))
        if values.get("http-equiv") == "Content-Security-Policy":
            self.policy = str(values["content"])
        if tag == "canvas":
            spec = json.loads(str(values["data-chart"]))
            self._chart = ReadChart(str(values["aria-label"]), spec)
            self.charts[self._chart.title] = self._chart
        elif tag == "tr":
            self._chart.rows.append([])
        elif tag in ("td", "th") and self._chart.rows:
            self._chart.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in _VOID:
            self.unclosed.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.unclosed and self.unclosed[-1] == tag, f"</{tag}> closes {self.unclosed[-3:]}"
        self.unclosed.pop()
        if tag == "thead" and self._chart.rows:
            self._chart.header = self._chart.rows.pop()
        elif tag == "table":
            self._chart = ReadChart()

    def handle_data(self, data: str) -> None:
        if self.unclosed and self.unclosed[-1] == "script":
            self.scripts.append(data)
        if self.unclosed and self.unclosed[-1] in ("style", "script"):
            return
        self.shown.append(data)
        if self.unclosed and self.unclosed[-1] in ("td", "th") and self._chart.rows:
            self._chart.rows[-1][-1] += data.strip()
