"""
Run one of mosquitto's client tests: on loopback only, on a port that nobody else gets, with no
wait that never ends, and with the changes that differences.py names.

    python drive.py TEST.py [DATA.json]

DATA.json  of the message sequences, the only file to run
"""

import json
import os
import runpy
import socket
import sys
from pathlib import Path

from tests.conformance import differences
from tests.support import patience

LOOPBACK = "127.0.0.1"
PATIENCE_S = 10  # of sockets for which the test sets nothing


def main(path, data=None):
    path = Path(path)
    sys.path[:0] = [str(path.parent), str(path.parent.parent)]
    with socket.socket() as reserved:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        reserved.bind((LOOPBACK, 0))  # the test binds it once more and listens
        socket.setdefaulttimeout(patience.stretched(PATIENCE_S))
        bind, send = socket.socket.bind, socket.socket.send
        socket.socket.bind = lambda self, address: bind(self, (LOOPBACK, address[1]))
        socket.socket.send = lambda self, data: sent(send, self, data)
        change = differences.CHANGES.get(path.stem)
        if change:
            globals()[change[0]]()
        if data:
            only(data)
        sys.argv[:] = [str(path), str(reserved.getsockname()[1])]
        runpy.run_path(str(path), run_name="__main__")


def sent(send, sock, data):
    """
    Send. Where the client has ended the connection meanwhile, the next read finds it out: the
    sequences would take it for a failure here, even if it is what they wait for.
    """
    try:
        return send(sock, data)
    except (BrokenPipeError, ConnectionResetError):
        return len(data)


def only(data):
    """Have the message sequences see nothing but the file `data`, without what does not apply."""
    walk, load = os.walk, json.load

    def files(folder):
        for where, folders, names in walk(folder):
            yield where, folders, [name for name in names if name == data]

    os.walk = files
    json.load = lambda file: differences.applicable(data, load(file))


# The changes that differences.CHANGES names


def persistent_session():
    import mosq_test

    connect, expect = mosq_test.gen_connect, mosq_test.expect_packet
    start, answer = mosq_test.start_client, mosq_test.do_receive_send
    connects = []  # of the client that runs

    def start_client(*args, **named):
        connects.clear()
        return start(*args, **named)

    def expect_packet(sock, name, packet):
        if packet[0] == 0x10:
            connects.append(packet)
        return expect(sock, name, packet)

    def do_receive_send(sock, wanted, packet, *args):
        if packet[0] == 0x20 and connects:  # CONNACK of a later connection: session present
            packet = packet[:2] + b"\1" + packet[3:]
        return answer(sock, wanted, packet, *args)

    mosq_test.gen_connect = lambda *args, **named: connect(*args, clean_session=False, **named)
    mosq_test.start_client = start_client
    mosq_test.expect_packet = expect_packet
    mosq_test.do_receive_send = do_receive_send


def authentication_method():
    import mosq_test
    import mqtt5_props

    connect, connack = mosq_test.gen_connect, mosq_test.gen_connack
    method = mqtt5_props.gen_string_prop(mqtt5_props.AUTHENTICATION_METHOD, "test-method")
    mosq_test.gen_connect = lambda *args, properties, **named: connect(
        *args, properties=properties + method, **named
    )
    mosq_test.gen_connack = lambda **named: connack(properties=method, **named)


def a_byte_more():
    import mqtt5_props

    number = mqtt5_props.gen_uint32_prop
    mqtt5_props.gen_uint32_prop = lambda kind, value: number(kind, value + 1)


if __name__ == "__main__":
    main(*sys.argv[1:])
