"""
The client on a link that fails: a Pico W's Wi-Fi (tests/fakes/network.py), and links that users
write. The broker wants TLS both ways; what the radio does to frames, a proxy does to bytes.
"""

import pytest

from tests.support import secure
from tests.support.broker import HOST
from tests.support.proxy import Proxy
from tests.support.secure import files

# Publishes 1, 2, 3 ... with QoS 1 until `ended`, and prints what comes. What the test sends
# happens to the radio, as Python.
APP = """
    from tests.fakes import network
    from mqtt_as_tls import WiFi
    from tests.device.inside import set_router, set_wifi, steady_wifi, unanswered

    ended = False
    set_wifi(10, 150)
    exec(os.getenv("PREPARE"))
    network.on_traffic = lambda passes: print("frames", "pass" if passes else "stop")

    async def main():
        global client
        soonest()
        steady_wifi()
        asyncio.create_task(obey(globals()))
        wifi = eval(os.getenv("WIFI"))
        if os.getenv("ROUTER"):
            asyncio.create_task(network.gateway(set_router))
        else:
            set_router(9)
        client = hurry(secure(link=wifi))
        events = client.events()

        @client.on("down", qos=1)
        def take(message):
            print("received", message.payload.decode())

        n = 0
        async with Ticker() as ticker:
            async with client:
                asyncio.create_task(tell(events))
                while not ended:
                    n += 1
                    await client.publish("up", str(n), qos=1)
                    await asyncio.sleep_ms(10)
            print("published", n)
            print("ticks", ticker.ticks)
        print("calls", *[call[0] for call in network.calls])
"""
HOME = 'WiFi("home", "correct horse")'


@pytest.fixture
def arguments(pki):
    return files(pki.ca, pki.device)


def start(port, arguments, wifi=HOME, prepare="", router=True):
    env = {"WIFI": wifi, "PREPARE": prepare, "ROUTER": "1" if router else ""}
    return secure.start(APP, port, arguments, env=env)


def do(app, line):
    """Have the app do `line`, and return when it has."""
    app.send(line)
    app.wait_for("^did ")


def finish(app, broker=None, peer=None):
    """
    End the app, check that all it published arrived at `peer` in order, and return what changed
    something in the radio's driver (list of str).
    """
    app.send("ended = True")
    last = int(app.wait_for("^published").split()[1])
    calls = app.wait_for("^calls").split()[1:]
    result = app.wait()
    assert result.code == 0, result
    if peer:
        peer.wait_for(last, "up")
        numbers = [int(payload) for topic, payload in peer.received if topic == "up"]
        assert list(dict.fromkeys(numbers)) == list(range(1, last + 1))
    return calls


def falls_silent(proxy):
    """No frame passes any more."""
    proxy.stall()
    proxy.blackhole()


def test_a_board_that_boots_without_a_network_connects_when_there_is_one(
    mtls_proxy, mtls_broker, arguments
):
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments, prepare="network.air.networks.clear()") as app:
        line = app.wait_for("not connected: ")
        assert "Wi-Fi 'home': no such network in reach: check its name" in line, line
        for _ in range(3):
            app.wait_for("^event Disconnected LinkError")
        assert mtls_proxy.connections == 0
        do(app, 'network.air.networks["home"] = "correct horse"')
        app.wait_for("link up")
        app.wait_for("connected in")
        finish(app, peer=peer)


def test_a_wrong_password_is_told_and_tried_until_it_is_right(mtls_broker, arguments):
    prepare = 'network.air.networks["home"] = "another horse"'
    with start(mtls_broker.port, arguments, prepare=prepare) as app:
        line = app.wait_for("not connected: ")
        assert "Wi-Fi 'home': wrong password: check it, it is case-sensitive" in line, line
        assert "horse" not in line
        for _ in range(3):
            app.wait_for("^event Disconnected LinkError")
        do(app, 'network.air.networks["home"] = "correct horse"')
        app.wait_for("connected in")
        finish(app)


@pytest.mark.parametrize("board", ["cyw43", "esp32"])
def test_a_lost_link_comes_back_and_nothing_is_lost(mtls_proxy, mtls_broker, arguments, board):
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments, prepare=f'network.board("{board}")') as app:
        app.wait_for("connected in")
        app.wait_for("^event Connected")
        peer.wait_for(3, "up")
        mtls_proxy.stall()
        app.send("network.air.networks.clear(); network.lose_link()")
        app.wait_for("frames stop")
        peer.publish("down", "while it was away")
        app.wait_for("^event Disconnected ConnectError")  # no acknowledgement
        app.wait_for("^event Disconnected LinkError")
        do(app, 'network.air.networks["home"] = "correct horse"')
        app.wait_for("frames pass")
        mtls_proxy.rst()  # what is left of the old connection
        mtls_proxy.heal()
        app.wait_for("connected in .* session resumed")
        app.wait_for("received while it was away")
        finish(app, peer=peer)


def test_an_association_lost_unnoticed_is_found_by_a_router_that_does_not_answer(
    mtls_proxy, mtls_broker, arguments
):
    """Before the next attempt: only the connection that was lost has told of it."""
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        do(app, "network.lose_association()")
        falls_silent(mtls_proxy)
        app.wait_for("connection lost: no PUBACK")
        app.wait_for("the link looks up but the router does not answer: resetting it")
        assert "not connected: Wi-Fi" not in app.report()
        app.wait_for("frames pass")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        calls = finish(app, peer=peer)
    assert calls.count("connect") == 2, calls


@pytest.mark.parametrize("while_it_joins", [False, True])
@pytest.mark.parametrize("micropython", [28, 25])
def test_a_chip_that_hangs_is_switched_off_and_on_and_nothing_is_lost(
    mtls_proxy, mtls_broker, arguments, micropython, while_it_joins
):
    peer = mtls_broker.peer("up")
    prepare = f'network.board("cyw43", {micropython})'
    with start(mtls_proxy.port, arguments, prepare=prepare) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        falls_silent(mtls_proxy)
        peer.publish("down", "while it hung")
        if while_it_joins:
            do(app, "network.air.silent = True; network.lose_link()")
            app.wait_for("not connected: Wi-Fi 'home': cannot join")
            do(app, "network.air.hung = True; network.air.silent = False")
        else:
            do(app, "network.air.hung = True; network.driver.carry(False)")
        app.wait_for("frames pass")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in .* session resumed")
        app.wait_for("received while it hung")
        calls = finish(app, peer=peer)
    assert calls.count("deinit") in (1, 2), calls  # a stuck radio is switched off as well


def test_a_router_that_never_answers_makes_no_wifi_that_flaps(mtls_proxy, mtls_broker, arguments):
    with start(mtls_proxy.port, arguments, router=False) as app:
        app.wait_for("connected in")
        falls_silent(mtls_proxy)
        for _ in range(8):
            app.wait_for("^event Disconnected ConnectError")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        calls = finish(app)
    assert calls.count("connect") == 4, calls  # reset after 1, 2, 5 attempts; next would be 10


def test_a_link_that_is_alive_is_not_reset_though_no_broker_answers(
    mtls_proxy, mtls_broker, arguments
):
    with start(mtls_proxy.port, arguments) as app:
        app.wait_for("connected in")
        falls_silent(mtls_proxy)
        for _ in range(7):
            app.wait_for("^event Disconnected")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        assert finish(app) == JOINED_ONCE
    assert "reset" not in app.report()


def test_a_radio_that_does_not_start_is_told_as_an_event(mtls_proxy, mtls_broker, arguments):
    with start(mtls_proxy.port, arguments, prepare="network.air.broken = True") as app:
        line = app.wait_for("not connected: ")
        assert "the radio does not start: power-cycle the board, or machine.reset()" in line
        app.wait_for("^event RadioDead")
        for _ in range(3):
            app.wait_for("^event Disconnected LinkError")
        do(app, 'print("calls", len(network.calls))')
        assert "calls 1" in app.lines  # it waits before it tries again
        assert app.lines.count("event RadioDead") == 1
        app.send("network.air.broken = False")
        app.wait_for("connected in")
        finish(app)


# What changes while it is in the network

# lwIP ends all TCP connections when the address goes
ABORTS = """
from tests.device.inside import lose
network.on_abort = lambda: client.connected and lose(client, OSError(103))
"""


@pytest.mark.parametrize("board", ["cyw43", "esp32"])
def test_another_address_costs_one_connection_and_no_message(
    mtls_proxy, mtls_broker, arguments, board
):
    peer = mtls_broker.peer("up")
    prepare = f'network.board("{board}")\n{ABORTS}'
    with start(mtls_proxy.port, arguments, prepare=prepare) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        do(app, 'network.renumber("10.0.0.9")')
        line = app.wait_for("connection lost: ")
        assert "the board's network was lost, or its address" in line, line
        app.wait_for("connected in")
        do(app, 'print("address", network.WLAN().ifconfig()[0])')
        assert "address 10.0.0.9" in app.lines
        assert "not connected: Wi-Fi" not in app.report()
        finish(app, peer=peer)


def test_a_lease_that_ends_while_dhcp_is_dead_is_told_until_there_is_another(
    mtls_proxy, mtls_broker, arguments
):
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments, prepare=ABORTS) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        do(app, "network.air.dhcp = False; network.lose_lease()")
        app.wait_for("not connected: .*joined but got no address: check the router's DHCP")
        for _ in range(4):
            app.wait_for("^event Disconnected LinkError")
        do(app, "network.air.dhcp = True")
        app.wait_for("connected in")
        finish(app, peer=peer)


def test_a_short_way_to_another_access_point_of_that_name_costs_nothing(
    mtls_proxy, mtls_broker, arguments
):
    """Nobody is told that the chip has changed it: what was sent meanwhile TCP sends again."""
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments, prepare="hurry = lambda client: client") as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        mtls_proxy.stall()
        app.send("network.roam(0)")
        app.wait_for("frames stop")
        app.send("network.driver.look()")
        app.wait_for("frames pass")
        mtls_proxy.heal()
        peer.wait_for(len(peer.received) + 3, "up")
        assert finish(app, peer=peer) == JOINED_ONCE
    assert "connection lost" not in app.report()
    assert mtls_proxy.connections == 1


def test_a_long_way_to_another_access_point_of_that_name_ends_with_a_join(
    mtls_proxy, mtls_broker, arguments
):
    peer = mtls_broker.peer("up")
    with start(mtls_proxy.port, arguments) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        do(app, "network.roam(600_000)")
        mtls_proxy.stall()
        app.wait_for("connection lost: no PUBACK")
        app.wait_for("the router does not answer: resetting it")
        app.wait_for("frames pass")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        assert finish(app, peer=peer).count("connect") == 2


@pytest.mark.parametrize("wrong_key", ["told", "briefly", "never"])
@pytest.mark.parametrize("rejoins", [False, True])
def test_an_access_point_that_comes_back_with_another_password_is_told(
    mtls_proxy, mtls_broker, arguments, wrong_key, rejoins
):
    peer = mtls_broker.peer("up")
    prepare = f'network.air.wrong_key = "{wrong_key}"; network.air.rejoins = {rejoins}'
    with start(mtls_proxy.port, arguments, prepare=prepare) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        mtls_proxy.stall()
        do(app, "network.air.networks.clear(); network.lose_link()")
        app.wait_for("not connected: .*no such network in reach")
        do(app, 'network.air.networks["home"] = "another horse"')
        app.wait_for("not connected: .*wrong password")
        do(app, 'network.air.networks["home"] = "correct horse"')
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        finish(app, peer=peer)


# A broker's fault


JOINED_ONCE = ["active", "config", "connect"]


def hang_up(broker, proxy):
    proxy.cut(0, "up", times=None, how="fin")


def reset(broker, proxy):
    proxy.cut(0, "up", times=None, how="rst")


def reset_in_the_handshake(broker, proxy):
    proxy.cut(600, "down", times=None)


def refuse(broker, proxy):
    proxy.refuse()


def plain_mqtt(broker, proxy):
    proxy.target = (HOST, broker.ports["tcp"])


def silence(broker, proxy):
    proxy.stall()


@pytest.mark.parametrize(
    "fault", [hang_up, reset, reset_in_the_handshake, refuse, plain_mqtt, silence]
)
def test_a_fault_of_the_broker_does_not_touch_wifi(mtls_proxy, mtls_broker, arguments, fault):
    """What answers in any way has a network between it and us."""
    with start(mtls_proxy.port, arguments) as app:
        app.wait_for("connected in")
        fault(mtls_broker, mtls_proxy)
        mtls_proxy.rst()
        for _ in range(7):
            app.wait_for("^event Disconnected")
        mtls_proxy.target = (HOST, mtls_broker.port)
        mtls_proxy.heal()
        app.wait_for("connected in")
        calls = finish(app)
    assert calls == JOINED_ONCE


# Several


def test_of_two_networks_the_one_that_is_there_is_taken(mtls_proxy, mtls_broker, arguments):
    peer = mtls_broker.peer("up")
    wifi = 'WiFi(networks=[("home", "correct horse"), ("shed", "rusty nails")])'
    with start(mtls_proxy.port, arguments, wifi) as app:
        app.wait_for("connected in")
        peer.wait_for(3, "up")
        mtls_proxy.stall()
        app.send('network.air.networks = {"shed": "rusty nails"}; network.lose_link()')
        app.wait_for("frames stop")
        app.wait_for("frames pass")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("connected in")
        do(app, 'print("joined", *[c[1] for c in network.calls if c[0] == "connect"])')
        assert "joined home home home shed" in app.lines
        finish(app, peer=peer)


TWO = """
    from tests.fakes import network
    from mqtt_as_tls import WiFi
    from tests.device.inside import forget_said, set_router, set_wifi, unanswered

    set_wifi(10)

    class Watched(WiFi):
        "Tells when two are in it at a time."

        inside = 0

        async def up(self):
            self.inside += 1
            assert self.inside == 1
            await asyncio.sleep_ms(20)
            await super().up()
            self.inside -= 1

        async def reset(self):
            print("reset", [c.connected for c in clients])
            await super().reset()

    async def fail_so_often(n):
        await until(lambda: min([unanswered(c) for c in clients]) >= n)
        print("failed so often")

    async def main():
        global clients
        soonest()
        asyncio.create_task(obey(globals()))
        asyncio.create_task(network.gateway(set_router))
        link = Watched("home", "correct horse")
        network.on_traffic = lambda passes: print("frames", "pass" if passes else "stop")
        clients = [
            hurry(
                MQTTClient(
                    "127.0.0.1", int(port), client_id="device" + port, link=link, tls=tls_given()
                )
            )
            for port in sys.argv[1:]
        ]
        async with clients[0]:
            async with clients[1]:
                for client in clients:
                    await client.wait_connected()
                print("both connected", *[call[0] for call in network.calls])
                while True:
                    for client in clients:
                        if client.running and client.connected:
                            client.enqueue("up", "x", qos=1)
                    await asyncio.sleep_ms(100)
"""


@pytest.fixture
def two(mtls_broker, arguments):
    """Two clients of a link, connected through a proxy each: (app, proxy, proxy)."""
    with (
        Proxy(mtls_broker.port) as one,
        Proxy(mtls_broker.port) as other,
        secure.start(TWO, one.port, arguments, other.port) as app,
    ):
        line = app.wait_for("both connected")
        assert line.split()[2:] == JOINED_ONCE
        yield app, one, other


def test_a_link_is_not_reset_while_another_client_is_connected_over_it(two):
    app, one, other = two
    do(app, "clients[0].ack_timeout_s = 20")  # it stays connected, however busy the computer is
    falls_silent(other)
    for _ in range(6):
        app.wait_for(f"mqtt 127.0.0.1:{other.port}: .*no")
        do(app, "forget_said(clients[1])")  # else a repetition is not told
    assert "reset" not in app.report()
    do(app, "network.lose_association()")
    do(app, "asyncio.create_task(clients[0].disconnect())")
    app.wait_for(r"reset \[False, False\]")
    other.heal()
    app.wait_for(f"mqtt 127.0.0.1:{other.port}: connected in")


def test_an_association_lost_unnoticed_by_two_clients_is_reset_once(two):
    app, one, other = two
    falls_silent(one)
    falls_silent(other)
    do(app, "network.lose_association()")
    app.wait_for("^reset")
    app.wait_for("frames pass")
    do(app, "asyncio.create_task(fail_so_often(7))")
    app.wait_for("failed so often")
    for proxy in (one, other):
        proxy.rst()
        proxy.heal()
    for _ in range(2):
        app.wait_for("connected in")
    assert len([line for line in app.lines if line.startswith("reset")]) == 1, app.report()


# Links that users write


def test_a_link_of_the_user_s_own_needs_just_five_methods(mtls_proxy, arguments):
    with secure.start(
        """
        class Modem:
            dialled = False
            failures = 2

            def is_up(self):
                return self.dialled

            async def up(self):
                await asyncio.sleep_ms(20)
                if self.failures:
                    self.failures -= 1
                    raise OSError("no carrier")
                self.dialled = True
                print("modem up")

            async def reset(self):
                self.dialled = False
                print("modem reset")

            async def down(self):
                self.dialled = False

            def dns_servers(self):
                return []

        async def main():
            soonest()
            global going_on
            going_on = 0
            modem = Modem()
            asyncio.create_task(obey(globals()))
            async with hurry(secure(link=modem)) as client:
                for n in range(2):
                    await client.publish("up", "x", qos=1)
                    print("published")
                    await until(lambda: going_on > n)
            await modem.down()
        """,
        mtls_proxy.port,
        arguments,
    ) as app:
        app.wait_for("not connected: OSError.*no carrier")
        app.wait_for("modem up")
        app.wait_for("link up")
        app.wait_for("published")
        falls_silent(mtls_proxy)
        do(app, "going_on = 1")
        app.wait_for("resetting it")
        app.wait_for("modem reset")
        app.wait_for("modem up")
        mtls_proxy.rst()
        mtls_proxy.heal()
        app.wait_for("published")
        do(app, "going_on = 2")
        assert app.wait().code == 0


# Ctrl-C


AGAIN = """
    from tests.fakes import network
    from mqtt_as_tls import WiFi
    from tests.device.inside import forget_said, set_router, set_wifi, unanswered

    set_wifi(10, 100_000)
    network.air.silent = True
    client = secure(link=WiFi("home", "correct horse"))

    async def joining():
        print("joining")
        while True:
            await asyncio.sleep_ms(10)

    async def main():
        asyncio.create_task(joining())
        async with client:
            await client.publish("up", "x", qos=1)
        print("published")

    try:
        asyncio.run(main())
    except KeyboardInterrupt:
        print("interrupted")
    asyncio.new_event_loop()
    network.air.silent = False
    asyncio.run(main())
"""


def test_ctrl_c_while_it_joins_wifi_is_no_obstacle_to_the_next_run(mtls_broker, arguments):
    with secure.start(AGAIN, mtls_broker.port, arguments) as app:
        app.wait_for("joining")
        app.interrupt()
        app.wait_for("interrupted")
        app.wait_for("published")
        assert app.wait().code == 0
