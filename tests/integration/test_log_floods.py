"""What happens again and again does not flood the log: it is counted, and told once a second."""

import re

import pytest

from tests.support import apps, five
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker

FAILS = """
lines = []
client = make(log=lines.append, max_backlog=1 << 20)

@client.on("t/#", qos=0)
def handler(message):
    raise ValueError(message.payload)

async with client:
    await until(lambda: client.stats.received == COUNT)
    await until(lambda: not held(client)[0])
    await asyncio.sleep_ms(AFTER_MS)
for line in lines:
    print("line", line)
"""


def counted(lines, what):
    """Return how often `what` happened by the lines about it, and how many these are."""
    mine = [line for line in lines if what in line]
    more = [int(found[1]) for found in re.finditer(r"\((\d+) more\)", "\n".join(mine))]
    return sum(more) + len(mine) - len(more), len(mine)


@pytest.mark.parametrize("after_ms", [0, 2500])
def test_a_handler_that_raises_for_each_message_is_told_once_a_second_and_counted(after_ms):
    """The first is told whole, and how many there were in all: at the latest when it ends."""

    def script(connection):
        connection.accept()
        connection.packet()
        for n in range(600):
            payload = b"number %d" % n
            connection.send(b"\x30" + bytes([5 + len(payload)]) + b"\0\3t/1" + payload)
        connection.until_closed()

    with (
        FakeBroker(script) as fake,
        Device(fake, FAILS, names={"COUNT": 600, "AFTER_MS": after_ms}) as device,
    ):
        device.finish()
    lines = device.said("line")
    about = [line for line in lines if "handler of 't/#'" in line]
    assert about[0].endswith("handler of 't/#' failed: ValueError(b'number 0',)")
    total, count = counted(lines, "handler of 't/#'")
    assert total == 600, about
    assert count < 60
    assert "number 599" in about[-1]


def test_conditions_that_take_turns_are_each_told_once_a_second():
    """And of more than can be told apart the rest is counted together."""
    out = apps.check(
        """
        from mqtt_as_tls import repeats

        async def main():
            lines = []
            client = make(log=lines.append)
            async with client:
                first = time.ticks_ms()
                rounds = 0
                while time.ticks_diff(time.ticks_ms(), first) < 1500:
                    rounds += 1
                    for n in range(40):
                        repeats.tell(client, "condition %d" % n, ": %d" % rounds)
                    await asyncio.sleep_ms(5)
            seconds = 2 + time.ticks_diff(time.ticks_ms(), first) // 1000
            about = [line for line in lines if "condition" in line or "things like" in line]
            assert 17 <= len(about) <= 17 * (1 + seconds), len(about)
            for n in range(16):
                mine = [line for line in about if "condition %d:" % n in line]
                assert mine[0].endswith("condition %d: 1" % n), mine
                assert len(mine) <= 1 + seconds, mine
                more = sum([int(line.split("(")[1].split()[0]) for line in mine if "(" in line])
                assert more + len([line for line in mine if "(" not in line]) == rounds, mine
            print("told", len(about))
            # nothing of it is kept, and no task runs for it
            await asyncio.sleep_ms(1500)
            assert not client.repeats or not client.repeats.task
        """,
        1,
    )
    assert "told" in out


def test_what_happens_seldom_is_told_each_time():
    out = apps.check(
        """
        from mqtt_as_tls import repeats

        async def main():
            client = make()
            async with client:
                for n in range(3):
                    assert repeats.tell(client, "condition", ": the same")
                    await asyncio.sleep_ms(1300)
        """,
        1,
    )
    assert out.count("condition: the same\n") == 3


def test_a_traceback_is_printed_once_and_has_no_more_than_its_innermost_places():
    program = """
    def deeper(n):
        if n:
            deeper(n - 1)
        raise KeyError("end")

    @client.on("t/#", qos=0)
    async def handler(message):
        deeper(20)
    """

    def script(connection):
        connection.accept()
        connection.packet()
        for _ in range(100):
            connection.send(b"\x30\x05\0\3t/1")
        connection.until_closed()

    with FakeBroker(script) as fake, Device(fake, program) as device:
        device.wait_for(r"\(\d+ more\)")
        device.leave()
    total, _ = counted(device.lines, "handler of 't/#' failed")
    assert total == 100
    places = [line for line in device.lines if line.startswith("  File ")]
    assert 8 <= len(places) < 100, device.report()
    first = [n for n, line in enumerate(device.lines) if line.startswith("  File ")][:8]
    assert first == list(range(first[0], first[0] + 8))
    assert all(line.endswith("in deeper") for line in places[:8])


def test_a_broker_that_refuses_each_message_does_not_flood_it_either():
    """What nobody waits for is told in the log, and as events, all of them."""

    def script(connection):
        connection.accept(five.connack())
        while True:
            first, body = connection.packet()
            if first >> 4 == 3:
                connection.send(five.answer(0x40, int.from_bytes(body[3:5], "big"), 0x97))

    program = """
    lines = []
    client = make(log=lines.append, protocol=5)
    events = client.events()
    async with client:
        await until(lambda: client.connected)
        for n in range(200):
            client.enqueue("t", "x", qos=1)
            if n % 10 == 9:
                await until(lambda: not to_send(client))
    for line in lines:
        print("line", line)
    """
    with FakeBroker(script) as fake, Device(fake, program) as device:
        device.finish()
    total, count = counted(device.said("line"), "message to 't'")
    assert total == 200 and count < 30, device.report()


def test_a_state_that_lasts_is_one_line():
    """What was so before, and is still: an outage of an hour is a line."""

    def script(connection):
        connection.packet()
        connection.send(b"\x20\x02\x00\x03")  # not available

    with FakeBroker(script) as fake, Device(fake) as device:
        device.wait_for("not connected")
        fake.wait_for_connections(4)
        device.leave()
    assert len([line for line in device.lines if "not connected" in line]) == 1
