"""FileStore: what it keeps, what a cut or a flipped byte costs, what it does when it is full."""

import os
import random
import sys

from mqtt_as_tls import store as module
from mqtt_as_tls.store import FileStore
from tests.unit.checks import raises

ROOT = (os.getenv("TMPDIR") or "/tmp") + "/mqtt-store-%s" % sys.implementation.name
LEAST = 8192  # max_bytes: segments of 1024 bytes


class Directory:
    """A directory of its own, gone afterwards: `with Directory() as path`."""

    count = 0

    def __enter__(self):
        Directory.count += 1
        self.path = "%s-%d-%d" % (ROOT, id(self), Directory.count)
        write(self.path, {})
        return self.path

    def __exit__(self, *exc):
        write(self.path, {})
        os.rmdir(self.path)


def write(path, files):
    """Have `files` {name: bytes} in the directory and nothing else."""
    try:
        os.mkdir(path)
    except OSError:
        pass
    for name in os.listdir(path):
        if name not in files:
            os.remove(path + "/" + name)
    for name in files:
        with open(path + "/" + name, "wb") as f:
            f.write(files[name])


def read(path):
    """Return {name: bytes} of the files in the directory."""
    files = {}
    for name in os.listdir(path):
        with open(path + "/" + name, "rb") as f:
            files[name] = f.read()
    return files


def opened(path, max_bytes=LEAST, full="newest", protocol=4, client_id="me"):
    store = FileStore(path, max_bytes, full)
    store.open(protocol, client_id)
    return store


def message(number, size=20, qos=1):
    """Return an encoded PUBLISH, its packet id 0, with the number in it."""
    payload = b"%d " % number
    payload += b"." * (size - len(payload))
    length = 3 + len(payload) + (2 if qos else 0)
    head = bytes((0x30 | qos << 1,))
    while length > 127:
        head += bytes((length & 127 | 128,))
        length >>= 7
    head += bytes((length,)) + b"\0\1t"
    return bytearray(head + (b"\0\0" if qos else b"") + payload)


def number(packet):
    """Return the number in a packet of message()."""
    packet = bytes(packet)
    at = packet.find(b"\0\1t") + (5 if packet[0] & 6 else 3)
    return int(packet[at:].split(b" ")[0])


def drain(store):
    """Take all that waits; return the numbers."""
    numbers = []
    while True:
        found = store.next()
        if not found:
            return numbers
        numbers.append(number(found[1]))


def state(store):
    """
    Return what a client finds after a reset: [(number, id, received) in flight], the numbers that
    wait in order, the inbound ids.
    """
    count = len(store)
    inflight = [(number(packet), entry[2], entry[3]) for entry, packet in store.inflight()]
    waiting = drain(store)
    assert count == len(inflight) + len(waiting) == len(store)
    return inflight, waiting, sorted(store.inbound)


def reloaded(path, **options):
    store = opened(path, **options)
    found = state(store)
    store.close()
    return found


def used(path):
    return sum([os.stat(path + "/" + name)[6] for name in os.listdir(path)])


# What is kept


def test_a_new_directory_is_made_and_holds_no_session():
    with Directory() as path:
        os.rmdir(path)
        store = opened(path)
        assert not store.restored
        assert len(store) == store.waiting == 0
        assert store.inbound == [] and store.inflight() == []
        assert store.next() is None
        store.close()
        store = opened(path)
        assert store.restored
        assert store.damaged == store.errors == 0
        store.close()


def test_messages_come_back_in_the_order_they_were_put():
    with Directory() as path:
        store = opened(path)
        for i in range(40):
            assert store.put(message(i)) is True
        store.close()
        store = opened(path)
        assert store.restored and len(store) == store.waiting == 40
        for i in range(40):
            assert bytes(store.next()[1]) == bytes(message(i))
        store.close()


def test_a_message_that_was_given_but_not_sent_comes_back():
    with Directory() as path:
        store = opened(path)
        for i in range(3):
            store.put(message(i))
        store.next()
        store.next()
        store.close()
        assert reloaded(path) == ([], [0, 1, 2], [])


def test_a_message_that_others_went_before_comes_back():
    with Directory() as path:
        store = opened(path)
        for i in range(4):
            store.put(message(i))
        first = store.next()[0]
        store.aside(first)
        store.sent(store.next()[0], 7)
        store.close()
        assert reloaded(path) == ([(1, 7, 0)], [0, 2, 3], [])
        store = opened(path)
        first = store.next()[0]
        store.sent(store.next()[0], 8)
        store.sent(first, 9)
        store.close()
        assert reloaded(path) == ([(1, 7, 0), (2, 8, 0), (0, 9, 0)], [3], [])


def test_what_is_in_flight_comes_back_with_its_id():
    with Directory() as path:
        store = opened(path)
        store.put(message(0))
        store.put(message(1))
        entry = store.add(message(2), 7)
        assert entry[2] == 7
        taken, packet = store.next()
        assert number(packet) == 0
        store.sent(taken, 65535)
        store.close()
        assert reloaded(path) == ([(2, 7, 0), (0, 65535, 0)], [1], [])


def test_messages_with_qos_0_come_back_until_they_are_done():
    with Directory() as path:
        store = opened(path)
        for i in range(3):
            store.put(message(i, qos=0))
        entry, _ = store.next()
        store.done(entry)
        store.close()
        assert reloaded(path) == ([], [1, 2], [])


def test_what_is_done_is_gone():
    with Directory() as path:
        store = opened(path)
        entries = [store.add(message(i), i + 1) for i in range(4)]
        store.done(entries[2])
        store.done(entries[0])
        store.close()
        assert reloaded(path) == ([(1, 2, 0), (3, 4, 0)], [], [])


def test_pubrec_is_remembered_in_the_order_it_came():
    with Directory() as path:
        store = opened(path)
        entries = [store.add(message(i, qos=2), i + 1) for i in range(4)]
        for i in (2, 0, 3):
            store.received(entries[i])
        store.done(entries[0])
        store.close()
        assert reloaded(path) == ([(1, 2, 0), (2, 3, 1), (3, 4, 1)], [], [])


def test_inbound_ids_are_remembered():
    with Directory() as path:
        store = opened(path)
        for packet_id in (1, 65535, 300):
            store.inbound_add(packet_id)
        store.inbound_remove(65535)
        store.inbound_remove(5)
        store.close()
        assert reloaded(path) == ([], [], [1, 300])


def test_a_lost_session_makes_ids_void_and_keeps_messages_in_order():
    with Directory() as path:
        store = opened(path)
        for i in range(4):
            store.put(message(i))
        entries = [store.next()[0] for _ in range(3)]
        for i in range(3):
            store.sent(entries[i], i + 1)
        store.inbound_add(9)
        store.done(entries[1])  # say, QoS 2 of unknown fate
        store.fresh()
        store.close()
        assert reloaded(path) == ([], [0, 2, 3], [])
        store = opened(path)
        entry, packet = store.next()
        store.sent(entry, 21)
        assert number(packet) == 0
        store.close()
        assert reloaded(path) == ([(0, 21, 0)], [2, 3], [])


def test_a_lost_session_with_nothing_to_forget_costs_no_write():
    with Directory() as path:
        store = opened(path)
        store.put(message(0))
        n = store.writes
        store.fresh()
        assert store.writes == n
        store.close()


def test_a_packet_id_is_used_again_after_its_message_is_done():
    with Directory() as path:
        store = opened(path)
        for i in range(300):
            store.done(store.add(message(i), 1))
        store.add(message(300), 1)
        store.close()
        assert reloaded(path) == ([(300, 1, 0)], [], [])


def test_how_many_connections_ended_on_a_message_is_remembered_whatever_its_id():
    with Directory() as path:
        store = opened(path)
        store.put(message(1))
        store.put(message(2))
        first, second = store.next()[0], store.next()[0]
        store.sent(first, 5)
        store.sent(second, 6)
        assert store.struck(first) == store.struck(second) == 0
        writes = store.writes
        for n in (1, 2):
            store.strike(first, n)
        assert store.writes == writes + 2
        store.close()
        store = opened(path)
        entry = [entry for entry, packet in store.inflight() if number(packet) == 1][0]
        assert store.struck(entry) == 2
        store.fresh()
        for n in range(100, 400):  # segment after segment: only what is alive is written again
            store.put(message(n))
            given = store.next()[0]
            store.sent(given, 7)
            store.done(given)
        store.close()
        store = opened(path)
        entry, packet = store.next()
        assert number(packet) == 1 and store.struck(entry) == 2
        assert store.struck(store.next()[0]) == 0
        store.strike(entry, 1000)
        assert store.struck(entry) == 255
        store.strike(entry, 0)  # the row is broken
        store.close()
        store = opened(path)
        assert store.struck(store.next()[0]) == 0 and store.suspect is None
        store.close()


def test_opening_twice_changes_nothing():
    with Directory() as path:
        store = FileStore(path)
        assert store.open(4, "me")
        store.put(message(1))
        assert not store.open(4, "me")
        assert len(store) == 1
        store.close()
        assert store.open(4, "me")
        assert len(store) == 1
        store.close()


def test_a_message_may_hold_a_log_of_its_own():
    with Directory() as path:
        store = opened(path)
        store.put(message(1))
        store.close()
        log = read(path)["00000001.log"]
        store = opened(path)
        store.put(message(2) + log)
        store.put(message(3))
        store.close()
        assert reloaded(path) == ([], [1, 2, 3], [])


# Writes


def test_a_message_costs_two_writes_if_it_is_sent_at_once_and_three_from_the_queue():
    with Directory() as path:
        store = opened(path)

        def cost(function, *args):
            before = store.writes
            function(*args)
            return store.writes - before

        def publish(qos):
            entry = store.add(message(1, qos=qos), 1)
            if qos == 2:
                store.received(entry)
            store.done(entry)

        def queued(qos):
            store.put(message(1, qos=qos))
            entry, _ = store.next()
            if qos:
                store.sent(entry, 1)
            if qos == 2:
                store.received(entry)
            store.done(entry)

        assert [cost(publish, qos) for qos in (1, 2)] == [2, 3]
        assert [cost(queued, qos) for qos in (0, 1, 2)] == [2, 3, 4]
        assert cost(store.inbound_add, 1) == cost(store.inbound_remove, 1) == 1
        store.close()


def test_new_segments_add_few_writes():
    with Directory() as path:
        store = opened(path, max_bytes=65536)
        before = store.writes
        for i in range(1000):
            store.done(store.add(message(i, 60), 1))
        assert 2000 <= store.writes - before <= 2020
        assert store.bytes == used(path) <= 2 * 8192
        store.close()


# Bounds


def test_a_full_store_refuses_the_newest():
    with Directory() as path:
        store = opened(path)
        n = 0
        while store.put(message(n)) is True:
            n += 1
            assert store.bytes <= LEAST
        assert n > 150
        assert store.put(message(n)) is False
        assert store.refused == 2 and store.dropped == 0
        assert store.error is None
        assert store.add(message(n), 1) is None
        assert store.bytes == used(path) <= LEAST
        # and all of it can be delivered
        for i in range(n):
            entry, packet = store.next()
            assert number(packet) == i
            store.sent(entry, i + 1)
            store.done(entry)
            assert store.bytes <= LEAST
        assert len(store) == store.errors == 0
        assert store.put(message(0)) is True
        store.close()


def test_a_full_store_is_emptied_through_any_window():
    for window in (1, 3, 8, 20):
        for size in (10, 33, 150):
            with Directory() as path:
                store = opened(path)
                n = 0
                while store.put(message(n, size, qos=2)) is True:
                    n += 1
                store.close()
                store = opened(path)
                flight = []
                packet_id = 0
                while True:
                    while store.waiting and len(flight) < window:
                        entry, packet = store.next()
                        assert number(packet) == packet_id
                        packet_id += 1
                        store.sent(entry, packet_id)
                        flight.append(entry)
                        store.inbound_add(packet_id)
                    if not flight:
                        break
                    entry = flight.pop(0)
                    store.received(entry)
                    store.done(entry)
                    store.inbound_remove(store.inbound[0])
                    assert store.bytes == used(path) <= LEAST
                assert packet_id == n and store.errors == 0 and store.damaged == 0
                store.close()
                assert reloaded(path) == ([], [], [])


def test_a_full_store_lets_the_oldest_give_way():
    with Directory() as path:
        store = opened(path, full="oldest")
        for i in range(1000):
            assert store.put(message(i)) is True
            assert store.bytes <= LEAST
        kept = len(store)
        assert kept > 120
        assert store.dropped == 1000 - kept
        assert store.refused == store.errors == 0
        assert used(path) <= LEAST
        store.close()
        assert reloaded(path) == ([], list(range(1000 - kept, 1000)), [])


def test_what_is_in_flight_never_gives_way():
    with Directory() as path:
        store = opened(path, full="oldest")
        store.add(message(5000, qos=2), 1)
        for i in range(3):
            store.put(message(i))
        entry, _ = store.next()
        store.sent(entry, 2)
        for i in range(3, 1000):
            assert store.put(message(i)) is True
        store.close()
        inflight, waiting, _ = reloaded(path)
        assert inflight == [(5000, 1, 0), (0, 2, 0)]
        assert waiting == list(range(1000 - len(waiting), 1000))
        assert store.dropped == 999 - len(waiting)


def test_what_was_given_but_not_sent_does_not_give_way_by_a_reset_either():
    for given_at in range(80, 135, 6):
        with Directory() as path:
            store = opened(path, full="oldest")
            store.put(message(0, 1500))  # so that no segment begins when the store is full
            i = 0
            while store.dropped == 0:
                i += 1
                if i == given_at:
                    assert number(store.next()[1]) == 0
                store.put(message(i))
            assert given_at < i
            store.close()
            found = reloaded(path, full="oldest")
            assert found == ([], [0] + list(range(1 + store.dropped, i + 1)), [])


def test_a_full_store_has_room_for_all_inbound_ids():
    for max_bytes in (LEAST, 2 * LEAST):
        for size in (20, 100, 500):
            for inflight in (0, 8, 20):
                with Directory() as path:
                    store = opened(path, max_bytes)
                    for i in range(inflight):
                        store.add(message(i, 40), i + 1)
                    while store.put(message(99, size)):
                        pass
                    for n in range(1000):
                        if n >= 256:  # the most that a session has
                            store.inbound_remove(n - 255)
                        store.inbound_add(n + 1)
                    assert store.errors == 0
                    store.close()
                    assert reloaded(path)[2] == list(range(745, 1001))


def test_with_all_in_flight_the_oldest_cannot_give_way():
    with Directory() as path:
        store = opened(path, full="oldest")
        n = 0
        while store.add(message(n, 1000), n + 1):
            n += 1
        assert n >= 5
        assert store.put(message(n, 1000)) is False
        assert store.refused == 2 and store.dropped == 0
        for packet_id in range(1, 200):
            store.inbound_add(packet_id)
            store.inbound_remove(packet_id)
        assert store.errors == 0
        assert store.bytes == used(path) <= LEAST
        store.close()
        assert reloaded(path) == ([(i, i + 1, 0) for i in range(n)], [], [])


def test_a_message_that_stays_in_flight_for_ever_stops_nobody():
    with Directory() as path:
        store = opened(path)
        store.add(message(9999, qos=2), 9)
        for i in range(2000):
            assert store.put(message(i)) is True
            entry, packet = store.next()
            assert number(packet) == i
            store.sent(entry, 1)
            store.done(entry)
            assert store.bytes <= LEAST
        store.close()
        assert len(read(path)) <= 3
        assert reloaded(path) == ([(9999, 9, 0)], [], [])


def test_a_message_larger_than_the_store_takes_raises():
    with Directory() as path:
        store = opened(path)
        assert store.put(message(1, store.largest - 10)) is True
        with raises(ValueError, "raise a quarter of max_bytes"):
            store.put(message(2, store.largest + 1))
        assert store.add(message(2, store.largest + 1), 1) is None
        store.close()
        assert reloaded(path) == ([], [1], [])


def test_a_smaller_max_bytes_later_loses_nothing():
    with Directory() as path:
        store = opened(path, max_bytes=32768)
        for i in range(500):
            assert store.put(message(i)) is True
        store.close()
        store = opened(path, max_bytes=LEAST)
        assert store.put(message(500)) is False
        for i in range(500):
            entry, packet = store.next()
            assert number(packet) == i
            store.sent(entry, 1)
            store.done(entry)
        assert store.errors == 0
        assert store.put(message(501)) is True
        store.close()
        assert used(path) < LEAST


def test_with_a_smaller_max_bytes_the_oldest_give_way_at_once():
    with Directory() as path:
        store = opened(path, max_bytes=32768)
        for i in range(500):
            store.put(message(i))
        store.close()
        store = opened(path, full="oldest")
        assert store.put(message(500)) is True
        assert store.bytes == used(path) <= LEAST
        kept = len(store)
        assert kept > 120 and store.dropped == 501 - kept
        store.close()
        assert reloaded(path) == ([], list(range(501 - kept, 501)), [])


def test_a_full_store_does_not_grow_by_resets():
    with Directory() as path:
        n = packet_id = 0
        for _ in range(40):
            store = opened(path)
            flight = [entry for entry, _ in store.inflight()]
            while store.put(message(n, 10)):
                n += 1
            for _ in range(2):
                entry, _ = store.next()
                packet_id += 1
                store.sent(entry, packet_id)
                flight.append(entry)
            while len(flight) > 4:
                store.done(flight.pop(0))
            for i in range(3):
                store.inbound_add(i + 1)
                store.inbound_remove(i + 1)
            assert store.bytes == used(path) <= LEAST
            assert store.errors == 0
            store.close()
        assert packet_id == 80 < n


# Whose it is


def test_arguments_out_of_range_raise():
    for text, *args in (
        ("directory: a path, not None", None),
        ("directory: a path, not ''", ""),
        ("directory: a path, not a bytes", b"/x"),
        ("max_bytes: a whole number from 8192 on, not 8191", "/x", 8191),
        ("max_bytes: a whole number from 8192 on, not a str of 3", "/x", "big"),
        ("full: newest or oldest, not a str of 4", "/x", 8192, "both"),
    ):
        with raises(ValueError, text):
            FileStore(*args)
    for wrong in (0, -1, 60001, 1.5, "many", None):
        with raises(ValueError, "max_writes: a number from 1 to 60000, not "):
            FileStore("/x", max_writes=wrong)


def test_half_an_hour_of_the_writes_may_come_at_once_and_then_they_wait():
    said = []
    with Directory() as path:
        store = FileStore(path, max_writes=10)  # one in 6 s
        store.open(4, "me", said.append)
        now_ms = (1 << 30) - 5000  # ticks begin anew soon
        first = store.writes
        while not store.wait_ms(now_ms):
            store.inbound_add(5)
            store.inbound_remove(5)
        assert store.writes - first in (300, 301)
        assert store.paused
        assert len(said) == 1 and "10 writes a minute (max_writes) are used up" in said[0], said
        for _ in range(20):  # and from then on as time goes by
            wait_ms = store.wait_ms(now_ms)
            assert 0 < wait_ms <= 12_000
            assert store.wait_ms(now_ms + wait_ms - 1 & 0x3FFFFFFF) == 1
            now_ms = now_ms + wait_ms & 0x3FFFFFFF
            assert store.wait_ms(now_ms) == 0
            store.inbound_add(5)
            store.inbound_remove(5)
        assert len(said) == 1  # it is told anew when half of it was there again
        now_ms = now_ms + 1_000_000 & 0x3FFFFFFF
        assert store.wait_ms(now_ms) == 0 and not store.paused
        while not store.wait_ms(now_ms):
            store.inbound_add(5)
        assert len(said) == 2
        before = store.writes  # what is under way is written all the same
        store.inbound_remove(5)
        assert store.writes == before + 1 and store.inbound == []
        store.close()


def test_in_no_time_are_there_more_writes_than_allowed():
    for max_writes in (1, 7, 120, 1000, 60000):
        with Directory() as path:
            store = FileStore(path, max_writes=max_writes)
            store.open(4, "me", lambda line: None)
            random.seed(max_writes)
            now_ms = 0
            store.wait_ms(now_ms)
            for n in range(2000):
                now_ms += random.choice((0, 0, 0, 1, 500, 60_000 // max_writes, 100_000))
                if not store.wait_ms(now_ms & 0x3FFFFFFF):
                    store.writes += 40 if n % 9 == 0 else 1  # stands for that many
                    most = (now_ms + 1_800_000) * max_writes // 60_000
                    assert store.writes <= most + 45, (max_writes, n)
            store.close()


def test_the_log_of_another_client_is_refused_and_left_alone():
    with Directory() as path:
        store = opened(path)
        store.put(message(1))
        store.close()
        before = read(path)
        for protocol, name in ((5, "me"), (4, "you")):
            store = FileStore(path)
            with raises(ValueError, "client id 'me', protocol 4") as caught:
                store.open(protocol, name)
            assert path in str(caught.error)
        assert read(path) == before
        assert reloaded(path) == ([], [1], [])


def test_a_directory_that_cannot_be_made_is_named():
    with Directory() as path:
        write(path, {"file": b"x"})
        for bad in (path + "/file", path + "/no/such"):
            with raises(ValueError, bad):
                opened(bad)


def test_foreign_files_are_ignored():
    with Directory() as path:
        foreign = {
            "readme.txt": b"hello",
            "1.log": b"x",
            "abcdefgh.log": b"y",
            "00000001.txt": b"",
        }
        write(path, foreign)
        store = opened(path)
        assert not store.restored
        store.put(message(1))
        store.close()
        assert reloaded(path) == ([], [1], [])
        found = read(path)
        for name in foreign:
            assert found[name] == foreign[name]


# Cut and damaged


class Journal:
    """
    Stands between the store and the files: notes every change, and fails on demand.

    changes  list of (name, bytes appended, or None: removed)
    fail     number of writes until one raises OSError (after half of its bytes), or None
    """

    def __init__(self):
        self.changes = []
        self.fail = None

    def __enter__(self):
        module.open = self.open
        module.os = self
        return self

    def __exit__(self, *exc):
        del module.open
        module.os = os

    def __getattr__(self, name):
        return getattr(os, name)

    def remove(self, path):
        os.remove(path)
        self.changes.append((path.split("/")[-1], None))

    def open(self, path, mode):
        f = open(path, mode)  # noqa: SIM115
        if mode == "rb":
            return f
        if mode == "wb":
            self.changes.append((path.split("/")[-1], b""))
        return Writer(self, path.split("/")[-1], f)

    def files(self, count):
        """Return {name: bytes} after the first `count` changes."""
        files = {}
        for name, data in self.changes[:count]:
            if data is None:
                del files[name]
            else:
                files[name] = files.get(name, b"") + data
        return files


class Writer:
    def __init__(self, journal, name, f):
        self.journal = journal
        self.name = name
        self.f = f

    def write(self, data):
        journal = self.journal
        data = bytes(data)
        if journal.fail is not None:
            journal.fail -= 1
            if journal.fail < 0:
                data = data[: len(data) // 2]
        self.f.write(data)
        journal.changes.append((self.name, data))
        if journal.fail is not None and journal.fail < 0:
            self.f.flush()
            raise OSError(28)

    def flush(self):
        self.f.flush()

    def close(self):
        self.f.close()


def busy(store, mark, steps):
    """
    Do all that a client does, `steps` times; mark() is called after each change of the state.
    """
    flight = []
    asides = []
    for i in range(steps):
        store.put(message(i, 10 + i % 7 * 20, i % 3))
        mark()
        found = i % 3 and store.next()
        if found:
            entry, packet = found
            if packet[0] & 6 and i % 7 == 1:
                store.aside(entry)
                asides.append((entry, packet[0] & 4))
            elif packet[0] & 6:
                store.sent(entry, 100 + i)
                flight.append((entry, packet[0] & 4))
            else:
                store.done(entry)
            mark()
        if i % 4 == 1:
            entry = store.add(message(1000 + i, 30, 2), 500 + i)
            mark()
            if entry:
                flight.append((entry, 4))
        if len(asides) > 2:
            flight.append(asides.pop(0))
            store.sent(flight[-1][0], 300 + i)
            mark()
        if len(flight) > 3:
            entry, exactly_once = flight.pop(i % 2)
            if exactly_once:
                store.received(entry)
                mark()
            store.done(entry)
            mark()
        if i % 5 == 2:
            store.inbound_add(i)
            mark()
        if i % 5 == 4:
            store.inbound_remove(i - 2)
            mark()
        if i % 50 == 49:
            store.fresh()
            mark()
            for entry, _ in flight:
                store.sent(entry, 700 + i + entry[1] % 100)
                mark()


def shadow(store):
    """Return what state() will give after a reset, from the memory of an open store."""
    waiting = []

    def note(seg, at, end, kind, body):
        if kind == 2:
            waiting.append(number(body))

    taken = [e for e in store._flight if not e[2]]
    for entry in taken:
        waiting.append(number(store._get(entry)))
    for seg in sorted(store._segments):
        if seg >= store._cursor[0] and store.waiting:
            store._each(seg, store._cursor[1] if seg == store._cursor[0] else 0, note)
    flight = [(number(packet), entry[2], entry[3]) for entry, packet in store.inflight()]
    return flight, waiting, sorted(store.inbound)


def cut_everywhere(steps, stride, full="newest"):
    """Cut the power at every `stride`-th byte of what busy() writes; return how often."""
    cuts = 0
    with Directory() as path:
        states = []  # (changes so far, state)
        with Journal() as journal:
            store = opened(path, full=full)

            def mark():
                states.append((len(journal.changes), shadow(store)))

            mark()
            busy(store, mark, steps)
            store.close()
            assert store.errors == 0
        k = offset = 0
        before = after = None
        for count in range(len(journal.changes)):
            while k < len(states) and states[k][0] <= count:
                before = after = states[k][1]
                k += 1
                moved = False
            name, data = journal.changes[count]
            files = journal.files(count)
            for n in range(len(data or "x")):
                offset += 1
                if offset % stride:
                    continue
                write(path, files)
                if data:
                    with open(path + "/" + name, "ab") as f:
                        f.write(data[:n])
                store = opened(path, full=full)
                found = state(store)
                if before is None:  # the first HEAD is not whole
                    assert found == ([], [], [])
                elif found != before or moved:
                    # a record counts when its last byte is there, and from then on
                    after = states[k][1]
                    if full == "oldest" and found != after:
                        assert gave_way(found, before, after)
                    else:
                        assert found == after
                        moved = True
                assert store.bytes == used(path) <= LEAST
                assert store.put(message(77777)) in (True, False)  # it goes on
                store.close()
                cuts += 1
    return cuts


def gave_way(found, before, after):
    """Whether messages gave way in `found`, and the one they gave way to is not there yet."""
    waiting = found[1]
    gone = [n for n in before[1] if n not in waiting]  # all behind those that were put aside
    at = before[1].index(gone[0]) if gone else 0
    return (
        (found[0], found[2]) == (before[0], before[2])
        and before[1] == waiting[:at] + gone + waiting[at:]
        and set(after[1][:-1]) <= set(waiting) | set(after[1][-1:])
    )


def test_a_cut_at_every_byte_loses_only_what_was_being_written():
    assert cut_everywhere(12, 1) > 1000


if sys.implementation.name != "micropython":  # it has no memory for a journal that long

    def test_a_cut_while_segments_come_and_go_loses_only_what_was_being_written():
        assert cut_everywhere(150, 17) > 700

    def test_a_cut_while_the_oldest_give_way_loses_only_what_was_being_written():
        assert cut_everywhere(400, 101, "oldest") > 400


def flip_everywhere(steps, stride, flip):
    with Directory() as path:
        store = opened(path)
        known = set()

        def mark():
            found = shadow(store)
            known.update([each[0] for each in found[0]] + found[1])

        busy(store, mark, steps)
        flight, waiting, _ = shadow(store)
        live = set([each[0] for each in flight] + waiting)
        store.close()
        files = read(path)
        assert len(files) > 1
        for name in sorted(files):
            data = files[name]
            for at in range(0, len(data), stride):
                bad = dict(files)
                bad[name] = data[:at] + bytes((data[at] ^ flip,)) + data[at + 1 :]
                write(path, bad)
                store = opened(path)
                inflight = [number(packet) for _, packet in store.inflight()]
                waiting = drain(store)
                found = set(inflight + waiting)
                assert found <= known
                assert len(live - found) <= 1, (name, at, live - found)
                if live - found:
                    assert store.damaged
                assert waiting == sorted(waiting) or found - live, (name, at)
                assert store.put(message(88888)) in (True, False)
                store.close()


def test_a_flipped_byte_costs_one_record():
    flip_everywhere(25, 1, 0xFF)


def test_a_flipped_bit_costs_one_record():
    flip_everywhere(30, 5, 1)


def test_damage_is_told_once():
    with Directory() as path:
        store = opened(path)
        for i in range(9):
            store.put(message(i))
        store.close()
        files = read(path)
        data = bytearray(files["00000001.log"])
        at = bytes(data).find(b"4 ..")
        data[at] ^= 1
        write(path, {"00000001.log": data})
        lines = []
        store = FileStore(path)
        store.log = lines.append
        store.open(4, "me")
        assert store.damaged == 1
        assert lines == ["store %s: 1 damaged places skipped" % path]
        assert drain(store) == [0, 1, 2, 3, 5, 6, 7, 8]
        assert store.damaged == 1
        store.close()


def test_files_of_garbage_are_skipped():
    garbage = bytes([i * 167 & 255 for i in range(1500)])
    with Directory() as path:
        for files in (
            {"00000001.log": garbage},
            {"00000001.log": b""},
            {"00000007.log": b"\xa7" * 1000},
            {"00000001.log": garbage, "00000002.log": b"", "00000009.log": bytes(600)},
        ):
            write(path, files)
            store = opened(path)
            assert not store.restored
            assert len(store) == 0
            assert store.put(message(1)) is True
            store.close()
            assert reloaded(path) == ([], [1], [])


def test_records_of_another_segment_are_no_records():
    # what a file system may show behind a file that grew when the power went
    with Directory() as path:
        store = opened(path)
        store.put(message(1))
        store.close()
        old = read(path)["00000001.log"]
        write(path, {"00000002.log": old})
        store = opened(path)
        assert not store.restored and len(store) == 0
        store.close()


# A flash that fails


def test_a_flash_that_fails_is_noted_and_never_raised():
    for fail in range(60):
        with Directory() as path:
            lines = []
            with Journal() as journal:
                store = opened(path)
                store.log = lines.append
                busy(store, lambda: None, 10)
                journal.fail = fail
                busy(store, lambda: None, 10)
                assert store.errors > 0 and store.error is not None
                assert "may not survive a reset" in lines[0]
                journal.fail = None
                expected = shadow(store)  # the memory went on; what put() refused is not in it
                store.inbound_add(1)
                store.inbound_remove(1)
                assert store.error is None
                store.close()
            assert store.bytes >= used(path)  # half a record may count as a whole one
            assert reloaded(path) == expected


def test_put_tells_a_failing_flash_from_a_full_one():
    with Directory() as path, Journal() as journal:
        store = opened(path)
        journal.fail = 0
        assert store.put(message(1)) is None
        assert store.put(message(2)) is None
        assert store.add(message(3), 1) is None
        journal.fail = None
        assert store.put(message(4)) is True
        assert drain(store) == [4]
        store.close()
