"""The link of the examples, PPP: shared, and brought up again when the other side ended it."""

import pytest

from tests.virtual_pico.pico import LINK_UP


def test_two_clients_share_the_link(desk):
    desk.install("twins")
    desk.pico.start("import twins; twins.main()")
    assert desk.pico.wait_for("^heard") == "heard [b'from castor', b'from pollux']"


def test_a_link_that_the_other_side_ends_is_brought_up_again(desk):
    pico = desk.pico
    desk.install("job")
    peer = desk.broker.peer("from/pico/back", qos=2)
    pico.start("import job, asyncio; asyncio.run(job.run(job.make(4)))")
    pico.wait_for("link up")
    pico.wait_for("connected in")
    pico.fault(link="down")
    pico.wait_for("connection lost")
    # it tries while nobody is there
    pico.set_speed(20)
    pico.wait_for("PPP: no address: check wiring, baud rate, login")
    pico.set_speed(1)
    pico.heal()
    pico.wait_for("connected in .* session resumed")
    desk.broker.peer().publish("to/pico/back", b"3", qos=2)
    peer.wait_for()


def test_a_soft_reset_while_ppp_connects_leaves_nothing_of_it(desk):
    pico = desk.pico
    pico.fault(link="silent")
    for _ in range(2):  # lwIP has one PPP to give
        pico.run(LINK_UP.partition("while")[0] + "time.sleep(1)")
        pico.soft_reset()
    pico.heal()
    assert pico.run(LINK_UP + "print(ppp.ifconfig()[0])") == "10.77.0.2"


@pytest.mark.parametrize("size", [20, 300, 1500])
@pytest.mark.parametrize("tls", [False, True])
def test_messages_with_qos_0_on_a_path_that_died_stop_no_other_task(desk, tls, size):
    pico = desk.pico
    desk.install("chatter")
    pico.start(f"import asyncio, chatter; asyncio.run(chatter.run({tls}, {size}))")
    pico.wait_for("^chattering")
    pico.fault(link="silent")
    _, longest_ms = pico.wait_for("^longest").split()
    assert int(longest_ms) < 1000  # lwIP waits 10 s when it has no room
