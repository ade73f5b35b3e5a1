"""
A device for tests: a MicroPython program around one client, and what a test has it do.

The program is what stands in its `main`: handlers, and then, if it does more than stay connected
until the test says "leave", what starts the client, mostly `async with client:`. The client is
there, unless the program has its own line `client = make(...)`.

    with Device(proxy, 'client.on("t", qos=1)(hold)', handler_timeout_s=1) as device:
        device.subscribed()
        broker.publish("t", "1")
        device.wait_for("begins 1")
        device.send("end")
        device.leave()
    assert device.said("ends") == ["1"]

It has the names of apps.py and those of handlers.py, inside.py and large.py in tests/device.
Programs of several clients, or without one, are those of apps.py.
"""

import json
import re
import textwrap

from tests.support import apps, mpy
from tests.support.fake_broker import FakeBroker
from tests.support.proxy import HOST, Proxy

_BEFORE = """\
from tests.device.handlers import *
from tests.device.inside import *
from tests.device.large import *
"""
_STARTS = re.compile(r"async with client|await client\.(connect|__aenter__)\(")
_STAYS = """
async with client:
    await told("leave")
"""


def _host(to):
    """Return what `to` is for a client: ("host", port)."""
    if isinstance(to, tuple):
        return to
    return HOST, to if isinstance(to, int) else to.port


class Device(mpy.Program):
    """
    Use it in a `with`: leaving ends it. What it prints is followed as that of any mpy.Program.

    to       what its client connects to: a Broker, Proxy, FakeBroker, a port (int) or
             ("host", port); or a list of such, to be tried in order
    program  str, one or several, see above
    tls      dict, arguments of TLS (see secure.files); None: without TLS
    store    Path of the folder of its FileStore, `store` in the program; None: without one
    names    dict, more names for the program and their values, of types that repr() can write
    back_off "soonest", "latest": as short or as long as the jitter allows; "random": as it comes
    heap, env  as for mpy.start
    options  of MQTTClient, of types that repr() can write
    """

    def __init__(
        self,
        to,
        *program,
        tls=None,
        store=None,
        names=None,
        back_off="soonest",
        heap=None,
        env=None,
        **options,
    ):
        self._to = to
        hosts = [_host(each) for each in (to if isinstance(to, list) else [to])]
        before = _BEFORE
        main = "" if back_off == "random" else f"{back_off}()\n"
        given = [f"{name}={value!r}" for name, value in options.items()]
        if isinstance(to, list):
            given.append(f"host={hosts}")
        elif isinstance(to, tuple):
            given.append(f"host={to[0]!r}")
        if tls is not None:
            before += "from tests.device.secure import *\n"
            given.append("tls=tls_given()")
            # not in argv: MicroPython takes no more than 255 characters there
            env = {**(env or {}), "TLS": json.dumps(tls)}
        if store is not None:
            before += "from mqtt_as_tls import FileStore\n"
            main += f"store = FileStore({str(store)!r})\n"
            given.append("store=store")
        for name, value in (names or {}).items():
            before += f"{name} = {value!r}\n"
        does = "\n".join(textwrap.dedent(part) for part in program)
        if "client = make(" not in does:
            main += f"client = make({', '.join(given)})\n"
        else:
            assert not options, f"these go into its own make(): {options}"
        main += does
        if not _STARTS.search(does):
            main += _STAYS
        text = f"{before}\nasync def main():\n{textwrap.indent(main, '    ')}"
        super().__init__(apps.source(text), hosts[0][1], heap=heap, env=env)

    @classmethod
    def check(cls, to, *program, timeout_s=30, **arguments):
        """Run a device (see above) that ends by itself; return its stdout, as finish() does."""
        with cls(to, *program, **arguments) as device:
            return device.finish(timeout_s)

    @classmethod
    def against(cls, script, *program, **arguments):
        """
        Do so against a FakeBroker with `script`. What the script finds wrong is raised rather
        than what the device makes of it.
        """
        with FakeBroker(script) as fake:
            try:
                return cls.check(fake, *program, **arguments)
            except AssertionError:
                fake.close()
                raise

    def subscribed(self, count=1):
        """Return when it was sent a SUBACK, the `count`-th."""
        if isinstance(self._to, Proxy):
            self._to.wait_for("SUBACK", "down", count)
        else:
            self._to.wait_for_log("Sending SUBACK to device", count=count)

    def said(self, word):
        """Return what stands behind `word` in the lines that begin with it so far (list)."""
        return [line[len(word) + 1 :] for line in self.lines if line.startswith(word + " ")]

    def leave(self):
        """Tell it to leave, which every device understands that does nothing else; see finish."""
        self.send("leave")
        return self.finish()

    def finish(self, timeout_s=30):
        """
        Return its stdout (str) when it has ended by itself.

        Raises AssertionError unless that is in time, and with exit status 0.
        """
        result = self.wait(timeout_s)
        assert result.code == 0, f"exit status {result.code}\n{self.report()}"
        return result.out
