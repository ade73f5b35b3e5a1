"""MQTT 5: enhanced authentication (5.0 section 4.12): two rounds of challenge and response."""

import hashlib
import hmac

import pytest

from tests.support import five
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker, in_order
from tests.support.five import field

SECRET = b"secret"
METHOD = b"\x15" + field("HMAC")

STEPS = """
import hashlib

def hmac(data):  # RFC 2104
    key = b"secret" + bytes(58)
    inner = hashlib.sha256(bytes(b ^ 0x36 for b in key) + data).digest()
    return hashlib.sha256(bytes(b ^ 0x5C for b in key) + inner).digest()

steps = []

def step(data):
    steps.append(data)
    if data is None:
        return b"hello"
    if data.startswith(b"ok"):
        if data[2:] != hmac(b"broker"):
            raise ValueError("not the broker")
        return None
    return hmac(data)

async def slow(data):
    await asyncio.sleep_ms(10)
    return step(data)
"""


def data(value):
    return b"\x16" + field(value)


def sign(value):
    return hmac.new(SECRET, value, hashlib.sha256).digest()


def rounds(connection, *challenges):
    """Challenge the client, and check its responses."""
    for challenge in challenges:
        connection.send(five.auth(0x18, METHOD, data(challenge)))
        assert connection.packet() == (
            0xF0,
            b"\x18" + five.with_length(METHOD, data(sign(challenge))),
        )


def begun(connection):
    first, body = connection.packet()
    assert first == 0x10 and body.count(METHOD) == 1 and data("hello") in body, body


WELCOME = five.connack(METHOD, data(b"ok" + sign(b"broker")))


@pytest.mark.parametrize("step", ["step", "slow"])
def test_two_rounds_of_challenges_are_answered_on_every_connection(step):
    """MQTT 5.0: [MQTT-4.12.0-3], [MQTT-4.12.0-5], [MQTT-3.15.2-1]"""

    def script(connection):
        begun(connection)
        rounds(connection, b"one", b"two")
        connection.send(WELCOME)
        if connection.number == 2:
            connection.until_closed()

    Device.against(
        script,
        STEPS,
        f"""
        client = make(protocol=5, auth=("HMAC", {step}), log=None)
        async with client:
            await until(lambda: client.stats.connects == 2)
        final = b"ok" + hmac(b"broker")
        assert steps == 2 * [None, b"one", b"two", final], steps
        """,
    )


def test_whatever_goes_wrong_while_authenticating_is_told_and_tried_again():
    """
    A step that raises, a server that does not prove itself, another method, an AUTH or CONNACK
    out of place.

    MQTT 5.0: [MQTT-4.12.0-5], [MQTT-4.12.0-7]
    """
    other = b"\x15" + field("PLAIN")
    ends = []

    def script(connection):
        begun(connection)
        connection.send(
            [
                five.connack(METHOD, data("okwrong")),
                five.connack(code=0x8C),
                five.auth(0x18, other, data("x")),
                five.auth(0x18),
                five.auth(0x00, METHOD),
                five.connack(),
                five.connack(other),
                WELCOME + five.auth(0x18, METHOD, data("x")),
                WELCOME,
            ][connection.number - 1]
        )
        ends.append((connection.number, connection.until_closed()))

    out = Device.against(
        script,
        STEPS,
        """
        client = make(protocol=5, auth=("HMAC", step))
        async with client:
            errors = []
            async for event in client.events():
                if type(event).__name__ == "Disconnected":
                    errors.append(event.error)
                elif len(errors) == 8:
                    break
        assert isinstance(errors[0], ValueError), errors[0]
        assert isinstance(errors[1], RefusedError) and errors[1].code == 0x8C, errors[1]
        for error in errors[2:]:
            assert isinstance(error, ProtocolError), error
        """,
    )
    assert "not the broker" in out
    goodbye = [(0xE0, b"\x82")]
    assert in_order(ends) == [[], [], *6 * [goodbye], [(0xE0, b"")]]


def test_a_step_that_fails_at_once_is_told_and_tried_again():
    def script(connection):
        begun(connection)
        connection.send(WELCOME)
        connection.until_closed()

    with FakeBroker(script) as fake:
        out = Device.check(
            fake,
            STEPS,
            """
            count = [0]

            async def moody(data):
                count[0] += 1
                if count[0] < 4:
                    raise OSError(count[0])
                return step(data)

            client = make(protocol=5, auth=("HMAC", moody))
            async with client:
                await client.wait_connected()
            """,
        )
        assert len(fake.connections) == 1
    assert all(f"not connected: OSError({n},)" in out for n in (1, 2, 3))


def test_none_is_for_the_beginning_alone():
    """The step function gets b"" for a challenge without data, and no call for an end without."""

    def script(connection):
        begun(connection)
        connection.send(five.auth(0x18, METHOD))
        assert connection.packet()[0] == 0xF0
        connection.send(five.connack(METHOD))
        assert connection.packet()[0] == 0xF0
        connection.send(five.auth(0, METHOD))
        connection.until_closed()

    Device.against(
        script,
        STEPS,
        """
        client = make(protocol=5, auth=("HMAC", step), log=None)
        async with client:
            await client.wait_connected()
            await client.reauthenticate()
        assert steps == [None, b"", None], steps
        """,
    )


def test_a_challenge_for_a_client_that_began_none_is_a_protocol_error():
    """MQTT 5.0: [MQTT-4.12.0-7]"""

    def script(connection):
        connection.accept(five.auth(0x18, METHOD, data("x")))
        connection.until_closed()

    Device.against(
        script,
        STEPS,
        """
        async with client:
            async for event in client.events():
                assert isinstance(event.error, ProtocolError), event.error
                assert "that nobody began" in str(event.error)
                break
        """,
        protocol=5,
        log=None,
    )


def test_authenticating_again_succeeds_is_refused_or_is_not_answered():
    """MQTT 5.0: [MQTT-4.12.1-1], [MQTT-4.12.1-2]"""

    def script(connection):
        begun(connection)
        connection.send(WELCOME)
        answers = [
            [five.auth(0, METHOD, data(b"ok" + sign(b"broker"))), b"\xf0\0"],
            [five.disconnect(0x87, b"\x1f" + field("no"))],
            [None],
            [b""],  # closes
        ]
        for answer in answers[connection.number - 1]:
            again = b"\x19" + five.with_length(METHOD, data("hello"))
            assert connection.packet() == (0xF0, again)
            if answer is None:
                connection.until_closed()
                return
            if answer:
                rounds(connection, b"one", b"two")
            # messages go on meanwhile
            connection.send(five.publish("t", b"x") + answer)
        if connection.number == 1:
            assert connection.packet() == (0x30, b"\0\3end\0")

    Device.against(
        script,
        STEPS,
        """
        client = make(protocol=5, auth=("HMAC", slow), log=None, ack_timeout_s=2)
        with raises(RuntimeError, "not connected"):
            client.reauthenticate()
        async with client:
            await client.wait_connected()
            for i in range(2):
                assert await client.reauthenticate() is None
            await until(lambda: client.stats.received == 2)
            await client.publish("end")
            await until(lambda: client.stats.connects == 2)
            with raises(RefusedError, "not authorized") as caught:
                await client.reauthenticate()
            assert caught.error.code == 0x87
            await until(lambda: client.stats.connects == 3)
            task = asyncio.create_task(client.reauthenticate())
            await asyncio.sleep_ms(20)
            with raises(RuntimeError, "under way"):
                client.reauthenticate()
            with raises(asyncio.TimeoutError):
                await task
            assert client.connected
            lose(client, ConnectError("the test ends this one"))
            await until(lambda: client.stats.connects == 4)
            with raises(ConnectError, "closed the connection"):
                await client.reauthenticate()
        plain = make(protocol=5, client_id="plain")
        with raises(ValueError, "auth="):
            plain.reauthenticate()
        with raises(ValueError, "auth="):
            make(client_id="four").reauthenticate()
        """,
    )


def test_giving_up_waiting_for_it_leaves_authenticating_again_as_it_is():
    """Cancelled before its challenge, while the step function works, or after a time-out."""

    def script(connection):
        begun(connection)
        connection.send(WELCOME)
        again = b"\x19" + five.with_length(METHOD, data("hello"))
        for _ in range(4):
            assert connection.packet() == (0xF0, again)
            assert connection.packet() == (0x30, b"\0\2go\0")
            rounds(connection, b"one", b"two")
            connection.send(five.auth(0, METHOD, data(b"ok" + sign(b"broker"))))
        connection.until_closed()

    Device.against(
        script,
        STEPS,
        """
        client = make(protocol=5, auth=("HMAC", slow), ack_timeout_s=1)
        async with client:
            await client.wait_connected()
            for i, how in enumerate(("cancel", "cancel in a step", "time out", "wait")):
                steps.clear()
                task = asyncio.create_task(client.reauthenticate())
                await until(lambda: steps == [None])
                await asyncio.sleep_ms(30)
                if how == "cancel":
                    task.cancel()
                elif how == "time out":
                    with raises(asyncio.TimeoutError):
                        await task
                if i < 3 and how != "cancel in a step":
                    with raises(RuntimeError, "under way"):
                        client.reauthenticate()
                await client.publish("go")
                if how == "cancel in a step":
                    await until(lambda: len(steps) == 2)  # and it is still at work
                    task.cancel()
                await until(lambda: not is_reauthenticating(client))
                assert len(steps) == 4, steps
            await task
            assert client.stats.connects == 1
        """,
    )
