"""MQTT 5: a request and its response."""

from tests.support import apps, five
from tests.support.broker import Broker
from tests.support.device import Device
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
            assert found[0].topic == "response/device"
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
    assert b"\x26\0\1a\0\1b\3\0\4text\x08" + field("response/device") + b"\x09\0\4" in each.body
    asked = [each for each in proxy.seen("SUBSCRIBE") if b"response/" in each.body]
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
                await other.publish("response/device", "forged", qos=1, properties={
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
