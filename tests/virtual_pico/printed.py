"""Figures that programs on a virtual Pico print, and the README's app there."""

import re

from tests.support import docs

_BLOCK_BYTES = 16  # of MicroPython's heap

# the README's app, and beside it a task that measures
_APP = """
import config
config.mqtt["protocol"] = {protocol}
{app}
async def beside():
    import gc, micropython
    running = asyncio.create_task(main())
    while not client.connected:
        await asyncio.sleep_ms(50)
    await asyncio.sleep(1)
    gc.collect()
    gc.collect()
    print("figure free", gc.mem_free())
    micropython.mem_info()
    running.cancel()

asyncio.run(beside())
"""
_RUN = "asyncio.run(main())\n"


def taken(output):
    """Return {name: [numbers]} of the lines "figure name number" in a program's output."""
    found = {}
    for name, number in re.findall(r"^figure (\w+) ([\d.]+)$", output, re.M):
        found.setdefault(name, []).append(float(number))
    return found


def largest_block(output):
    """Return the bytes of the largest free block, of the last micropython.mem_info()."""
    return int(re.findall(r"max free sz: (\d+)", output)[-1]) * _BLOCK_BYTES


def of_app(pico, protocol):
    """
    Run the README's app as a file until it is connected and has published; return (bytes of heap
    that are free then, bytes of the largest free block).
    """
    app = docs.text("app")
    assert app.endswith(_RUN)
    pico.put("/app.py", _APP.format(protocol=protocol, app=app.removesuffix(_RUN)))
    pico.soft_reset()
    said = pico.run("import app")
    return taken(said)["free"][0], largest_block(said)


def number(value, digits=0):
    return f"{value:,.{digits}f}"
