"""Open a page in a headless Chromium and return its state: sizes, errors, requests, screenshot.

The DevTools protocol runs over two pipes with messages that end in a zero byte. It needs no package
besides the browser, and opens no port.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
)
_COMPLAINTS = ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled")
_MEASURE = """JSON.stringify({
  width: document.documentElement.scrollWidth, seen: document.documentElement.clientWidth,
  height: document.documentElement.scrollHeight,
  images: document.images.length,
  broken: [...document.images].filter(i => !(i.complete && i.naturalWidth > 0)).length,
  wide: [...document.querySelectorAll('body *')].filter(e => {
    const r = e.getBoundingClientRect();
    return r.width > 0 && r.right > document.documentElement.clientWidth + 1
      && !e.closest('.scroll') && !e.closest('svg');
  }).map(e => e.className || e.tagName).slice(0, 5),
  small: Math.min(...[...document.querySelectorAll('p, td, figcaption')].filter(
    e => e.getBoundingClientRect().width > 0).map(e => parseFloat(getComputedStyle(e).fontSize))),
})"""


@dataclass(frozen=True)
class Seen:
    """State of a page at one width: sizes, console errors, requests, a screenshot."""

    measures: dict[str, Any]
    complaints: list[str]
    requests: list[str]
    png: bytes


def find_browser() -> str | None:
    """Return the path of a Chromium on this machine, or None."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class _Pipe:
    """Connection to the browser: sends commands, receives responses and events."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._waiting = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next(120)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer["error"]
                return answer["result"]

    def wait_for(self, method: str, seconds: float = 120) -> None:
        """Wait for an event with this name."""
        end = time.monotonic() + seconds
        while not any(event["method"] == method for event in self.events):
            self._next(end - time.monotonic())

    def _next(self, seconds: float) -> dict[str, Any]:
        end = time.monotonic() + seconds
        while b"\0" not in self._waiting:
            ready, _, _ = select.select([self._read], [], [], max(0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            piece = os.read(self._read, 1 << 20)
            assert piece, "the browser has gone"
            self._waiting += piece
        text, _, self._waiting = self._waiting.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        if "method" in message:
            self.events.append(message)
        return message


@contextmanager
def _browser(program: str, profile: Path) -> Iterator[_Pipe]:
    ends = [*os.pipe(), *os.pipe()]
    # Duplicate to 10 or above: the browser expects its own ends of the pipes at 3 and 4.
    theirs_in, ours_out, ours_in, theirs_out = (fcntl.fcntl(e, fcntl.F_DUPFD, 10) for e in ends)
    for end in ends:
        os.close(end)

    def hand_over() -> None:
        os.dup2(theirs_in, 3)
        os.dup2(theirs_out, 4)

    process = subprocess.Popen(
        [program, *_FLAGS, "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"],
        close_fds=False,  # exec closes Python's other files; 3 and 4 must stay open
        preexec_fn=hand_over,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    try:
        yield _Pipe(ours_out, ours_in)
    finally:
        process.kill()
        process.wait()
        os.close(ours_out)
        os.close(ours_in)


@dataclass(frozen=True)
class Tab:
    """An open page of a browser."""

    pipe: _Pipe
    session: str

    def evaluate(self, expression: str) -> Any:
        """Return the value of a JavaScript expression."""
        answer = self.pipe.call(
            "Runtime.evaluate",
            self.session,
            expression=expression,
            returnByValue=True,
            awaitPromise=True,
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def mouse(self, kind: str, x: float, y: float, *, pressed: bool = False) -> None:
        """Send ``mouseMoved``, ``mousePressed`` or ``mouseReleased`` at a point of the screen."""
        self.pipe.call(
            "Input.dispatchMouseEvent",
            self.session,
            type=kind,
            x=x,
            y=y,
            button="left" if pressed else "none",
            buttons=int(pressed),
            clickCount=1,
        )


@contextmanager
def opened(program: str, page: Path, width: int, profile: Path) -> Iterator[Tab]:
    """Open ``page`` from disk on a screen of ``width`` pixels."""
    with _browser(program, profile) as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime"):
            pipe.call(f"{domain}.enable", session)
        pipe.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=900,
            deviceScaleFactor=1,
            mobile=False,
        )
        pipe.call("Page.navigate", session, url=page.resolve().as_uri())
        pipe.wait_for("Page.loadEventFired")
        yield Tab(pipe, session)


def look_at(
    program: str,
    page: Path,
    width: int,
    profile: Path,
    *,
    dark: bool = False,
    scale: float = 1,
    height: int = 900,
    top: int = 0,
) -> Seen:
    """Open ``page`` from disk on a screen of ``width`` pixels.

    The screenshot has ``height`` pixels from ``top``.
    """
    with _browser(program, profile) as pipe:
        target = pipe.call("Target.createTarget", url="about:blank")["targetId"]
        session = pipe.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            pipe.call(f"{domain}.enable", session)
        pipe.call(
            "Emulation.setDeviceMetricsOverride",
            session,
            width=width,
            height=900,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        theme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        pipe.call("Emulation.setEmulatedMedia", session, features=theme)
        pipe.call("Page.navigate", session, url=page.resolve().as_uri())
        pipe.wait_for("Page.loadEventFired")
        value = pipe.call("Runtime.evaluate", session, expression=_MEASURE)["result"]["value"]
        clip = {"x": 0, "y": top, "width": width, "height": height, "scale": 1}
        shot = pipe.call("Page.captureScreenshot", session, clip=clip, captureBeyondViewport=True)
        complaints, requests = [], []
        for event in pipe.events:
            params = event.get("params", {})
            if event["method"] in _COMPLAINTS:
                complaints.append(json.dumps(params)[:500])
            elif event["method"] == "Network.requestWillBeSent":
                requests.append(params["request"]["url"][:200])
    return Seen(json.loads(value), complaints, requests, base64.b64decode(shot["data"]))
