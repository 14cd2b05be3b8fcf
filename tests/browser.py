"""A headless Chromium, driven through its DevTools protocol over a pipe: no packages beside the standard library."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import time
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # CI runs as root in a container
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
)
KEYS = {"ArrowLeft": 37, "ArrowRight": 39, "Home": 36, "End": 35, "Enter": 13, "Escape": 27, "Tab": 9, " ": 32}


def found() -> str | None:
    """The program, if there is one."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Browser:
    """One browser with one page. Times are seconds."""

    def __init__(self, program: str, profile: Path, patience: float = 60.0) -> None:
        self.patience, self.number, self.rest, self.events = patience, 0, b"", []  # type: ignore[var-annotated]
        ours_in, theirs_out = os.pipe()
        theirs_in, ours_out = os.pipe()
        # Chromium reads from 3 and writes to 4; the ends are moved out of the way first.
        theirs = [fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 64) for end in (theirs_in, theirs_out)]
        actions: list[Any] = [(os.POSIX_SPAWN_DUP2, end, 3 + k) for k, end in enumerate(theirs)]
        actions += [(os.POSIX_SPAWN_OPEN, k, os.devnull, os.O_RDWR, 0) for k in (1, 2)]
        arguments = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
        self.process = os.posix_spawn(program, arguments, dict(os.environ), file_actions=actions, setsid=True)
        for end in (theirs_in, theirs_out, *theirs):
            os.close(end)
        self.read, self.write, self.attached = ours_in, ours_out, None
        page = next(t for t in self.call("Target.getTargets")["targetInfos"] if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page["targetId"], flatten=True)
        self.attached = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def close(self) -> None:
        """Ends the browser, and all that it has started."""
        os.close(self.write)
        os.close(self.read)
        os.killpg(self.process, signal.SIGKILL)
        os.waitpid(self.process, 0)

    # ---- the protocol -----------------------------------------------------------------------------------

    def _message(self) -> dict[str, Any]:
        end = time.monotonic() + self.patience
        while b"\0" not in self.rest:
            ready, _, _ = select.select([self.read], [], [], max(0.0, end - time.monotonic()))
            more = os.read(self.read, 1 << 20) if ready else b""
            if not more:
                raise TimeoutError("the browser does not answer")
            self.rest += more
        text, _, self.rest = self.rest.partition(b"\0")
        return dict(json.loads(text))

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Calls a method of the protocol; events that come in between are kept."""
        self.number += 1
        message: dict[str, Any] = {"id": self.number, "method": method, "params": parameters}
        if getattr(self, "attached", None):
            message["sessionId"] = self.attached
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == self.number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return dict(answer["result"])
            self.events.append(answer)

    # ---- pages ------------------------------------------------------------------------------------------

    def open(
        self, file: Path, width: int = 1000, height: int = 800, *, dark: bool = False, scripts: bool = True
    ) -> None:
        """Loads a page from the disk."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        look = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", media="", features=look)
        self.call("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.events.clear()
        self.call("Page.navigate", url=file.absolute().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._message())
        self.call("Page.bringToFront")

    def run(self, expression: str) -> Any:
        """What an expression of JavaScript gives, promises awaited."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(str(answer["exceptionDetails"])[:500])
        return answer["result"].get("value")

    def place(self, selector: str, x: float = 0.5, y: float = 0.5) -> tuple[float, float]:
        """A point of an element, scrolled into view: shares of its width and height."""
        box = self.run(
            f"(() => {{ const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
            " const b = e.getBoundingClientRect(); return [b.left, b.top, b.width, b.height]; })()"
        )
        return box[0] + x * box[2], box[1] + y * box[3]

    def _mouse(self, kind: str, at: tuple[float, float], pressed: bool) -> None:
        where: dict[str, Any] = {"x": at[0], "y": at[1], "button": "left", "buttons": int(pressed), "clickCount": 1}
        self.call("Input.dispatchMouseEvent", type=kind, **where)

    def click(self, selector: str, x: float = 0.5, y: float = 0.5) -> None:
        """Presses the mouse there and lets it go."""
        at = self.place(selector, x, y)
        self._mouse("mousePressed", at, True)
        self._mouse("mouseReleased", at, False)

    def drag(self, selector: str, start: tuple[float, float], end: tuple[float, float]) -> None:
        """Moves the mouse over an element with its button down."""
        self._mouse("mousePressed", self.place(selector, *start), True)
        self._mouse("mouseMoved", self.place(selector, *end), True)
        self._mouse("mouseReleased", self.place(selector, *end), False)

    def press(self, key: str) -> None:
        """A key, where the focus is."""
        text = {"Enter": "\r", " ": " "}.get(key, "")
        with_text = {"text": text} if text else {}
        self.call(
            "Input.dispatchKeyEvent", type="keyDown", key=key, code=key, windowsVirtualKeyCode=KEYS[key], **with_text
        )
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, code=key, windowsVirtualKeyCode=KEYS[key])

    def picture(self, *, whole: bool = False) -> bytes:
        """What is seen, or all of the page, as a PNG file."""
        return base64.b64decode(self.call("Page.captureScreenshot", captureBeyondViewport=whole)["data"])

    def print(self) -> bytes:
        """The page as a PDF file."""
        return base64.b64decode(self.call("Page.printToPDF", printBackground=True)["data"])

    def complaints(self) -> list[str]:
        """Errors and warnings since the page was opened, and whatever it has asked the network for."""
        told = []
        for event in self.events:
            method, of = event["method"], event.get("params", {})
            if method == "Runtime.exceptionThrown":
                told.append(str(of["exceptionDetails"].get("exception", {}).get("description")))
            elif method == "Log.entryAdded":
                told.append(of["entry"]["text"])
            elif method == "Network.requestWillBeSent" and not of["request"]["url"].startswith(("file:", "data:")):
                told.append(of["request"]["url"])
        return told
