"""MQTT 5: what is wrong is said at the call, and none of it is there with protocol=4."""

from tests.support import mpy
from tests.support.device import Device


def test_with_3_1_1_whatever_is_of_mqtt_5_raises_at_the_call(broker):
    Device.check(
        broker,
        """
        five = "MQTT 5"
        ids = {"user_property": ("a", "b")}

        for name, value in (
            ("session_expiry_s", 5), ("properties", ids), ("auth", ("m", print)),
            ("topic_aliases", 1), ("will", Will("w", "", properties=ids)),
            ("will", Will("w", "", delay_s=1)),
        ):
            with raises(ValueError, "MQTT 5 only"):
                make(**{name: value})
        with raises(TypeError, "no argument 'nonsense'"):
            make(nonsense=1)
        for name, value in (
            ("no_local", True), ("retain_as_published", True), ("retain_handling", 1),
            ("properties", ids),
        ):
            with raises(ValueError, "MQTT 5 only"):
                client.on("t", **{name: value})(print)
        with raises(ValueError, five):
            client.reauthenticate()
        async with client:
            await client.wait_connected()
            with raises(ValueError, five):
                client.publish("t", properties=ids)
            with raises(ValueError, five):
                client.enqueue("t", properties=ids)
            with raises(ValueError, five):
                client.subscribe("t", no_local=True)
            with raises(ValueError, five):
                client.unsubscribe("t", properties=ids)
            with raises(ValueError, five):
                client.request("t")
            with raises(ValueError, five):
                client.respond(None)
            with raises(ValueError, five):
                await client.disconnect(4)
            with raises(ValueError, five):
                await client.disconnect(properties=ids)
            assert client.connected
            assert await client.publish("t", qos=1, properties={}) == 0
        """,
        log=None,
    )


def test_wrong_values_raise_at_the_call(broker):
    """MQTT 5.0: [MQTT-3.8.3-4], [MQTT-3.14.2-1], [MQTT-3.3.2-14]"""
    Device.check(
        broker,
        """
        def wrong(kind, text, **options):
            with raises(kind, text):
                make(protocol=5, **options)

        with raises(ValueError, "protocol 3"):
            make(protocol=3)
        wrong(ValueError, "session_expiry", session_expiry_s=-1)
        wrong(ValueError, "session_expiry", session_expiry_s=1 << 32)
        wrong(ValueError, "session_expiry_s: a number from 0", session_expiry_s="x")
        wrong(ValueError, "give one", session_expiry_s=1,
              properties={"session_expiry_interval": 1})
        wrong(ValueError, "receive_maximum", properties={"receive_maximum": 0})
        wrong(ValueError, "twice", properties=2 * [("receive_maximum", 5)])
        wrong(ValueError, "'speed'", properties={"speed": 1})
        wrong(ValueError, "not in CONNECT; only in", properties={"topic_alias": 1})
        wrong(ValueError, "topic_aliases", topic_aliases=65536)
        wrong(ValueError, "topic_aliases", topic_aliases="x")
        wrong(TypeError, "auth", auth="HMAC")
        wrong(TypeError, "auth", auth=("HMAC", None))
        wrong(TypeError, "authentication_method", auth=(1, print))
        wrong(ValueError, "auth=", properties={"authentication_method": "x"})
        wrong(ValueError, "auth=", properties={"authentication_data": b"x"})
        wrong(ValueError, "not in a will", will=Will("w", "", properties={"topic_alias": 1}))
        wrong(TypeError, "properties: a dict, or a list of pairs", properties="x")
        wrong(TypeError, "properties: a dict", will=Will("w", "", properties=[1]))
        wrong(TypeError, "no argument 'nonsense'", nonsense=1)

        def on(kind, text, filter="t", **options):
            with raises(kind, text):
                client.on(filter, **options)(print)
            assert not is_declared(client, filter)

        on(ValueError, "retain_handling", retain_handling=3)
        on(ValueError, "no_local", "$share/g/t", no_local=True)
        on(TypeError, "nonsense", nonsense=1)
        on(ValueError, "subscription_identifier", properties={"subscription_identifier": 0})
        on(ValueError, "not in SUBSCRIBE", properties={"content_type": "x"})
        async with client:
            await client.wait_connected()
            for call in (client.publish, client.enqueue, client.request):
                for kind, text, properties in (
                    (ValueError, "not in a PUBLISH of an app", {"topic_alias": 1}),
                    (ValueError, "not in a PUBLISH", {"subscription_identifier": 1}),
                    (ValueError, "payload_format_indicator", {"payload_format_indicator": 2}),
                    (TypeError, "message_expiry_interval", {"message_expiry_interval": "1"}),
                    (TypeError, "content_type", {"content_type": b"x"}),
                    (TypeError, "user_property", {"user_property": "x"}),
                    (ValueError, "only in CONNECT", {"receive_maximum": 1}),
                ):
                    with raises(kind, text):
                        call("t", "x", properties=properties)
            with raises(ValueError, "response_topic"):
                client.publish("t", properties={"response_topic": "a/#"})
            with raises(ValueError, "request() sets it"):
                client.request("t", properties={"response_topic": "a"})
            with raises(ValueError, "not in UNSUBSCRIBE"):
                client.unsubscribe("t", properties={"content_type": "x"})
            for reason in (1, 0x8E, 256, -1, "x"):
                with raises(ValueError, "none of DISCONNECT"):
                    await client.disconnect(reason)
            with raises(ValueError, "not in DISCONNECT"):
                await client.disconnect(properties={"content_type": "x"})
            assert client.connected and client.running
            await client.publish("t", qos=1)
        with raises(ValueError, "CONNECT had none"):
            brief = make(protocol=5, client_id="brief", session_expiry_s=0, log=None)
            async with brief:
                await brief.wait_connected()
                await brief.disconnect(0, {"session_expiry_interval": 5})
        """,
        protocol=5,
        log=None,
    )


def test_with_3_1_1_nothing_of_mqtt_5_is_imported(broker):
    names = "mqtt5 packet5 properties reasons requests"
    loaded = Device.check(
        broker,
        """
        async with client:
            await client.subscribe("t", 2)
            for qos in (0, 1, 2):
                await client.publish("t", qos=qos)
            await until(lambda: client.stats.received == 3)
        print(sorted(name.split(".")[-1] for name in sys.modules))
        """,
        protocol=4,
        log=None,
    )
    assert [name for name in names.split() if f"'{name}'" in loaded] == []
    assert "'session'" in loaded


def test_mqtt_5_over_mutual_tls(mtls_broker, pki):
    peer = mtls_broker.peer("t", protocol=5)
    out = mpy.check(
        """
        import asyncio, sys
        from mqtt_as_tls import MQTTClient, TLS

        async def main():
            client = MQTTClient(
                "127.0.0.1", int(sys.argv[1]), protocol=5, client_id="device", topic_aliases=1,
                tls=TLS(ca=sys.argv[2], cert=sys.argv[3], key=sys.argv[4]),
            )
            async with client:
                await client.subscribe("t", 2, no_local=True)
                for qos in (0, 1, 2):
                    await client.publish("t", "x", qos=qos, properties={
                        "user_property": [("a", "1"), ("b", "2")]})
                print("sent", client.properties)

        asyncio.run(main())
        """,
        mtls_broker.port,
        pki.ca.cert_der,
        pki.device.cert_der,
        pki.device.key_der,
    )
    assert "sent {" in out and "topic_alias_maximum" in out
    assert [payload for _, payload in peer.wait_for(3) and peer.received] == 3 * [b"x"]
    for message in peer.messages:
        assert message.properties.UserProperty == [("a", "1"), ("b", "2")]
