"""
A real connection up to the broker's CONNACK, with what a device has.

It runs under MicroPython where one is installed, with the device package itself, so that its
verdict is the board's; else with Python's ssl, held to what a board can do.
"""

import dataclasses
import json
import os
import subprocess

from .. import library
from ..micropython import interpreter
from . import python_ssl
from .attempt import AFTER_S, MICROPYTHON, Attempt

_MOST_OUTPUT = 64 * 1024
_SLACK_S = 15  # for the interpreter to start and to end, on top of the attempt's own time

_PROGRAM = """\
import asyncio, json, sys, time
from mqtt_as_tls import MQTTClient, TLS, WiFi

async def main(o):
    r = {"version": ".".join(str(each) for each in sys.implementation[1][:3]), "ok": False}
    error = client = None
    said = []
    try:
        tls = None
        if o["tls"]:
            tls = TLS(ca=o["ca"], cert=o["cert"], key=o["key"],
                      server_hostname=o["server_hostname"], ntp=o.get("ntp"))
        link = None
        if o.get("wifi"):
            with open(o["wifi"]) as f:
                w = json.load(f)
            link = WiFi(w["ssid"], w["password"], country=w.get("country"))
        client = MQTTClient(o["host"], o["port"], link=link, tls=tls,
                            client_id=o["client_id"], user=o["user"],
                            password=o["password"], clean_start=not o["keep"],
                            connect_timeout_s=o["timeout_s"], log=said.append,
                            drain_s=0)
        if o["keep"]:
            held = client.messages()  # what waits comes here, and is not acknowledged: it stays
        await client.__aenter__()
        while not client.connected and client.error is None:
            await asyncio.sleep_ms(10)
        if client.connected:
            for line in said:  # "connected in 28 ms (TLS 26), session new"
                if " (TLS " in line:
                    r["tls_ms"] = int(line.split(" (TLS ")[1].split(")")[0])
            await asyncio.sleep_ms(o["after_ms"])
        error = client.error
        if client.connected:
            r["ok"] = True
        await client.disconnect()
    except Exception as e:
        error = error or e
    if error and not r["ok"]:
        from mqtt_as_tls.explain import explain
        code = getattr(error, "code", None)
        if code is None and isinstance(error, OSError) and isinstance(error.errno, int):
            code = error.errno
        r["error"] = type(error).__name__
        r["text"] = str(error)
        r["code"] = code
        state = getattr(client.connection, "ended_in", None) if client else None
        r["cause"], r["cure"] = explain(error, year=time.gmtime()[0], state=state)
    print("\\nmqttls:" + json.dumps(r))

asyncio.run(main(json.loads(%s)))
"""


def board_program(asked):
    """
    Return the program (str) that attempts the connection on a board; parse() reads its output.

    asked  dict of Target's fields with the board's own paths, and `timeout_s` (int), `after_ms`
           (int), `ntp` (what sets its clock, or None), `wifi` (path of wifi.json, or None)
    """
    return _PROGRAM % repr(json.dumps(asked))


def parse(out, by=MICROPYTHON):
    """Return the Attempt that a program's output (str) tells of, or None."""
    for line in reversed(out[-_MOST_OUTPUT:].splitlines()):
        if line.startswith("mqttls:"):
            said = json.loads(line[7:])
            return Attempt(by=f"{by} {said.pop('version')}", **said)
    return None


def dial(target, timeout_s=20):
    """
    Return the Attempt to connect to `target`, an attempt.Target; one, without a second try.

    The session of a live device stays untouched: the connection is a clean one, or the target
    keeps it. With the client id of a live device the broker would throw that one out, so give it
    another.
    """
    path = interpreter()
    return _micropython(path, target, timeout_s) if path else python_ssl.dial(target, timeout_s)


def shake(target, timeout_s=20):
    """
    Return the Attempt to get through the TLS handshake, in which the broker checks the client's
    certificate; it says nothing of MQTT, so the broker throws nobody out for it.
    """
    return python_ssl.dial(target, timeout_s, connect=False)


def _micropython(path, target, timeout_s):
    """Return the Attempt of the MicroPython at `path`."""
    asked = dataclasses.asdict(target)
    asked["ca"] = [os.path.abspath(each) for each in target.ca]
    for name in ("cert", "key"):
        asked[name] = os.path.abspath(asked[name]) if asked[name] else None
    asked.update(timeout_s=int(timeout_s), after_ms=int(AFTER_S * 1000))
    environment = {**os.environ, "MICROPYPATH": f"{library.folder().parent}{os.pathsep}.frozen"}
    try:
        done = subprocess.run(
            [path, "-c", _PROGRAM % "sys.stdin.readline()"],
            input=json.dumps(asked) + "\n",
            env=environment,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=timeout_s + _SLACK_S,
        )
    except subprocess.TimeoutExpired:
        return Attempt(error="TimeoutError", text=f"MicroPython hung for {timeout_s} s")
    except OSError as error:
        return Attempt(error="OSError", text=f"{path} cannot be started: {error.strerror}")
    attempt = parse(done.stdout)
    if attempt:
        return attempt
    text = (done.stdout + done.stderr).strip().splitlines()
    return Attempt(error="RuntimeError", text=f"{path} failed: {text[-1] if text else 'silently'}")
