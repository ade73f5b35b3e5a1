"""
For MicroPython programs: one TLS handshake, and what came of it.

It does what a transport does: a socket that does not block, and CONNECT written until the
handshake is over.
"""

import gc
import json
import select
import socket
import time

from mqtt_as_tls.explain import explain
from mqtt_as_tls.tls import TLS

CONNECT = b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x02hs"


def talk(tls, address, port, name, deadline_ms=5000):
    """Return the broker's answer to CONNECT (bytes), or None when the time is over."""
    end = time.ticks_add(time.ticks_ms(), deadline_ms)
    raw = socket.socket()
    sock = None
    try:
        raw.connect(socket.getaddrinfo(address, port)[0][-1])
        raw.setblocking(False)
        gc.collect()
        sock = tls.wrap(raw, name)
        poll = select.poll()
        answer = b""
        sent = 0
        while len(answer) < 4:
            if sent < len(CONNECT):
                sent += sock.write(CONNECT[sent:]) or 0
                events = select.POLLOUT
            else:
                data = sock.read(4 - len(answer))
                if data == b"":
                    break
                answer += data or b""
                events = select.POLLIN
            if time.ticks_diff(end, time.ticks_ms()) < 0:
                return None
            poll.register(sock, events)
            poll.poll(10)
        return answer
    finally:
        if sock:
            sock.close()
        raw.close()


def attempt(tls, address, port, name, deadline_ms=5000):
    """Return a dict: the answer, or what failed, by name and in words."""
    try:
        answer = talk(tls, address, port, name, deadline_ms)
        return {"answer": None if answer is None else answer.hex(), "kind": None}
    except Exception as error:
        failed = tls.failure(error)
        cause, cure = explain(failed)
        return {
            "raised": repr(error),
            "kind": type(failed).__name__,
            "code": failed.code,
            "reason": str(failed),
            "cause": cause,
            "cure": cure,
            "raw": explain(error),
        }


def handshake(address, port, name, deadline_ms, unverified=False, **arguments):
    """Print what attempt() says, as JSON; `arguments` are those of TLS, or of TLS.unverified."""
    tls = (TLS.unverified if unverified else TLS)(**arguments)
    print(json.dumps(attempt(tls, address, port, name, deadline_ms)))


def refusal(**arguments):
    """Print the error of TLS(**arguments), or that there is none."""
    try:
        TLS(**arguments)
        print("accepted")
    except Exception as error:
        print(type(error).__name__ + ": " + str(error))
