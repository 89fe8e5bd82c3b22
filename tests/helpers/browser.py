"""Pages in headless Chromium, spoken to through its DevTools pipe: what they say, ask for and look like."""

import base64
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
SECONDS_TO_WAIT = 60
"""A browser that takes longer to answer hangs."""

WIRED = """
import fcntl, os, sys
reads, writes = (fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3])
os.dup2(reads, 3)
os.dup2(writes, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
"""Becomes a program that reads its commands from descriptor 3 and answers on 4, whatever was there before."""

Message = dict[str, Any]


def find_browser() -> str:
    """The program that CHROMIUM names, or one on PATH.

    Raises:
        RuntimeError: there is none; it says what to install.
    """
    found = next(filter(None, map(shutil.which, filter(None, (os.environ.get("CHROMIUM"), *NAMES)))), None)
    if found is None:
        raise RuntimeError(
            "no browser to test pages with: install Chromium (Debian: apt install chromium), or name it with CHROMIUM"
        )
    return found


class Browser:
    """One running browser; make one with :func:`running_browser`."""

    def __init__(self, told: int, heard: int) -> None:
        self._told, self._heard = os.fdopen(told, "wb"), os.fdopen(heard, "rb")
        self._numbers, self._rest = count(1), b""
        self._events: list[Message] = []

    def close(self) -> None:
        """Asks it to end."""
        self.call("Browser.close")
        self._told.close()
        self._heard.close()

    def call(self, method: str, session: str | None = None, **parameters: Any) -> Message:
        """A command of the DevTools protocol, and its result; events on the way are kept."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        self._told.write(json.dumps(message | ({"sessionId": session} if session else {})).encode() + b"\0")
        self._told.flush()
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._events.append(answer)

    def events(self, session: str) -> list[Message]:
        """What a page has reported since it was asked last."""
        found = [event for event in self._events if event.get("sessionId") == session]
        self._events = [event for event in self._events if event.get("sessionId") != session]
        return found

    def wait(self, session: str, method: str) -> None:
        """Until a page reports that event."""
        while not any(e.get("sessionId") == session and e.get("method") == method for e in self._events):
            self._events.append(self._read())

    def _read(self) -> Message:
        while b"\0" not in self._rest:
            got = self._heard.read1(1 << 20)
            if not got:
                raise RuntimeError("the browser has ended")
            self._rest += got
        message, _, self._rest = self._rest.partition(b"\0")
        return json.loads(message)


class Tab:
    """A page that was opened in a window of its own; collects whatever it complains about and asks for."""

    def __init__(self, browser: Browser, page: Path, width: int, height: int, dark: bool = False) -> None:
        self._browser = browser
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self._target = target
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for part in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{part}.enable")
        phone = width < 600
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=phone,
        )
        self._dark = dark
        self.emulate("screen")
        self.call("Page.navigate", url=page.resolve().as_uri())
        browser.wait(self._session, "Page.loadEventFired")
        events = browser.events(self._session)
        self.complaints = [e for e in events if e["method"] in ("Runtime.exceptionThrown", "Log.entryAdded")]
        self.complaints += [e for e in events if e["method"] == "Runtime.consoleAPICalled"]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        self.requests = [url for url in asked if not url.startswith("data:")]

    def call(self, method: str, **parameters: Any) -> Message:
        """A command of the DevTools protocol to this page."""
        return self._browser.call(method, self._session, **parameters)

    def emulate(self, media: str) -> None:
        """ "screen", or "print" as paper would show it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if self._dark else "light"}
        self.call("Emulation.setEmulatedMedia", media=media, features=[scheme])

    def ask(self, script: str) -> Any:
        """The value of an expression in the page."""
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """A key, down and up; its virtual key code comes along."""
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code)

    def tap(self, x: float, y: float) -> None:
        """A finger at a place, CSS pixels from the top left corner of the window."""
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def screenshot(self, whole: bool = True) -> bytes:
        """The page as a PNG, all of it or what the window shows."""
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(shot["data"])

    def paper(self) -> bytes:
        """The page as a PDF."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def close(self) -> None:
        """Closes its window."""
        self._browser.call("Target.closeTarget", targetId=self._target)


@contextmanager
def running_browser(home: Path) -> Iterator[Browser]:
    """A browser that keeps all it writes in ``home`` and ends with the block."""
    ours, theirs = os.pipe(), os.pipe()
    options = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
        "--remote-debugging-pipe", f"--user-data-dir={home / 'profile'}", "--disable-extensions",
    ]  # fmt: skip
    with (home / "said").open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", WIRED, str(ours[0]), str(theirs[1]), find_browser(), *options],
            pass_fds=(ours[0], theirs[1]), stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            env={**os.environ, "HOME": str(home)},
        )  # fmt: skip
    os.close(ours[0])
    os.close(theirs[1])
    browser = Browser(ours[1], theirs[0])
    try:
        yield browser
        browser.close()
    finally:
        try:
            process.wait(SECONDS_TO_WAIT)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def opened(
    browser: Browser, page: Path, width: int = 1280, height: int = 900, dark: bool = False
) -> Iterator[Tab]:
    """The page in a window of that size, closed at the end."""
    tab = Tab(browser, page, width, height, dark)
    try:
        yield tab
    finally:
        tab.close()
