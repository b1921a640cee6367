"""Reads a page back: addresses, charts with their numbers, and drawn points in data units."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

#: Elements that have no end tag.
_VOID = {"meta", "link", "img", "br", "hr", "input"}


@dataclass
class ReadChart:
    """A chart as a reader of the file finds it."""

    title: str = ""
    axes: dict[str, float] = field(default_factory=dict)
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)
    header: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)

    def column(self, name: str) -> list[tuple[float, float]]:
        """(x, value) of the table's column, where there is a value."""
        at = self.header.index(name)
        return [(float(row[0]), float(row[at])) for row in self.rows if row[at]]


class Reading(HTMLParser):
    """Everything of a page that the tests ask for.

    Attributes:
        addresses: Of every attribute that a browser would fetch.
        charts: By title, those with a line.
        text: All visible words.
        tags: Names of all elements.
        unclosed: Elements that were opened and never closed.
    """

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.source = page.read_text(encoding="utf-8")
        self.addresses: list[str] = []
        self.charts: dict[str, ReadChart] = {}
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
        if tag == "svg":
            self._chart = ReadChart(title=str(values["aria-label"]))
            self._chart.axes = {k[5:]: float(str(v)) for k, v in values.items()
                                if re.fullmatch(r"data-[xy][01]", k)}
        elif tag == "path" and values.get("data-name") is not None:
            self._chart.lines[str(values["data-name"])] = self._in_units(str(values["d"]))
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
        if self.unclosed and self.unclosed[-1] == "style":
            return
        self.shown.append(data)
        if self.unclosed and self.unclosed[-1] in ("td", "th") and self._chart.rows:
            self._chart.rows[-1][-1] += data.strip()

    def _in_units(self, path: str) -> list[tuple[float, float]]:
        """Drawn points, brought back from pixels by the axes (the frame of charts.py)."""
        axes = self._chart.axes
        found = []
        for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path):
            x_share, y_share = (float(x) - 44) / 306, (186 - float(y)) / 176
            found.append((axes["x0"] + x_share * (axes["x1"] - axes["x0"]),
                          axes["y0"] + y_share * (axes["y1"] - axes["y0"])))
        return found
