"""A client with a store, killed at random moments, and what then arrives at a real broker."""

import os
import random
import re
import subprocess
import threading
import time
from collections import Counter

import pytest

from tests.support import five, mpy, patience
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import CONNACK, RESUMED, FakeBroker
from tools.ports import free_port

KILLS = 8
QUEUE = ("max_queued_messages 0", "max_inflight_messages 100")  # the broker drops nothing
DEVICE = mpy.ROOT / "tests" / "device" / "kept.py"
LITTLEFS = mpy.ROOT / "tests" / "device" / "littlefs.py"


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path / "broker", "tcp", persistence=True, lines=QUEUE) as running:
        yield running


def told(lines, word):
    """Return the names behind `word`; a line without its dot was cut by the kill."""
    return [line.split()[1] for line in lines if line.startswith(word + " ") and line[-2:] == " ."]


class Mortal:
    """A device that is started again and again with the same store."""

    def __init__(self, directory, port, protocol=4, qos=1):
        self.args = port, protocol, directory
        self.qos = qos
        self.runs = 0
        self.lines = []

    def start(self, what, port=None):
        self.runs += 1
        port = port or self.args[0]
        args = (port, *self.args[1:], self.runs, what, self.qos)
        return mpy.start(DEVICE, *[str(arg) for arg in args])

    def killed(self, what, after_s, port=None):
        """Run it and kill it after a while; return the lines that it printed."""
        with self.start(what, port) as program:
            program.wait_for("started")
            time.sleep(after_s)
            result = program.kill()
        lines = result.out.split("\n")
        assert not [line for line in lines if "Traceback" in line or "not survive" in line], (
            result.out
        )
        self.lines += lines
        return lines

    def told(self, word):
        """Return the names that it printed behind `word`, in order."""
        return told(self.lines, word)

    def empty(self):
        """Run it until its store is empty."""
        with self.start("empty") as program:
            line = program.wait_for("empty", 60)
            assert program.wait().code == 0
        assert line.split()[1] == "0" and line.split()[3] == "0", line


def moments(seed, count=KILLS):
    chance = random.Random(seed)
    return [chance.choice((0, 0.02, 0.1, 0.3)) * chance.random() for _ in range(count)]


def in_order(names):
    """Whether the numbers behind each prefix ascend."""
    last = {}
    for name in names:
        prefix, number = name.rsplit("-", 1)
        if int(number) <= last.get(prefix, -1):
            return False
        last[prefix] = int(number)
    return True


def arrived(peer, wanted):
    """Wait for all `wanted` (list of names); return what arrived, in order."""
    end = time.monotonic() + patience.stretched(30)
    while time.monotonic() < end:
        names = [message.payload.decode() for message in list(peer.messages)]
        if set(wanted) <= set(names):
            break
        time.sleep(0.05)
    return names


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_enqueued_arrives_although_the_device_is_killed(broker, tmp_path, protocol, qos):
    peer = broker.peer("from/kept", qos=2)
    device = Mortal(tmp_path / "store", broker.port, protocol, qos)
    for after_s in moments(protocol * 10 + qos):
        device.killed("enqueue", after_s)
    device.empty()
    wanted = device.told("kept")
    assert len(wanted) > KILLS
    names = arrived(peer, wanted)
    counts = Counter(names)
    assert not [name for name in wanted if not counts[name]]
    if qos == 2:
        assert not [name for name in counts if counts[name] > 1]
        assert in_order(names)
    else:
        assert in_order(list(dict.fromkeys(names)))


@pytest.mark.parametrize("protocol", [4, 5])
def test_what_is_published_with_qos_2_arrives_once_although_the_device_is_killed(
    broker, tmp_path, protocol
):
    peer = broker.peer("from/kept", qos=2)
    device = Mortal(tmp_path / "store", broker.port, protocol, 2)
    for after_s in moments(protocol, 2 * KILLS):
        device.killed("publish", after_s)
    device.empty()
    wanted = device.told("acknowledged")
    assert len(wanted) > KILLS
    names = arrived(peer, wanted)
    counts = Counter(names)
    assert not [name for name in wanted if not counts[name]]
    assert not [name for name in counts if counts[name] > 1]


def test_what_was_enqueued_without_a_broker_arrives_in_order(broker, tmp_path):
    peer = broker.peer("from/kept", qos=2)
    device = Mortal(tmp_path / "store", broker.port, 4, 1)
    dead = free_port()
    wanted = []
    for n in range(60):
        if n > 2 and len(wanted) > 50:
            break
        device.killed("offline", 0.1, dead)
        wanted = device.told("kept")
    assert len(wanted) > 50
    assert peer.messages == []
    device.empty()
    names = arrived(peer, wanted)
    assert in_order(names)
    assert [name for name in names if name in wanted] == wanted


def test_inbound_qos_2_is_handled_once_although_the_device_is_killed(broker, tmp_path):
    device = Mortal(tmp_path / "store", broker.port)
    with device.start("receive"):
        broker.wait_for_log("Sending SUBACK to kept")
    sender = broker.peer()
    wanted = []
    kills = 0
    for after_s in moments(3):
        for _ in range(30):
            wanted.append(f"m-{len(wanted)}")
            sender.publish("to/kept", wanted[-1], qos=2)
        device.killed("receive", after_s)
        kills += 1
    with device.start("receive") as program:
        end = time.monotonic() + patience.stretched(20)
        while time.monotonic() < end:
            done = device.told("got") + told(program.lines, "got")
            if set(wanted) <= set(done):
                break
            time.sleep(0.05)
        time.sleep(0.3)
        program.kill()
    counts = Counter(done)
    assert set(wanted) == set(done)
    # a handler may have run right before its PUBREC was noted: at most one a kill
    assert sum(counts.values()) - len(counts) <= kills


# What the session tells the store

SESSION = mpy.Tests(mpy.ROOT / "tests" / "device" / "stored_tests.py")


@pytest.mark.parametrize("name", SESSION.names)
def test_session(name):
    SESSION.passes(name)


# littlefs, the file system of the boards


def test_power_cuts_within_littlefs_lose_only_what_was_being_written():
    out = mpy.check(LITTLEFS, "cut", heap="8M", timeout_s=60)
    assert int(out.split()[-2]) > 200, out


def test_a_message_costs_few_erases_of_the_flash():
    out = mpy.check(LITTLEFS, "wear", heap="8M")
    erases = [float(figure) for figure in re.findall(r"([\d.]+) erases", out)]
    assert erases[0] < 2.2 and erases[1] < 3.8, out


# Flash that cannot be written


def mounted(path, options):
    """Mount a small tmpfs; skip where that is not allowed."""
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(path)]
    if os.getuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs to mount a tmpfs")


@pytest.fixture
def small_disk(tmp_path):
    mounted(tmp_path / "disk", "size=16k")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


@pytest.fixture
def read_only_disk(tmp_path):
    mounted(tmp_path / "disk", "ro")
    yield tmp_path / "disk"
    subprocess.run(["umount", "-l", str(tmp_path / "disk")], check=True)


def test_a_read_only_directory_is_told_at_once(read_only_disk):
    out = mpy.check(
        """
        import os
        import sys
        sys.path.insert(0, os.getcwd())
        from mqtt_as_tls import FileStore, MQTTClient
        os.chdir(sys.argv[1])
        try:
            MQTTClient("x", client_id="me", store=FileStore("disk/store"))
        except ValueError as e:
            print(e)
        """,
        str(read_only_disk.parent),
    )
    assert "store disk/store: [Errno" in out and "give a directory to write in" in out


def test_a_client_that_runs_keeps_its_store(broker, tmp_path):
    """Whoever else is given it, or its directory, is told at the call, and takes nothing."""
    peer = broker.peer("t", qos=1)
    out = Device.check(
        broker,
        """
        async with client:
            await client.wait_connected()
            for other in (store, FileStore(FOLDER + "//./store/"), FileStore(RELATIVE)):
                for options in ({}, {"client_id": "other"}, {"protocol": 5}):
                    with raises(ValueError, "'device' has it: give each client a FileStore"):
                        make(host="localhost", store=other, **options)
            for i in range(20):
                await client.publish("t", str(i), qos=1)
            print("kept", store.writes > 20, store.errors, len(store))
        """,
        store=tmp_path / "store",
        client_id="device",
        names={
            "FOLDER": str(tmp_path),
            "RELATIVE": os.path.relpath(tmp_path / "store", mpy.ROOT),
        },
    )
    assert "kept True 0 0" in out
    assert [int(message.payload) for message in peer.wait_for(20)] == list(range(20))


def test_a_store_goes_to_the_next_client_once_the_first_has_stopped(broker, tmp_path):
    """A client that lost its store to another is told so when it is started."""
    out = Device.check(
        broker,
        """
        made = []
        client = make(store=store, client_id="device")
        for again in (store, FileStore(FOLDER + "/store")):
            async with client:
                await client.publish("t", "x", qos=1)
            made.append(client)
            client = make(store=again, client_id="device")
        for old in made:
            with raises(ValueError, "a FileStore with a directory of its own"):
                await old.__aenter__()
            assert not old.running
        async with client:
            await client.publish("t", "x", qos=1)
        print("connected", client.stats.connects, again.errors, len(again))
        """,
        store=tmp_path / "store",
        names={"FOLDER": str(tmp_path)},
    )
    assert "connected 1 0 0" in out


def test_a_client_with_another_id_leaves_the_store_to_the_first(broker, tmp_path):
    Device.check(
        broker,
        """
        with raises(ValueError, "client 'device' has it"):
            make(store=store, client_id="other")
        with raises(ValueError, "log of client id 'device'"):
            make(store=FileStore(FOLDER + "/store"), client_id="other")
        async with client:
            await client.publish("t", "x", qos=1)
        assert not store.errors and store.writes > 1
        """,
        store=tmp_path / "store",
        client_id="device",
        names={"FOLDER": str(tmp_path)},
    )


def test_a_full_disk_is_noted_and_the_messages_go_on(broker, small_disk):
    peer = broker.peer("t", qos=2)
    out = Device.check(
        broker,
        """
        with open(DISK + "/ballast", "wb") as f:
            try:
                while True:
                    f.write(bytes(512))
            except OSError:
                pass
        async with client:
            await client.wait_connected()
            for i in range(200):
                await client.publish("t", str(i), qos=2)
        print("errors", store.errors > 0)
        """,
        names={"DISK": str(small_disk)},
        store=small_disk / "store",
    )
    assert "errors True" in out
    assert "may not survive a reset" in out
    assert arrived(peer, ["199"]) == [str(i) for i in range(200)]


def test_a_store_takes_what_is_larger_than_the_queue_connected_or_not(tmp_path, broker):
    out = Device.check(
        broker,
        """
        async with client:
            print("offline", client.enqueue("t", bytes(1000), qos=1))
            await until(lambda: client.connected and not len(store))
            print("connected", client.enqueue("t", bytes(1000), qos=1))
            await until(lambda: not len(store) and not to_send(client))
        """,
        store=tmp_path / "store",
        max_queue=100,
    )
    assert "offline True" in out and "connected True" in out


def test_a_message_that_there_is_no_memory_to_keep_is_sent_all_the_same(tmp_path, broker):
    peer = broker.peer("t")
    out = Device.check(
        broker,
        """
        async with client:
            await client.wait_connected()
            no_memory("for a record")
            await client.publish("t", "1", qos=1)
            await client.publish("t", "2", qos=1)
            print("errors", store.errors, store.error, len(store), to_send(client))
        """,
        store=tmp_path / "store",
    )
    peer.wait_for(2)
    assert peer.received == [("t", b"1"), ("t", b"2")]
    assert "what changes now may not survive a reset" in out
    assert "errors 1 None 0 0" in out


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize("remembers", [True, False], ids=["kept", "fresh"])
def test_a_message_that_breaks_connections_is_given_up_though_the_board_is_reset_each_time(
    tmp_path, protocol, remembers
):
    """With a broker that keeps the session, and with one that the message makes forget it."""
    seen = []

    def script(connection):
        first, connect = connection.packet()
        present = int(remembers and connection.number > 1 and not connect[7] & 2)
        old = (CONNACK, RESUMED)[present]
        connection.send(five.connack(present=present) if protocol == 5 else old)
        while True:
            first, body = connection.packet()
            if first & 0xF0 == 0x30:
                seen.append(body[2:5])
                if b"bad" in body:
                    return
                connection.send(b"\x40\x02" + body[5:7])

    program = """
        events = client.events()
        async with client:
            if not len(store):
                client.enqueue("bad", "x", qos=1)
                client.enqueue("one", "x", qos=1)
            while True:
                event = await next_event(events, "Disconnected" if RUN < 3 else "Undelivered")
                if getattr(event, "topic", None) == "bad":
                    assert "3 connections ended on it" in str(event.error)
                    await until(lambda: not len(store))
                    break
                print("ended")
    """
    with FakeBroker(script) as fake:
        for run in (1, 2, 3):
            with Device(
                fake,
                program,
                names={"RUN": run},
                store=tmp_path / "store",
                protocol=protocol,
                give_up_after=3,
                back_off="latest",
            ) as device:
                if run < 3:
                    device.wait_for("^ended")
                    device.kill()
                else:
                    device.finish()
    assert [each for each in seen if each == b"bad"] == 3 * [b"bad"]
    assert seen[-1] == b"one"


def test_a_connection_that_ends_otherwise_breaks_the_row_on_flash_too(tmp_path):
    """What counts is a row of connections; one that lasts is none of it."""

    def script(connection):
        connection.accept(CONNACK if connection.number == 1 else RESUMED)
        while connection.packet()[0] & 0xF0 != 0x30:
            pass
        if connection.number == 3:
            go.wait(20)

    go = threading.Event()
    program = """
        events = client.events()
        rows = []
        async with client:
            client.enqueue("t", "x", qos=1)
            for n in (1, 2, 3):
                await next_event(events, "Disconnected")
                rows.append(store.suspect)
                if n == 2:
                    await until(lambda: client.stats.connects == 3)
                    sent_long_ago(client)
                    print("go")
            print("rows", [row and row[2] for row in rows])
    """
    with (
        FakeBroker(script) as fake,
        Device(fake, program, store=tmp_path / "store", give_up_after=9) as device,
    ):
        device.wait_for("^go")
        go.set()
        assert device.wait_for("^rows") == "rows [1, 2, None]"
        device.kill()


SLOW_STORE = """
from mqtt_as_tls import store as store_module
store_module.SPARE_MS = 2000
store = FileStore(FOLDER, max_writes=600)  # 20 at once, then 10 a second
lines = []

def log(line):
    lines.append(line)

client = make(store=store, log=log, max_queue=2000)
"""


def writes_of(text):
    return [int(word) for word in text.split()]


def test_more_messages_than_the_flash_is_to_bear_wait_and_none_is_lost(broker, tmp_path):
    peer = broker.peer("t")
    with Device(
        broker,
        "from mqtt_as_tls import FileStore",
        SLOW_STORE,
        """
        async with client:
            await until(lambda: client.connected)
            begun = time.ticks_ms()
            before = store.writes
            for n in range(40):
                await client.publish("t", str(n), qos=1)
            wrote = store.writes - before
            ms = time.ticks_diff(time.ticks_ms(), begun)
            print("wrote", wrote, 21 + ms // 100 + 3)
            print("said", len([line for line in lines if "max_writes" in line]), store.paused)
            print("connects", client.stats.connects)
        """,
        names={"FOLDER": str(tmp_path / "store")},
    ) as device:
        device.finish()
    peer.wait_for(40)
    assert [payload for _, payload in peer.received] == [str(n).encode() for n in range(40)]
    [(wrote, most)] = [writes_of(each) for each in device.said("wrote")]
    assert 80 <= wrote <= most
    assert device.said("said") == ["1 True"]
    assert device.said("connects") == ["1"]


def test_a_flood_of_qos_2_wears_the_flash_no_more_and_waits_at_the_broker(proxy, broker, tmp_path):
    """Each of them costs two writes: PUBREC is not sent before they may be made."""
    with Device(
        proxy,
        "from mqtt_as_tls import FileStore",
        SLOW_STORE,
        """
        got = []
        client.on("t", 2)(lambda message: got.append(int(message.payload)))
        async with client:
            await until(lambda: granted(client, "t") == 2)
            begun = time.ticks_ms()
            before = store.writes
            print("ready")
            await until(lambda: len(got) == 60)
            await until(lambda: not to_receive(client))
            ms = time.ticks_diff(time.ticks_ms(), begun)
            print("wrote", store.writes - before, 21 + ms // 100 + 25)
            print("got", got == list(range(60)), client.stats.connects, client.stats.duplicates)
        """,
        names={"FOLDER": str(tmp_path / "store")},
    ) as device:
        device.wait_for("ready")
        broker.publish("t", *range(60), qos=2)
        device.finish(60)
    [(wrote, most)] = [writes_of(each) for each in device.said("wrote")]
    assert 120 <= wrote <= most
    assert device.said("got") == ["True 1 0"]
    assert len(proxy.seen("PUBREC", "up")) == 60


def test_what_enqueue_takes_meanwhile_waits_in_memory_and_is_kept_at_the_end(broker, tmp_path):
    """It says no where there is no room for it there, as ever; the rest survives."""
    folder = tmp_path / "store"
    with Device(
        1,
        "from mqtt_as_tls import FileStore",
        SLOW_STORE.replace("max_writes=600", "max_writes=30"),  # 1 at once, then one in 2 s
        """
        taken = 0
        async with client:
            for n in range(400):
                if not client.enqueue("t", str(n), qos=1):
                    break
                taken += 1
                await asyncio.sleep_ms(0)
            print("writes", store.writes < 12, "paused", store.paused, "all", taken == 400)
            assert 50 < taken < 400, taken
        print("kept", len(store), taken)
        """,
        names={"FOLDER": str(folder)},
    ) as device:
        device.finish()
    assert device.said("writes") == ["True paused True all False"]
    [(kept, taken)] = [writes_of(each) for each in device.said("kept")]
    assert kept == taken
    peer = broker.peer("t")
    with Device(broker, store=folder) as device:
        peer.wait_for(taken)
        device.leave()
    assert sorted(int(payload) for _, payload in peer.received) == list(range(taken))


def test_a_client_stops_at_once_while_it_waits_for_the_flash(broker, tmp_path):
    with Device(
        broker,
        "from mqtt_as_tls import FileStore",
        SLOW_STORE.replace("max_writes=600", "max_writes=1"),  # none at once, one a minute
        """
        await client.connect()
        late = asyncio.create_task(client.publish("t", "z", qos=1))
        await until(lambda: store.paused and client.session.task)
        await client.disconnect()
        with raises(MQTTError, "stopped"):
            await late
        await asyncio.sleep_ms(0)
        assert not client.session.task
        # and it can be started again, with what is not bounded
        async with client:
            await client.publish("t", "now")
        print("stopped")
        """,
        names={"FOLDER": str(tmp_path / "store")},
    ) as device:
        device.wait_for("stopped")
        device.finish()
