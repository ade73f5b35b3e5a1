"""MQTT 5: a request and its response."""

import pytest

from tests.support import apps, five
from tests.support.broker import Broker
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker
from tests.support.five import field

RESPONDER = """
other = make(protocol=5, client_id="responder", log=None)

@other.on("ask/#", 2)
async def asked(message):
    if message.payload == b"slow":
        await asyncio.sleep_ms(120)
    await other.respond(message, b"re:" + message.payload)
"""


def test_requests_of_several_tasks_get_their_own_responses(proxy):
    """The response has the QoS of the request, and its correlation data."""
    Device.check(
        proxy,
        RESPONDER,
        """
        async with client, other:
            await subscribed(other)
            # three of them in the other order
            found = await asyncio.gather(
                client.request("ask/a", "slow", qos=1), client.request("ask/b", "2", qos=2),
                client.request("ask/c", b"3"), client.request("ask/d", "4", timeout_s=None),
            )
            assert [each.payload for each in found] == [b"re:slow", b"re:2", b"re:3", b"re:4"]
            assert [each.qos for each in found] == [1, 1, 0, 0], [each.qos for each in found]
            assert found[0].topic == "devices/device/response"
            for n in "12":
                own = await client.request("ask/a", n, response_topic="mine/r")
                assert (own.topic, own.payload) == ("mine/r", b"re:" + n.encode())
            with raises(ValueError, "+ and # are for subscribing only"):
                client.request("ask/a", response_topic="mine/#")
            client.on("taken")(print)
            with raises(ValueError, "taken"):
                await client.request("ask/a", response_topic="taken")
            names = {each.properties["correlation_data"] for each in found}
            assert len(names) == 4
            found = await client.request("ask/e", "5", properties=[
                ("user_property", ("a", "b")), ("content_type", "text")])
            assert found.payload == b"re:5"
            # as many as may wait, and one more
            tasks = [asyncio.create_task(client.request("ask/f", "slow")) for n in range(16)]
            await until(lambda: waiting_requests(client) == 16)
            with raises(RuntimeError, "16 requests wait"):
                await client.request("ask/g", "x")
            assert {each.payload for each in await asyncio.gather(*tasks)} == {b"re:slow"}
            assert waiting_requests(client) == 0
        """,
        protocol=5,
        log=None,
    )
    sent = [each for each in proxy.seen("PUBLISH", "up") if each.topic == "ask/e"]
    [each] = sent
    assert (
        b"\x26\0\1a\0\1b\3\0\4text\x08" + field("devices/device/response") + b"\x09\0\x10"
        in each.body
    )
    asked = [each for each in proxy.seen("SUBSCRIBE") if b"devices/device/response" in each.body]
    assert len(asked) == 1


def test_a_request_that_fails_says_how_and_leaves_nothing_behind(tmp_path):
    with Broker(tmp_path / "b", acl="topic readwrite ask/#\ntopic read #\n") as broker:
        out = Device.check(
            broker,
            """
            dumb = make(protocol=5, client_id="dumb", log=None)
            late = []

            @dumb.on("ask/#", 2)
            def asked(message):
                late.append(message)

            async with client:
                with raises(RefusedError, "no one is subscribed to 'ask/x'") as caught:
                    await client.request("ask/x", qos=1)
                assert caught.error.code == 16
                async with dumb:
                    await subscribed(dumb)
                    with raises(asyncio.TimeoutError):
                        await client.request("ask/x", qos=1, timeout_s=0.1)
                    assert waiting_requests(client) == 0
                    with raises(RefusedError, "not authorized") as caught:
                        await client.request("forbidden", qos=1)
                    assert caught.error.code == 0x87
                    # the responder may not write to the response topic: it is told
                    with raises(RefusedError, "not authorized") as caught:
                        await dumb.respond(late[0], "too late")
                    assert caught.error.code == 0x87
                    message = late[0]
                    message.properties.pop("response_topic")
                    with raises(ValueError, "asks for no response"):
                        dumb.respond(message, "x")
                # stopped meanwhile
                async with dumb:
                    await subscribed(dumb)
                    task = asyncio.create_task(client.request("ask/y", qos=1, timeout_s=None))
                    await until(lambda: len(late) == 2)
                    await client.disconnect()
                    with raises(MQTTError, "stopped before the response"):
                        await task
                    assert waiting_requests(client) == 0
                    with raises(RuntimeError, "not running"):
                        client.request("ask/y")
            # and once more
            async with client, dumb:
                await subscribed(dumb)
                with raises(asyncio.TimeoutError):
                    await client.request("ask/z", qos=1, timeout_s=0.1)
            print("done")
            """,
            protocol=5,
            log=None,
        )
    assert out.strip() == "done"


def test_a_late_response_is_ignored_and_so_is_one_for_another_run(broker):
    peer = broker.peer(protocol=5)
    Device.check(
        broker,
        RESPONDER,
        """
        async with client, other:
            await subscribed(other)
            with raises(asyncio.TimeoutError):
                await client.request("ask", "slow", timeout_s=0.05)
            for data in (None, b"", bytes(4), b"\\0\\0\\0\\1"):
                await other.publish("devices/device/response", "forged", qos=1, properties={
                    "correlation_data": data})
            answer = await client.request("ask", "now")
            assert answer.payload == b"re:now", answer.payload
            await until(lambda: client.stats.received == 6)
            answer = await client.request("ask", "again")
            assert answer.payload == b"re:again", answer.payload
        """,
        protocol=5,
        log=None,
    )
    peer.close()


def test_correlation_data_is_random_and_of_each_request(proxy):
    Device.check(
        proxy,
        RESPONDER,
        """
        async with client, other:
            await subscribed(other)
            for n in range(40):
                await client.request("ask/a", str(n), qos=1)
        """,
        protocol=5,
        log=None,
    )
    sent = [each.body for each in proxy.seen("PUBLISH", "up") if each.topic == "ask/a"]
    names = [body[body.index(b"\x09\0\x10") + 3 :][:16] for body in sent]
    assert len(names) == len(set(names)) == 40
    # no byte of one says anything about the next: each place has many values
    assert all(len(set(column)) > 20 for column in zip(*names, strict=True))
    numbers = sorted(int.from_bytes(name, "big") for name in names)
    gaps = [b - a for a, b in zip(numbers, numbers[1:], strict=False)]
    assert min(gaps) > 2**64


def test_a_hostile_responder_answers_nothing_but_what_it_was_asked(broker):
    """It sees one request, knows all topics, and may publish to each of them."""
    out = Device.check(
        broker,
        """
        other = make(protocol=5, client_id="hostile", log=None)
        honest = make(protocol=5, client_id="honest", log=None)
        asked = []

        @other.on("ask/hostile", 1)
        def ask(message):
            asked.append(message.properties)

        @honest.on("ask/honest", 1)
        async def answer(message):
            await until(lambda: told)
            await honest.respond(message, "honest")

        told = []
        async with client, other, honest:
            await subscribed(other)
            await subscribed(honest)
            mine = asyncio.create_task(client.request("ask/honest", "?", qos=1))
            elsewhere = asyncio.create_task(
                client.request("ask/honest", "?", qos=1, response_topic="devices/device/other"))
            his = asyncio.create_task(client.request("ask/hostile", "?", qos=1, timeout_s=None))
            await until(lambda: asked and waiting_requests(client) == 3)
            [said] = asked
            back, data = said["response_topic"], said["correlation_data"]
            assert back == "devices/device/response" and len(data) == 16
            # by guesses, by what is near its own, by nothing, and on the topic of another request
            near = [data[:-1] + bytes([(data[-1] + n) & 255]) for n in range(1, 256)]
            near += [data[:n] for n in range(16)] + [data + b"x", data * 2, bytes(16), None]
            for each in near:
                await other.publish(back, "forged", properties={"correlation_data": each})
                await other.publish("devices/device/other", "forged",
                                    properties={"correlation_data": each})
            await other.publish("devices/device/other", "forged",
                                properties={"correlation_data": data}, qos=1)
            assert not (mine.done() or elsewhere.done() or his.done())
            # its own it may answer, once
            for text in ("first", "second"):
                await other.publish(back, text, properties={"correlation_data": data}, qos=1)
            assert (await his).payload == b"first"
            told.append(True)
            for task in (mine, elsewhere):
                assert (await task).payload == b"honest"
            assert waiting_requests(client) == 0
            print("nothing was forged")
        """,
        protocol=5,
        log=None,
    )
    assert "nothing was forged" in out


@pytest.mark.parametrize("offered", ["#", "own/+", "a\0b", "a/#/b", ""])
def test_an_offer_of_the_broker_that_is_no_topic_is_not_taken(offered):
    """It would be subscribed to: the whole broker is no place for responses."""
    seen = []

    def script(connection):
        data = offered.encode()
        connection.accept(five.connack(b"\x1a" + bytes((0, len(data))) + data))
        first, body = connection.packet()
        seen.append((first, body[3:]))
        connection.send(five.suback(body, 0x87))
        connection.until_closed()

    program = """
    async with client:
        with raises(RefusedError, "'devices/device/response': not authorized"):
            await client.request("ask")
    """
    if "\0" in offered:  # that is no text of MQTT at all
        with FakeBroker(script) as fake, Device(fake, protocol=5) as device:
            device.wait_for("not connected")
        return
    Device.against(script, program, protocol=5, log=None)
    assert seen == [(0x82, field("devices/device/response") + b"\1")]


@pytest.mark.parametrize("client_id", ["a/+", "#", "kitchen#1"])
def test_a_client_id_that_no_topic_may_have_needs_a_response_topic(broker, client_id):
    Device.check(
        broker,
        """
        async with client:
            with raises(ValueError, "response_topic 'devices/"):
                client.request("ask")
            with raises(asyncio.TimeoutError):
                await client.request("ask", timeout_s=0.1, response_topic="mine")
        """,
        protocol=5,
        log=None,
        client_id=client_id,
    )


def test_a_responder_that_fails_lets_the_request_time_out(broker):
    out = Device.check(
        broker,
        """
        other = make(protocol=5, client_id="other")
        found = []

        @other.on("ask/#", 1)
        async def asked(message):
            found.append(message)
            if len(found) == 1:
                raise KeyError("temperature")
            properties = [("user_property", ("e", "1"))]
            await other.respond(message, "error", qos=0, properties=properties)

        async with client, other:
            await until(lambda: client.connected)
            await until(lambda: granted(other) == [1])
            with raises(asyncio.TimeoutError):
                await client.request("ask/a", qos=1, timeout_s=0.1)
            answer = await client.request("ask/a", qos=1)
            assert answer.properties["user_property"] == [("e", "1")]
            assert answer.qos == 0
        """,
        protocol=5,
        log=None,
    )
    assert "handler of 'ask/#' failed: KeyError('temperature',)" in out


def test_the_topic_of_responses_is_the_brokers_if_it_names_one():
    seen = []

    def script(connection):
        body = connection.accept(five.connack(b"\x1a" + field("own/answers")))
        assert b"\x19\1" in body  # request_response_information
        first, body = connection.packet()
        seen.append((first, body[3:]))
        connection.send(five.suback(body, 0x87))
        connection.until_closed()

    Device.against(
        script,
        """
        async with client:
            for i in range(2):
                with raises(RefusedError, "'own/answers': not authorized") as caught:
                    await client.request("ask")
                assert caught.error.code == 0x87
        """,
        protocol=5,
        log=None,
        properties={"request_response_information": 1},
    )
    assert seen == [(0x82, field("own/answers") + b"\1")]


def test_a_request_that_waits_survives_an_outage(proxy):
    with Device(
        proxy,
        RESPONDER,
        """
        async with client, other:
            await subscribed(other)
            task = asyncio.create_task(client.request("ask", "slow", qos=1))
            await until(lambda: waiting_requests(client))
            print("asked")
            print((await task).payload)
        """,
        protocol=5,
        log=None,
    ) as device:
        device.wait_for("asked")
        proxy.wait_for("PUBACK", "up")
        proxy.rst()
        device.wait_for("b're:slow'")
        device.finish()


def test_requests_that_ctrl_c_ended_do_not_wait_in_the_next_run(broker):
    out = apps.check(
        "from tests.device.inside import *\n"
        + RESPONDER
        + """
client = make(protocol=5)

async def ask():
    async with client:
        await client.wait_connected()
        for i in range(16):
            asyncio.create_task(client.request("nobody/answers", "x", timeout_s=None))
        await until(lambda: waiting_requests(client) == 16)
        raise KeyboardInterrupt

async def main():
    async with client, other:
        await subscribed(other)
        assert (await client.request("ask/a", "1", qos=1)).payload == b"re:1"
        assert waiting_requests(client) == 0
    print("answered")

for run in range(2):
    try:
        asyncio.run(ask())
    except KeyboardInterrupt:
        asyncio.new_event_loop()
asyncio.run(main())
        """,
        broker.port,
    )
    assert "answered" in out
