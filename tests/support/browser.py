"""A headless Chromium, driven through the pipe of its DevTools protocol."""

import contextlib
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
import time

from tests.support import patience

NAMES = ("chromium", "chromium-browser", "google-chrome")
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--disable-dev-shm-usage", "--remote-debugging-pipe"),
)


def find():
    """Return the path of a Chromium, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
    """
    One tab of a new browser: `with Browser() as tab:`.

    events  list of {"method", "params"}, what the page did since `open` was called
    """

    def __init__(self, width=1300, height=900):
        self._size = f"--window-size={width},{height}"
        self._count = 0
        self._buffer = b""
        self.events = []

    def __enter__(self):
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        (its_input, self._output), (self._input, its_output) = os.pipe(), os.pipe()
        # out of the way of 3 and 4, which the browser reads and writes
        ends = [fcntl.fcntl(each, fcntl.F_DUPFD_CLOEXEC, 10) for each in (its_input, its_output)]

        def place():
            os.dup2(ends[0], 3)
            os.dup2(ends[1], 4)

        home = self._profile.name  # it leaves files in each of these, however it ends
        places = ("HOME", "TMPDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
        self._process = subprocess.Popen(
            [find(), *_OPTIONS, self._size, f"--user-data-dir={home}/data"],
            env={**os.environ, **dict.fromkeys(places, home)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4),
        )
        for each in (its_input, its_output, *ends):
            os.close(each)
        self._session = None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        return self

    def __exit__(self, *exc):
        self._session = None
        with contextlib.suppress(RuntimeError, OSError):
            self.call("Browser.close")  # its children end too, and write no more
        try:
            self._process.wait(timeout=patience.stretched(10))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._input)
        os.close(self._output)
        self._profile.cleanup()

    def call(self, method, **params):
        """Call a method of the protocol; return its result (dict). Raises RuntimeError."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._output, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._count:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def _next(self):
        while b"\0" not in self._buffer:
            data = os.read(self._input, 1 << 20)
            if not data:
                raise RuntimeError(f"the browser ended: {self._process.wait()}")
            self._buffer += data
        line, self._buffer = self._buffer.split(b"\0", 1)
        message = json.loads(line)
        if "method" in message:
            self.events.append(message)
        return message

    def open(self, url):
        """Go to `url` (str); return when it is loaded."""
        self.events = []
        said = self.call("Page.navigate", url=url)
        if "errorText" in said:
            raise RuntimeError(f"{url}: {said['errorText']}")
        while said.get("loaderId") and not self.happened("Page.loadEventFired"):
            self._next()

    def happened(self, method):
        """Return the params (list of dict) of the events of this name."""
        return [each["params"] for each in self.events if each["method"] == method]

    def evaluate(self, expression):
        """Return the value of a JavaScript expression in the page. Raises RuntimeError."""
        said = self.call(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in said:
            raise RuntimeError(said["exceptionDetails"]["exception"].get("description"))
        return said["result"].get("value")

    def wait_for(self, expression, timeout_s=20):
        """Return the value of `expression` as soon as it is true. Raises TimeoutError."""
        end = time.monotonic() + patience.stretched(timeout_s)
        while not (value := self.evaluate(expression)):
            if time.monotonic() > end:
                raise TimeoutError(expression)
            time.sleep(0.05)
        return value
