"""MQTT 5: a request and its response."""

from tests.support import apps, five
from tests.support.broker import Broker
from tests.support.fake_broker import FakeBroker
from tests.support.five import field

RESPONDER = """
def responder():
    client = make(protocol=5, client_id="responder", log=None)

    @client.on("ask/#", 2)
    async def asked(message):
        if message.payload == b"slow":
            await asyncio.sleep_ms(120)
        await client.respond(message, b"re:" + message.payload)

    return client

async def ready(client):
    await client.wait_connected()
    await until(lambda: client._dispatcher.subscriptions[0].granted == 2)
"""


def test_requests_of_several_tasks_get_their_own_responses(proxy):
    """The response has the QoS of the request, and its correlation data."""
    apps.check(
        RESPONDER
        + """
async def main():
    client = make(protocol=5, log=None)
    other = responder()
    async with client, other:
        await ready(other)
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
        await until(lambda: len(client._requests.waiting) == 16)
        with raises(RuntimeError, "16 requests wait"):
            await client.request("ask/g", "x")
        assert {each.payload for each in await asyncio.gather(*tasks)} == {b"re:slow"}
        assert client._requests.waiting == {}
        """,
        proxy.port,
    )
    sent = [each for each in proxy.seen("PUBLISH", "up") if each.topic == "ask/e"]
    [each] = sent
    assert b"\x26\0\1a\0\1b\3\0\4text\x08" + field("response/device") + b"\x09\0\4" in each.body
    asked = [each for each in proxy.seen("SUBSCRIBE") if b"response/" in each.body]
    assert len(asked) == 1


def test_a_request_that_fails_says_how_and_leaves_nothing_behind(tmp_path):
    with Broker(tmp_path / "b", acl="topic readwrite ask/#\ntopic read #\n") as broker:
        out = apps.check(
            RESPONDER
            + """
async def main():
    client = make(protocol=5, log=None)
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
            await ready(dumb)
            with raises(asyncio.TimeoutError):
                await client.request("ask/x", qos=1, timeout_s=0.1)
            assert client._requests.waiting == {}
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
            await ready(dumb)
            task = asyncio.create_task(client.request("ask/y", qos=1, timeout_s=None))
            await until(lambda: len(late) == 2)
            await client.disconnect()
            with raises(MQTTError, "stopped before the response"):
                await task
            assert client._requests.waiting == {}
            with raises(RuntimeError, "not running"):
                client.request("ask/y")
    # and once more
    async with client, dumb:
        await ready(dumb)
        with raises(asyncio.TimeoutError):
            await client.request("ask/z", qos=1, timeout_s=0.1)
    print("done")
            """,
            broker.port,
        )
    assert out.strip() == "done"


def test_a_late_response_is_ignored_and_so_is_one_for_another_run(broker):
    peer = broker.peer(protocol=5)
    apps.check(
        RESPONDER
        + """
async def main():
    client = make(protocol=5, log=None)
    other = responder()
    async with client, other:
        await ready(other)
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
        broker.port,
    )
    peer.close()


def test_a_responder_that_fails_lets_the_request_time_out(broker):
    out = apps.check(
        """
async def main():
    client = make(protocol=5, log=None)
    other = make(protocol=5, client_id="other")
    found = []

    @other.on("ask/#", 1)
    async def asked(message):
        found.append(message)
        if len(found) == 1:
            raise KeyError("temperature")
        await other.respond(message, "error", qos=0, properties=[("user_property", ("e", "1"))])

    async with client, other:
        await until(lambda: client.connected)
        await until(lambda: other._dispatcher.subscriptions[0].granted == 1)
        with raises(asyncio.TimeoutError):
            await client.request("ask/a", qos=1, timeout_s=0.1)
        answer = await client.request("ask/a", qos=1)
        assert answer.properties["user_property"] == [("e", "1")]
        assert answer.qos == 0
        """,
        broker.port,
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

    with FakeBroker(script) as fake:
        apps.check(
            """
            async def main():
                client = make(
                    protocol=5, log=None, properties={"request_response_information": 1}
                )
                async with client:
                    for i in range(2):
                        with raises(RefusedError, "'own/answers': not authorized") as caught:
                            await client.request("ask")
                        assert caught.error.code == 0x87
            """,
            fake.port,
        )
    assert seen == [(0x82, field("own/answers") + b"\1")]


def test_a_request_that_waits_survives_an_outage(proxy):
    with apps.start(
        RESPONDER
        + """
async def main():
    soonest()
    client = make(protocol=5, log=None)
    other = responder()
    async with client, other:
        await ready(other)
        task = asyncio.create_task(client.request("ask", "slow", qos=1))
        await until(lambda: hasattr(client, "_requests") and client._requests.waiting)
        print("asked")
        print((await task).payload)
        """,
        proxy.port,
    ) as app:
        app.wait_for("asked")
        proxy.wait_for("PUBACK", "up")
        proxy.rst()
        app.wait_for("b're:slow'")
        app.wait()


def test_requests_that_ctrl_c_ended_do_not_wait_in_the_next_run(broker):
    out = apps.check(
        RESPONDER
        + """
client = make(protocol=5)

async def ask():
    async with client:
        await client.wait_connected()
        for i in range(16):
            asyncio.create_task(client.request("nobody/answers", "x", timeout_s=None))
        await until(lambda: hasattr(client, "_requests") and len(client._requests.waiting) == 16)
        raise KeyboardInterrupt

async def main():
    other = responder()
    async with client, other:
        await ready(other)
        assert (await client.request("ask/a", "1", qos=1)).payload == b"re:1"
        assert client._requests.waiting == {}
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
