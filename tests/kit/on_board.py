"""
What runs under MicroPython before the app: it makes the app's folder the root of the file system,
as on a board, and watches from a task of its own how long others keep it waiting, and the heap.

Environment
    MQTT_TESTKIT  JSON: "flash" and "desk", paths of the PC, of which the second becomes /testkit;
                  "app", the name of the program

Lines for the test begin with "testkit: ". What the test wants is in /testkit/order, a word.
"""


def _begin():
    import asyncio
    import gc
    import json
    import os
    import sys
    from time import ticks_diff, ticks_ms

    class Flash:
        # VfsPosix has one buffer for both paths of rename(), so that one of them must need none:
        # from where we are. (Derived from it, imports would take this for a VfsPosix.)
        def __init__(self, folder):
            fs = os.VfsPosix(folder)
            self._rename = fs.rename
            for name in "mount umount chdir getcwd ilistdir mkdir open remove rmdir stat".split():
                setattr(self, name, getattr(fs, name))
            self.statvfs = getattr(fs, "statvfs", None)

        def rename(self, old, new):
            up = "../" * len([part for part in os.getcwd().split("/") if part])
            self._rename(old, up + new[1:] if new[0] == "/" else new)

    given = json.loads(os.getenv("MQTT_TESTKIT"))
    os.chdir("/")
    os.umount("/")
    os.mount(Flash(given["flash"]), "/")
    os.mount(os.VfsPosix(given["desk"]), "/testkit")
    os.chdir("/")
    sys.path[:] = ["", "/lib", "/testkit/fakes", ".frozen"]
    sys.argv[:] = [given["app"]]

    def radio(what):
        import network

        if what == "radio-down":
            kept.update(network.air.networks)
            network.air.networks.clear()
            network.lose_link()
        elif what == "radio-up":
            network.air.networks.update(kept)
        else:
            network.lose_association()

    kept = {}

    async def watch():
        longest = 0
        least = None
        turn = 0
        while True:
            before = ticks_ms()
            await asyncio.sleep_ms(10)
            late = ticks_diff(ticks_ms(), before) - 10
            if late > longest:
                longest = late
                print("testkit: stall", longest)
            turn += 1
            if turn % 20 == 1:
                gc.collect()
                free = gc.mem_free()
                if least is None or free < least:
                    least = free
                    print("testkit: heap", free, free + gc.mem_alloc())
            try:
                os.stat("/testkit/order")
            except OSError:
                continue
            with open("/testkit/order") as file:
                order = file.read()
            os.remove("/testkit/order")
            if order == "forget":
                longest = 0
            else:
                radio(order)
            print("testkit: did", order)

    asyncio.create_task(watch())
    with open(given["app"]) as file:
        return compile(file.read(), given["app"], "exec")


_begin = _begin()
exec(_begin, globals())
