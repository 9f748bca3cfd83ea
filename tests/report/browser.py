"""A headless Chromium driven over its devtools protocol: enough to open a page, press keys, and look."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import ClientConnection, connect

NAMES = ("chromium", "chromium-browser", "google-chrome")
KEYS = {
    "Tab": 9,
    "End": 35,
    "Home": 36,
    "ArrowLeft": 37,
    "ArrowUp": 38,
    "ArrowRight": 39,
    "ArrowDown": 40,
    "Escape": 27,
}


def find_chromium() -> str | None:
    """The first browser of these names in PATH."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One tab; what it asked the network for and what it complained of is kept."""

    def __init__(self, socket: ClientConnection) -> None:
        self.socket, self.number = socket, 0
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.loaded = False
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.call("Emulation.setFocusEmulationEnabled", enabled=True)  # as if its window were the active one

    def call(self, method: str, **parameters: Any) -> Any:
        """Send a command and wait for its answer."""
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self.socket.recv(timeout=60))
            if message.get("id") == self.number:
                assert "error" not in message, message
                return message["result"]
            self._hear(message)

    def _hear(self, message: dict[str, Any]) -> None:
        about, what = message.get("params", {}), message.get("method")
        if what == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])
        elif what == "Runtime.exceptionThrown":
            self.errors.append(str(about["exceptionDetails"]))
        elif what == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
            self.errors.append(str(about["entry"]))
        elif what == "Page.loadEventFired":
            self.loaded = True

    def open(self, file: Path, width: int = 1200, height: int = 900, theme: str = "light") -> None:
        """Load a file in a window of that size, under that preference."""
        self.loaded = False
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": theme}])
        self.call("Page.navigate", url=file.resolve().as_uri())
        while not self.loaded:
            self._hear(json.loads(self.socket.recv(timeout=60)))

    def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression, or of what it promises."""
        found = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    def press(self, *names: str) -> None:
        """Press keys as a person does."""
        for name in names:
            for kind in ("rawKeyDown", "keyUp"):
                self.call("Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=KEYS[name])

    def point(self, selector: str) -> None:
        """Move the mouse onto the middle of an element, brought into view."""
        self.ask(f"document.querySelector({selector!r}).scrollIntoView({{block: 'center'}})")
        self.settle()
        box = f"document.querySelector({selector!r}).getBoundingClientRect()"
        where = self.ask(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({box})")
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=where[0], y=where[1])

    def settle(self) -> None:
        """Wait until what was changed is drawn."""
        self.ask("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def screenshot(self, file: Path, whole: bool = False) -> None:
        """Write a PNG of the window, or of the whole page."""
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        file.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A browser with an empty profile in `folder`, ended with the block."""
    path = find_chromium()
    assert path is not None
    flags = ["--headless=new", "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run",
             "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-extensions",
             *(["--no-sandbox"] if os.geteuid() == 0 else [])]  # fmt: skip
    process = subprocess.Popen([path, *flags, "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        port = wait_for_port(folder / "DevToolsActivePort", process)
        with connect(page_address(port), max_size=None, proxy=None) as socket:
            yield Page(socket)
    finally:
        process.terminate()
        process.wait(30)


def wait_for_port(file: Path, process: subprocess.Popen[bytes], seconds: float = 60) -> int:
    """The port that the browser listens at, once it has written it down."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the browser ended with {process.returncode}"
        if file.exists() and "\n" in (text := file.read_text()):
            return int(text.splitlines()[0])
        time.sleep(0.05)
    raise AssertionError(f"the browser did not start within {seconds} s")


def page_address(port: int) -> str:
    """The address of its first tab."""
    import httpx

    tabs = httpx.get(f"http://127.0.0.1:{port}/json", trust_env=False).json()
    return str(next(t["webSocketDebuggerUrl"] for t in tabs if t["type"] == "page"))
