"""What waits on the chip, and who may put it there."""

import collections

import pytest

from tests.virtual_pico.desk import Desk
from tests.virtual_pico.figures import install


def away(desk):
    """Have the broker be away for the board, and there for others."""
    desk.pico.fault(refuse=[desk.broker.ports["mtls"]])
    desk.pico.reset_connections()


def numbers(peer, topic):
    return [int(p) for t, p in peer.received if t == topic and p != b"end"]


def test_what_a_timer_enqueues_arrives_once_and_in_order(desk):
    desk.install("crowd")
    peer = desk.broker.peer("from/crowd/#", qos=1)
    desk.pico.start("import crowd; crowd.timer(500)")
    assert desk.pico.wait_for("^idle") == "idle True"
    line = desk.pico.wait_for("^timer done").split()
    published, connects = int(line[3]), int(line[4])
    peer.wait_for(501 + published + 1)
    assert numbers(peer, "from/crowd/timer") == list(range(501))
    assert numbers(peer, "from/crowd/main") == list(range(published))
    assert connects == 1


@pytest.mark.parametrize("full", ["newest", "oldest"])
def test_a_burst_while_the_broker_is_away_leaves_memory_for_the_next_handshake(desk, full):
    """512 messages of 12 bytes left no piece of the heap that a handshake could have had."""
    desk.install("crowd")
    peer = desk.broker.peer("from/crowd", qos=1)
    desk.pico.start(f"import crowd; crowd.burst({full!r})")
    desk.pico.wait_for("^up")
    away(desk)
    count, taken = map(int, desk.pico.wait_for("^took").split()[1:])
    packet = 2 + 2 + 10 + 2 + 4
    fits = 8192 // packet
    assert count == (fits if full == "newest" else 2000)
    assert taken < 8192 + 3000  # with the module, the ring's object
    desk.pico.heal()
    assert desk.pico.wait_for("back") == "back"
    desk.pico.wait_for("^burst done")
    peer.wait_for(fits + 1)
    assert numbers(peer, "from/crowd") == list(range(count - fits, count))


def test_a_task_for_each_publish_leaves_memory_for_the_next_handshake(desk):
    """10 a second took all of it in 47 s."""
    desk.install("crowd")
    peer = desk.broker.peer("from/crowd", qos=1)
    desk.pico.start("import crowd; crowd.tasks(600)")
    desk.pico.wait_for("^up")
    away(desk)
    desk.pico.set_speed(10)
    assert "32 publish() calls wait already (max_waiting)" in desk.pico.wait_for("^refused")
    count, free = map(int, desk.pico.wait_for("^took").split()[1:])
    assert count == 32
    assert free > 60_000
    desk.pico.set_speed(1)
    desk.pico.heal()
    assert desk.pico.wait_for("back") == "back"
    desk.pico.wait_for("^tasks done")
    peer.wait_for(count + 1)
    arrived = collections.Counter(numbers(peer, "from/crowd"))
    assert arrived == collections.Counter(range(32))


def test_a_heap_that_stays_full_is_back_after_each_outage(desk):
    """Filled to the last byte with a connection: what TLS gives back is for the next one alone."""
    desk.install("crowd")
    desk.pico.start("import crowd; crowd.full(2)")
    assert int(desk.pico.wait_for("^left").split()[1]) < 1000
    for _ in range(2):
        desk.pico.wait_for("^up")
        away(desk)
        desk.pico.wait_for("^lost")
        desk.pico.heal()
        assert "back" in desk.pico.wait_for("back")


@pytest.mark.parametrize("form", ["frozen", ".mpy"])
def test_an_app_that_takes_all_that_it_can_get_again_and_again_is_back_within_a_minute(
    request, tmp_path, pki, form
):
    """Of the broker's return, by the clock of the chip."""
    image = request.getfixturevalue("firmware" if form == "frozen" else "plain_firmware")
    with Desk(image, tmp_path, pki) as desk:
        pico = desk.pico
        if form == ".mpy":
            install(pico, request.getfixturevalue("dist") / "mip/package.json")
        desk.install("crowd")
        pico.start("import crowd; crowd.hungry(20)")
        pico.wait_for("^up")
        away(desk)
        pico.wait_for("^tried")
        pico.heal()
        begin = pico.emulated_s()
        pico.wait_for("^back")
        took_s = pico.emulated_s() - begin
        print(f"back after {took_s:.1f} s")
        assert took_s < 60
