"""What a message passes through takes no memory for its variables: tools/frames.py says why."""

import functools

import pytest

from tools import frames, freeze

# the first test builds the compiler
pytestmark = pytest.mark.timeout(300)

# out, acknowledged and in; what is missing here takes a frame from the heap
ON_THE_WAY = """
outbox.Delivery.__init__ outbox.Outbox.begin outbox.Outbox.pump outbox.Outbox._pump
packet.framed packet.set_id packet.ack packet.Decoder.space packet.Decoder.fed packet.Decoder.next
packet.Decoder.packet_id
session.Session.full session.Session._next_id session.Session.publish session.Session.drop
session.Session.next_ack session.Session.acknowledged session.Session.received session._find
router.encode router.topic router.payload router.qos
transport.Signal.set transport.Signal.__next__ transport.Transport.due transport.Transport.read
dispatch.Message.__init__ dispatch.Dispatcher.queue dispatch.Dispatcher.release
dispatch.Dispatcher.finish dispatch.Dispatcher.room dispatch.Dispatcher.deliver
dispatch.Dispatcher._offer dispatch.Dispatcher.take outbox.Outbox._send
""".split()


@functools.cache
def of_module(name):
    try:
        return frames.frames(freeze.ROOT / "mqtt_as_tls" / f"{name}.py")
    except freeze.Unavailable as reason:
        pytest.skip(f"nothing was compiled: {reason}")


@pytest.mark.parametrize("function", ON_THE_WAY)
def test_a_function_on_the_way_of_a_message_takes_no_frame_from_the_heap(function):
    words = of_module(function.partition(".")[0])[function]
    assert words <= frames.MOST
