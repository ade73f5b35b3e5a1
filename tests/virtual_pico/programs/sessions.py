"""
Handshakes that resume a session, and those that must not: see
tests/virtual_pico/test_tls_sessions.py, which runs them.
"""

import time

import machine
import tls
import tls_steps
from handshakes import CONNACK, NAME, Handshake, context, used


def clock(year, seconds=0):
    """Set it to the begin of a year, and `seconds` more."""
    rtc = machine.RTC()
    rtc.datetime((year, 1, 1, 0, 0, 0, 0, 0))
    if seconds:
        at = time.gmtime(time.time() + seconds)
        rtc.datetime((at[0], at[1], at[2], 0, at[3], at[4], at[5], 0))


def trial(what, made, name=NAME):
    """One handshake; prints whether it was a full or a resumed one, or what went wrong."""
    before = tls_steps.sessions().resumed
    said = Handshake(made, name=name).finish()
    how = "resumed" if tls_steps.sessions().resumed > before else "full"
    print("trial", what, how if said == CONNACK else said)


def cases(address):
    """
    What leads to a full handshake, and what does not.

    address  int, where the session is in memory
    """
    clock(2021)  # as it is where nobody has set it
    good = context()
    base = used()
    trial("off", good)
    trial("off again", good)
    tls_steps.resume(3600)
    trial("no clock", good)
    trial("no clock again", good)
    clock(2027)
    trial("first", good)
    trial("second", good)
    trial("third", context())
    trial("elsewhere", good, "elsewhere.lan")
    trial("after elsewhere", good)
    trial("other CA", context("other_ca"))
    trial("after other CA", good)
    trial("no certificate", context(own=False))
    trial("after no certificate", good)

    seen = []
    good.verify_callback = lambda certificate, depth: seen.append(depth) or 0
    trial("callback", good)
    times = len(seen)
    trial("callback again", good)
    print("seen", 0 < times == len(seen))
    good.verify_callback = None
    trial("after callback", good)

    good.verify_mode = tls.CERT_NONE
    trial("unverified", good)
    good.verify_mode = tls.CERT_REQUIRED
    trial("after unverified", good)

    clock(2027, -60)
    trial("clock behind", good)  # which is a minute before 2027
    clock(2027, 3500)
    trial("in time", good)
    clock(2027, 3550)
    trial("too late", good)
    clock(2060)
    trial("expired", good)
    clock(2027, 3620)
    trial("after expired", good)

    for offset in (0, 40, 70, 100, 104, 108, 112, 300):
        machine.mem8[address + offset] ^= 1
        print("damaged", tls_steps.sessions().kept)
        machine.mem8[address + offset] ^= 1
    trial("repaired", good)
    machine.mem8[address + 300] ^= 1
    trial("damaged", good)
    for steps in range(3):
        ended = Handshake(good)
        for _ in range(steps):
            ended.step()
        ended.close()
    ended = None
    trial("after ended ones", good)
    tls_steps.resume(0)
    print("kept", tls_steps.sessions().kept)
    tls_steps.resume(3600)
    trial("forgotten", good)
    print("left", used() - base)


def again(what, seconds):
    """The next one, after a reset, `seconds` into 2027."""
    clock(2027, seconds)
    tls_steps.resume(3600)
    trial(what, context())
