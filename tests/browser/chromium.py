"""A headless Chromium, driven over a pipe by the DevTools protocol: no driver, no port and no package is needed."""

import json
import os
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
FLAGS = (
    "--headless",
    # Root and containers without user namespaces have no sandbox; what is opened are pages of our own.
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
)
PATIENCE = 60.0
"""Seconds after which an answer that has not come will not come."""
CHECKS = Path(__file__).with_name("checks.js")
PHONE = 600
"""Width in pixels below which the page is shown as by a phone."""


MISSING = "no Chromium: apt-get install chromium, or name one in RESNETLAB_CHROMIUM"


def find_chromium() -> str | None:
    """The browser that ``RESNETLAB_CHROMIUM`` names, else the first of ``NAMES`` that is there."""
    named = os.environ.get("RESNETLAB_CHROMIUM")
    return shutil.which(named) if named else next(filter(None, map(shutil.which, NAMES)), None)


class Chromium:
    """A browser process and its pipe. Ended by ``close``."""

    def __init__(self, program: str, profile: Path) -> None:
        hears, self._write = os.pipe()
        self._read, says = os.pipe()
        # The browser reads from 3 and writes to 4; a shell, which knows numbers below ten only, puts ours there.
        command = f'exec "$@" 3</dev/fd/{hears} 4>/dev/fd/{says}'
        words = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        with open(profile / "chromium.log", "wb") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", command, "sh", *words],
                pass_fds=(hears, says),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        os.close(hears)
        os.close(says)
        os.set_blocking(self._read, False)
        self._rest, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **given: Any) -> dict[str, Any]:
        """The answer to a command. Events that come meanwhile are kept. Raises ``RuntimeError`` for an error."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": given}
        if session:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        answer = self._wait(lambda found: found.get("id") == self._number)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def await_event(self, name: str, session: str) -> None:
        """Return when the event has come, if it has not."""
        if not any(found["method"] == name and found.get("sessionId") == session for found in self.events):
            self._wait(lambda found: found.get("method") == name and found.get("sessionId") == session)

    def close(self) -> None:
        """End the browser."""
        self.call("Browser.close")
        self._process.wait(PATIENCE)
        os.close(self._write)
        os.close(self._read)

    def _wait(self, wanted: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            message, _, rest = self._rest.partition(b"\0")
            if len(message) == len(self._rest):
                self._receive()
                continue
            self._rest = rest
            found = json.loads(message)
            if "method" in found:
                self.events.append(found)
            if wanted(found):
                return dict(found)
        raise TimeoutError(f"Chromium has not answered for {PATIENCE:.0f} s")

    def _receive(self) -> None:
        try:
            came = os.read(self._read, 1 << 20)
        except BlockingIOError:
            time.sleep(0.002)
            return
        if not came:
            raise EOFError("Chromium has ended; its words are in chromium.log in its profile")
        self._rest += came


class Tab:
    """One page, opened from a file or an address, with what it asked for and what it complained of. Ended by
    ``close``."""

    def __init__(self, browser: Chromium, page: Path | str, *, width: int, dark: bool = False) -> None:
        self._browser, self.url = browser, page.as_uri() if isinstance(page, Path) else page
        self._target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=self._target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.show(width=width, dark=dark)
        self.call("Page.navigate", url=self.url)
        browser.await_event("Page.loadEventFired", self._session)
        self.ask(CHECKS.read_text())

    def show(self, *, width: int, dark: bool = False, paper: bool = False) -> None:
        """Set the width in pixels, the viewer's scheme, and whether it is shown as if printed."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=844,
            deviceScaleFactor=2 if width < PHONE else 1,
            mobile=width < PHONE,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", media="print" if paper else "", features=[scheme])

    def call(self, method: str, **given: Any) -> dict[str, Any]:
        """A command to this page."""
        return self._browser.call(method, self._session, **given)

    def ask(self, expression: str) -> Any:
        """What a JavaScript expression is on the page. Raises ``RuntimeError`` where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def press(self, key: str) -> None:
        """A key by its name: ``Tab``, ``Enter``, ``ArrowRight``."""
        code = {"Tab": 9, "Enter": 13, "ArrowRight": 39}[key]
        text = {"text": "\r"} if key == "Enter" else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text)

    def requests(self) -> list[str]:
        """What the page asked for beside itself. What stands in it (``data:``) is no request, nor is what its policy
        stopped, which it complains of."""
        lost = [event["params"] for event in self._events("Network.loadingFailed")]
        stopped = {params["requestId"] for params in lost if params.get("blockedReason") == "csp"}
        asked = [event["params"] for event in self._events("Network.requestWillBeSent")]
        found = [params["request"]["url"] for params in asked if params["requestId"] not in stopped]
        # The place within a page is no part of what is asked for.
        itself = self.url.partition("#")[0]
        return [url for url in found if url != itself and not url.startswith("data:")]

    def complaints(self) -> list[str]:
        """What stands in the console: errors, warnings, what the policy forbade, and exceptions."""
        said = [event["params"]["entry"]["text"] for event in self._events("Log.entryAdded")]
        said += [str(event["params"]["args"]) for event in self._events("Runtime.consoleAPICalled")]
        return said + [str(event["params"]["exceptionDetails"]) for event in self._events("Runtime.exceptionThrown")]

    def image(self) -> bytes:
        """The whole page as PNG."""
        return b64decode(self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"])

    def printed(self) -> bytes:
        """The page as PDF, on A4."""
        done = self.call("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        return b64decode(done["data"])

    def close(self) -> None:
        """Close the page."""
        self._browser.call("Target.closeTarget", targetId=self._target)

    def _events(self, name: str) -> list[dict[str, Any]]:
        return [
            event
            for event in self._browser.events
            if event["method"] == name and event.get("sessionId") == self._session
        ]


if __name__ == "__main__":
    # Whoever asks for these tests is told what they lack, where others have them skipped.
    sys.exit(None if find_chromium() else MISSING)
