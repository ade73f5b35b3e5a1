"""`./dev demo`: see DESCRIPTION."""

import signal

if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback while there is nothing to clean up

import argparse
import asyncio
import os
import sys

from .processes import Trouble
from .screen import Screen
from .story import Story

DESCRIPTION = """\
A device app under MicroPython publishes readings over TLS and obeys commands, while its link is
cut and its broker stops; then it meets a broker that it must not trust. Ends with a summary, and
with exit status 0 if nothing was lost. Takes about 20 seconds and leaves nothing behind.
"""
SIGNALS = ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")


async def play(embedded):
    """Return the exit status."""
    screen = Screen()
    story = asyncio.ensure_future(Story(screen, embedded).run())
    got = []

    def interrupt(number):
        if not got:  # once: cleaning up is not to be interrupted
            got.append(number)
            story.cancel()

    screen.when_gone = lambda: interrupt(signal.SIGPIPE)
    for number in (getattr(signal, name) for name in SIGNALS):
        if signal.getsignal(number) is not signal.SIG_IGN:  # as under nohup
            asyncio.get_running_loop().add_signal_handler(number, interrupt, number)
    try:
        return 0 if await story else 1
    except asyncio.CancelledError:
        screen.tell("demo", "interrupted; nothing of it is left")
        return 128 + got[0]
    except (Trouble, OSError) as trouble:
        print(f"./dev demo: {trouble}", file=sys.stderr)
        return 1


def main():
    parser = argparse.ArgumentParser(prog="./dev demo", description=DESCRIPTION)
    parser.add_argument(
        "--embedded", action="store_true", help="do without mosquitto, with a broker from PyPI"
    )
    embedded = parser.parse_args().embedded
    if os.name == "nt":
        sys.exit("./dev demo: MicroPython has no sockets on Windows: run it in WSL2")
    return asyncio.run(play(embedded))


if __name__ == "__main__":
    sys.exit(main())
