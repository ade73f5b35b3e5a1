"""
What a coverage-guided fuzzer calls with any bytes, on CPython: the decoders, the properties, and
the session in its world. Each returns quietly, or raises what nothing may raise.
"""

from mqtt_as_tls import packet, packet5, properties
from mqtt_as_tls.errors import ProtocolError
from tests.fuzz.inputs import ALIASES, MAX_PACKET
from tests.support.five import varint
from tests.unit.session_model import World

CODES = (None, 0x81, 0x82, 0x94, 0x95)
FROM_SERVER = (0x20, 0x30, 0x40, 0x50, 0x62, 0x70, 0x90, 0xB0, 0xE0, 0xF0)
FROM_BOTH = (0x30, 0x40, 0x50, 0x62, 0x70, 0xF0)  # with the same properties, but for
ONLY_FROM_SERVER = "subscription_identifier"


def fields(decoder, first):
    """Return what a packet says."""
    kind = first & 0xF0
    if kind == 0x30:
        said = decoder.publish(first >> 1 & 3)
    elif kind == 0x20:
        said = decoder.connack()
    elif kind in (0x90, 0xB0):
        said = decoder.packet_id(), decoder.suback()
    elif kind == 0xD0:
        return first, None, 0, None
    elif kind > 0xD0:
        said = decoder.reason()
    else:
        said = decoder.answer()
    return first, said, decoder.code, decoder.properties


def drain(decoder, data, size):
    """
    Feed `data` in pieces of `size` bytes; return ([(fields, the packet)], text and code of the
    error that ended it, or None).
    """
    got = []
    try:
        while data:
            space = decoder.space()
            assert 0 < len(space) <= len(decoder.buf) <= MAX_PACKET
            n = min(len(space), len(data), size)
            space[:n] = data[:n]
            data = data[n:]
            decoder.fed(n)
            while (first := decoder.next()) is not None:
                assert 0 < decoder.at <= decoder.end <= len(decoder.buf)
                length = decoder.end - decoder.at
                whole = bytes((first,)) + varint(length) + decoder.buf[decoder.at : decoder.end]
                got.append((fields(decoder, first), bytes(whole)))
    except ProtocolError as error:
        text = str(error)
        assert "section" in text or "MQTT-" in text or "max_packet" in text
        assert error.code in CODES
        return got, (text, error.code)
    return got, None


def in_any_pieces(data, new):
    """
    Decode all but the first byte of `data`, whole and in pieces, whose size the first byte says;
    return what both gave.

    new  function that returns a decoder
    """
    got, error = drain(new(), data[1:], len(data))
    assert drain(new(), data[1:], 1 + data[0]) == (got, error)
    return got


def sealed(buf, first, packet_id):
    """Return a PUBLISH with its packet id and DUP flag."""
    if packet_id:
        packet.set_id(buf, packet_id)
        packet.set_dup(buf, bool(first & 8))
    return buf


def decoder4(data):
    """What is read and encoded again is the same packet."""
    if not data:
        return
    for (first, said, *_), whole in in_any_pieces(data, lambda: packet.Decoder(MAX_PACKET)):
        kind = first & 0xF0
        if kind == 0x30:
            topic, packet_id, payload = said
            buf = packet.publish(topic.encode(), payload, first >> 1 & 3, first & 1)
            assert sealed(buf, first, packet_id) == whole
        elif kind in (0x40, 0x50, 0x60, 0x70):
            assert packet.ack(first, said) == whole


def decoder5(data):
    """What is read, encoded and read again says the same."""

    def new():
        return packet5.Decoder(MAX_PACKET, ALIASES)

    for (first, said, code, values), _ in in_any_pieces(data, new) if data else ():
        kind = first & 0xF0
        if kind not in (0x30, 0x40, 0x50, 0x60, 0x70):
            continue
        values = {name: values[name] for name in values or () if name != ONLY_FROM_SERVER}
        own = properties.encode(values, kind if kind == 0x30 else first)
        if kind == 0x30:
            topic, packet_id, payload = said
            buf = packet5.publish(topic.encode(), payload, first >> 1 & 3, first & 1, own)
            sealed(buf, first, packet_id)
        else:
            buf = packet5.ack(first, said, code, own)
        if len(buf) <= MAX_PACKET:  # an alias may have stood for a long topic
            again, error = drain(new(), bytes(buf), len(buf))
            assert error is None
            assert again == [((first, said, code, values or None), bytes(buf))]


def block(data):
    """Properties: the first byte says of which packet."""
    if not data:
        return
    first = FROM_SERVER[data[0] % len(FROM_SERVER)]
    buf = memoryview(data)[1:]
    try:
        values, at = properties.decode(buf, 0, len(buf), first)
    except ProtocolError as error:
        assert error.code in CODES[1:]
        return
    assert 0 < at <= len(buf)
    values = {name: values[name] for name in values or () if name != ONLY_FROM_SERVER}
    if first in FROM_BOTH:
        own = properties.encode(values, first)
        own = varint(len(own)) + own
        again = properties.decode(memoryview(own), 0, len(own), first)
        assert again == (values or None, len(own))


def world(data):
    """What happens around a session: two bytes an event."""
    if len(data) < 2:
        return
    how, first_id = data[:2]
    w = World(
        protocol=4 + (how & 1),
        window=1 + (how >> 1 & 3),
        limit=1 + (how >> 3 & 3),
        at_once=bool(how & 32),
        orderly=bool(how & 64),
        first_id=(0, 1, 65530, 65534)[first_id & 3],
    )
    events = (
        lambda n: w.publish(n),
        lambda n: w.publish(n),
        lambda n: w.connect(n % 8 != 0, n >> 3),
        lambda n: w.cut(n, n >> 3),
        lambda n: w.broker_takes(1 + n % 8, n > 240),
        lambda n: w.broker_takes(1 + n % 8),
        lambda n: w.broker_sends(n),
        lambda n: w.broker_sends(n),
        lambda n: w.packet_comes(n > 200),
        lambda n: w.packet_comes(0),
        lambda n: w.broker_publishes(n),
        lambda n: w.handler_returns(n, n > 230, n % 16 == 9),
        lambda n: w.broker_repeats(n),
        lambda n: (w.cancel, w.broker_strays, w.time_passes)[n % 3](n // 3),
        lambda n: (w.subscribe, w.give_up)[n % 8 == 0](),
        lambda n: w.ids_come_round(n),
    )
    for event, n in zip(data[2::2], data[3::2], strict=False):
        events[event % len(events)](n)
        w.check()
    w.settle()


TARGETS = {each.__name__: each for each in (decoder4, decoder5, block, world)}
