"""
TLS handshakes without a client, one call of mbedTLS after another. What they leave of the C heap
is printed as "left N": see tests/virtual_pico/test_tls_steps.py, which runs them.
"""

import asyncio
import gc
import select
import socket

import config
import tls
import wiring

try:
    import tls_steps
except ImportError:  # the firmware that it is compared with
    tls_steps = None

ADDRESS = "10.77.0.1"
NAME = "broker.lan"
CONNECT = b"\x10\x10\x00\x04MQTT\x04\x02\x00\x3c\x00\x04bare"
CONNACK = b"\x20\x02\x00\x00"


def file(name):
    with open(f"/certs/{name}.der", "rb") as f:
        return f.read()


def context(ca="ca", own=True):
    made = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    if ca:
        made.load_verify_locations(file(ca))
    if own:
        made.load_cert_chain(file("cert"), file("key"))
    return made


def used():
    gc.collect()
    return tls_steps.info().used_bytes if tls_steps else 0


def deep(levels, *more):
    return more if levels == 0 else deep(levels - 1, levels, *more)


def all_back(before):
    """
    Return whether no more of the C heap is used than `before` (int): what was leaked never comes
    back. What an old frame still has may look like a connection to the collector, until others
    have taken its place.
    """
    for levels in range(1, 12):
        if used() == before:
            return True
        deep(levels)
        Handshake(context()).close()
    return False


class Handshake:
    """
    One on a socket that does not block.

    steps  int, how many calls it took so far
    """

    def __init__(self, context, port=wiring.tls_port, name=NAME):
        self.raw = socket.socket()
        self.raw.connect((ADDRESS, port))
        self.raw.setblocking(False)
        self.sock = context.wrap_socket(
            self.raw, server_hostname=name, do_handshake_on_connect=False
        )
        self.poller = select.poll()
        self.poller.register(self.sock, select.POLLOUT)
        self.steps = 0

    def step(self):
        """Return whether it is over. Raises what mbedTLS does."""
        self.poller.poll(10_000)
        self.steps += 1
        return bool(self.sock.write(CONNECT))

    def answer(self):
        """Return what the broker says to CONNECT (bytes)."""
        self.poller.modify(self.sock, select.POLLIN)
        self.poller.poll(10_000)
        return self.sock.read(4)

    def close(self):
        self.sock.close()
        self.raw.close()

    def finish(self):
        """Do the rest of it; return the CONNACK, or what was raised as a text; close it."""
        try:
            while not self.step():
                pass
            return self.answer()
        except (OSError, ValueError) as e:
            return repr(e)
        finally:
            self.close()


def errors():
    """What goes wrong, and in which words."""
    good = context()
    before = used()
    for what, made, port, name in (
        ("good", good, wiring.tls_port, NAME),
        ("another CA", context("other_ca"), wiring.tls_port, NAME),
        ("another name", good, wiring.tls_port, "elsewhere.lan"),
        ("no CA", context(None), wiring.tls_port, NAME),
        ("no certificate", context(own=False), wiring.tls_port, NAME),
        ("not TLS", good, wiring.tcp_port, NAME),
    ):
        print("error", what, Handshake(made, port, name).finish())
    from machine import RTC

    now = RTC().datetime()
    for year in (2016, 2060):
        RTC().datetime((year, 1, 1, 0, 0, 0, 0, 0))
        print("error", year, Handshake(good).finish())
    RTC().datetime(now)

    def refuse(certificate, depth):
        raise RuntimeError("no")

    good.verify_callback = refuse
    for _ in range(3):
        trial = Handshake(good)
        try:
            while not trial.step():
                pass
        except RuntimeError as e:
            print("error callback", repr(e))
        if tls_steps:
            try:
                trial.step()
            except OSError as e:
                print("again", e.errno)
        trial.close()
    good.verify_callback = None
    print("error good", Handshake(good).finish())
    del made, trial
    print("left", used() - before)


def blocking():
    """Users that know nothing of steps: a handshake at once, or within the first write."""
    made = context()
    before = used()
    for at_once in (True, False):
        raw = socket.socket()
        raw.connect((ADDRESS, wiring.tls_port))
        sock = made.wrap_socket(raw, server_hostname=NAME, do_handshake_on_connect=at_once)
        print("wrote", sock.write(CONNECT), sock.read(4) == CONNACK)
        sock.close()
        raw.close()
    sock = None
    try:
        raw = socket.socket()
        raw.connect((ADDRESS, wiring.tls_port))
        context("other_ca").wrap_socket(raw, server_hostname=NAME)
    except ValueError as e:
        print("raised", e)
    raw.close()
    print("left", used() - before)


def ends(every):
    """Ended after each `every` (int) steps: closed, or nobody has it any more."""
    made = context()
    trial = Handshake(made)
    print("answer", trial.finish() == CONNACK)
    steps = trial.steps
    trial = None
    before = used()  # a context keeps what it has computed of an RSA key
    for count in range(1, steps, every):
        for closed in (True, False):
            trial = Handshake(made)
            for _ in range(count):
                trial.step()
            if closed:
                trial.close()
            else:
                trial.raw.close()
            trial = None
            if not all_back(before):
                print("after", count, "of", steps, "closed" if closed else "dropped")
    print("ended", steps, "left", used() - before)


def dies(after):
    """The network ends it after so many steps: the test is told when, and is waited for."""
    made = context()
    before = used()
    trial = Handshake(made)
    for _ in range(after):
        trial.step()
    poller = select.poll()
    poller.register(trial.raw, 0)  # nothing but its end
    print("there")
    print("ended", len(poller.poll(60_000)))
    print("died", trial.finish())
    trial = poller = None
    print("left", used() - before)


def together():
    """Two at once, in turns: two that are good; one that is, and one that is not."""
    good, bad = context(), context("other_ca")
    for each in (good, bad):
        Handshake(each).finish()
    before = used()  # a context keeps what it has computed of an RSA key
    for other in (good, bad):
        trials = [Handshake(good), Handshake(other)]
        said = [None, None]
        while None in said:
            for i, trial in enumerate(trials):
                try:
                    if said[i] is None and trial.step():
                        said[i] = trial.answer() == CONNACK
                except ValueError as e:
                    said[i] = str(e).strip()
        print("together", said, min(each.steps for each in trials) > 10)
        for trial in trials:
            trial.close()
    trials = trial = None
    print("left", used() - before)


def full():
    """Connections until the C heap has no room, then until no heap has any; and again."""
    made = context()
    before = used()
    kept = [Handshake(made), Handshake(made)]
    for trial in kept:
        while not trial.step():
            pass
        print("up", trial.answer() == CONNACK)
    ballast = []
    for size in (8192, 1024, 256):
        try:
            while True:
                ballast.append(bytearray(size))
        except MemoryError:
            pass
    for _ in range(3):
        trial = None
        try:
            trial = Handshake(made)
            said = trial.finish()
        except (OSError, MemoryError) as e:
            said = repr(e)
        print("full", said)
    ballast = trial = None
    for each in kept:
        each.close()
    kept = each = None
    print("again", Handshake(made).finish() == CONNACK)
    print("left", used() - before)


def many(count):
    """So many that fail and so many that do not, in turns."""
    good, bad = context(), context("other_ca")
    before = used()
    for _ in range(count):
        assert Handshake(good).finish() == CONNACK
        assert "not correctly signed" in Handshake(bad).finish()
    print("many", count, "left", used() - before)


def silent(port):
    """One at once, with a server at `port` that says nothing."""
    made = context()
    raw = socket.socket()
    raw.connect((ADDRESS, port))
    made.wrap_socket(raw, server_hostname=NAME)


async def _streams(read_first):
    made = context()
    before = used()
    reader, writer = await asyncio.open_connection(
        ADDRESS, wiring.tls_port, ssl=made, server_hostname=NAME
    )
    if read_first:  # the handshake runs within it, and there is nothing to read then
        reading = asyncio.create_task(reader.readexactly(4))
        await asyncio.sleep(3)
    turns = 0

    async def beside():
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep_ms(1)

    task = asyncio.create_task(beside())
    writer.write(CONNECT)
    await writer.drain()
    print("answer", (await (reading if read_first else reader.readexactly(4))) == CONNACK)
    print("turns", read_first or turns > 10)
    task.cancel()
    writer.close()
    await writer.wait_closed()
    reader = writer = reading = task = None
    await asyncio.sleep_ms(50)
    print("left", used() - before < 4000)  # what asyncio had on its queues may be referred to


def streams():
    """asyncio's own streams, whose first write, or first read, has the handshake in it."""
    for read_first in (False, True):
        asyncio.run(_streams(read_first))


def dropped(count):
    """So many connections, of which two fit, that nobody closes and nobody has any more."""
    made = context()
    before = used()
    missed = tls_steps.info().missed
    for _ in range(count):
        trial = Handshake(made)
        while not trial.step():
            pass
        trial.raw.close()  # there are few of these
        trial = None
    print("dropped", tls_steps.info().missed - missed, used() - before)


async def _cancelled(moments_ms):
    from mqtt_as_tls import TLS, MQTTClient

    tls = TLS("/certs/ca.der", "/certs/cert.der", "/certs/key.der", ntp=None)
    before = used()
    for ms in moments_ms:
        client = MQTTClient(NAME, config.port, link=config.link, tls=tls, client_id="pico")
        connecting = asyncio.create_task(client.connect())
        while client.connection is None or client.connection.state < 4:
            await asyncio.sleep_ms(5)
        await asyncio.sleep_ms(ms)
        connecting.cancel()
        try:
            await connecting
        except asyncio.CancelledError:
            print("cancelled", ms)
        await client.disconnect()
    client = connecting = None
    await asyncio.sleep_ms(100)
    print("left", used() - before)


def cancelled(*moments_ms):
    """A client whose connect() is cancelled so many ms into its handshake."""
    asyncio.run(_cancelled(moments_ms))
