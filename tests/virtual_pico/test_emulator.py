"""Whether the emulated board behaves as a real one where the tests of this folder rely on it."""

import contextlib
import hashlib
import json
import queue
import signal
import socket
import subprocess
import sys

import pytest

from tests.support import node, patience, process
from tests.support.server import server
from tests.support.udp import DNS
from tests.virtual_pico.pico import (
    ADDRESS,
    EMULATOR,
    LINK_UP,
    Pico,
    PicoError,
    PicoReset,
)

CONNECT = """
import socket
sockets = []
def connect(port, host="10.77.0.1"):
    s = socket.socket()
    sockets.append(s)
    s.settimeout(60)
    s.connect((host, port))
    return s
"""


@pytest.fixture(scope="module")
def online(firmware, tmp_path_factory):
    """A board with its link up, for tests that leave it so."""
    with Pico(firmware, tmp_path_factory.mktemp("online")) as pico:
        pico.run(LINK_UP + CONNECT)
        yield pico
        assert "crashed" not in (pico.folder / "emulator.log").read_text()


@pytest.fixture
def network(online):
    """The same, with nothing wrong before and after."""
    yield online
    online.heal()
    online.set_ports({})
    online.run("while sockets: sockets.pop().close()")


def test_the_fast_path_does_what_rp2040js_does(firmware, tmp_path):
    with Pico(firmware, tmp_path):  # has it installed
        pass
    command = [node.node(), EMULATOR / "compare.mjs", firmware]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=patience.stretched(300), check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    compared = json.loads(done.stdout)
    assert compared["opcodes"] > 40_000
    assert compared["instructions"] > 100_000


def test_a_board_starts_as_the_chip_does(firmware, tmp_path):
    with Pico(firmware, tmp_path) as pico:
        pico.run("import gc, machine, time")
        assert pico.run("print(machine.reset_cause() == machine.PWRON_RESET)") == "True"
        assert pico.run("print(time.gmtime()[:3])") == "(2021, 1, 1)"
        assert pico.run("print(machine.freq())") == "125000000"
        assert pico.run("print('%.5f' % (2 ** 0.5), round(3.7), int('123456789') ** 3)") == (
            "1.41421 4 1881676371789154860897069"
        )


def test_what_raises_is_told_with_its_traceback(online):
    with pytest.raises(PicoError, match="line 2, in f(?s:.*)ZeroDivisionError"):
        online.run("def f():\n    1 / 0\nf()")
    assert online.run("print('still there')") == "still there"


def test_a_program_is_watched_and_interrupted(online):
    online.start("import time\nn = 0\nwhile True:\n    print('n =', n); n += 1; time.sleep_ms(5)")
    assert online.wait_for(r"= [5-9]$") == "n = 5"
    assert online.wait_for("7") == "n = 7"
    online.interrupt()
    with pytest.raises(PicoError, match="KeyboardInterrupt"):
        online.finish()
    assert online.run("print(n > 7)") == "True"


def test_a_program_that_ends_without_the_awaited_line_is_not_waited_for(online):
    online.start("print('other')")
    with pytest.raises(PicoError, match="other"):
        online.wait_for("never")


def test_an_emulator_that_dies_is_told(firmware, tmp_path):
    with Pico(firmware, tmp_path) as pico:
        pico.start("while True: print('alive')")
        pico.wait_for("alive")
        process.signal_group(pico._child, signal.SIGKILL)
        with pytest.raises(PicoError, match="the emulator ended"):
            pico.wait_for("never")


def test_files_outlast_resets_and_the_emulator(firmware, tmp_path):
    data = bytes(range(256)) * 20
    with Pico(firmware, tmp_path) as pico:
        first = pico.run("import machine; print(machine.unique_id().hex())")
        pico.put("/a/b/data.bin", data)
        writes = pico.flash_writes()
        pico.reset()
        assert pico.get("/a/b/data.bin") == data
        pico.soft_reset()
        pico.start("import machine; machine.reset()")
        assert pico.wait_for_boot() == "watchdog"
        assert pico.get("/a/b/data.bin") == data
        assert pico.flash_writes() == writes
    with Pico(firmware, tmp_path) as pico:
        assert pico.get("/a/b/data.bin") == data
        assert pico.run("import machine; print(machine.unique_id().hex())") == first


def test_two_boards_are_two(firmware, tmp_path):
    with Pico(firmware, tmp_path / "1") as one, Pico(firmware, tmp_path / "2") as two:
        ids = [pico.run("import machine; print(machine.unique_id().hex())") for pico in (one, two)]
        one.put("/of_one", "1")
        assert two.run("import os; print(os.listdir('/'))") == "[]"
    assert len(set(ids)) == 2


def test_main_py_runs_when_the_power_comes(firmware, tmp_path):
    with Pico(firmware, tmp_path) as pico:
        pico.put("/main.py", "import time\ntime.sleep(1)\nprint('main runs')")
        pico.power_cut()
        pico.wait_for_power_off()
        with pytest.raises(PicoReset, match="power off"):
            pico.run("1")
        pico.power_on()
        assert pico.wait_for("runs") == "main runs"


def test_a_starved_watchdog_resets_the_chip(firmware, tmp_path):
    with Pico(firmware, tmp_path) as pico:
        pico.start("""
import machine, time
w = machine.WDT(timeout=300)
for _ in range(10):
    time.sleep_ms(100); w.feed()
print("fed")
while True: pass
""")
        pico.wait_for("fed")
        with pytest.raises(PicoReset, match="watchdog"):
            pico.finish()
        assert pico.wait_for_boot() == "watchdog"
        cause = "import machine; print(machine.reset_cause() == machine.WDT_RESET)"
        assert pico.run(cause) == "True"
        pico.reset()
        assert pico.run(cause) == "False"


def test_a_power_cut_in_the_middle_of_a_write_leaves_a_file_system(firmware, tmp_path):
    rewrite = """
number = int(open("/number").read())
while True:
    number += 1
    with open("/number", "w") as file: file.write(str(number))
    print("wrote", number)
"""
    with Pico(firmware, tmp_path) as pico:
        pico.put("/kept", b"k" * 5000)
        pico.put("/number", "0")
        last = 0
        for after, part in enumerate((0.0, 0.5, 0.99, 0.2)):
            pico.power_cut(after_ops=3 + after, part=part)
            with pytest.raises(PicoReset, match="power off"):
                pico.run(rewrite)
            wrote = [int(line.split()[1]) for line in pico.output.splitlines() if "wrote" in line]
            pico.wait_for_power_off()
            pico.power_on()
            number = int(pico.get("/number"))
            # what it said is there; what it was about to say may be
            assert number in ((wrote or [last])[-1], (wrote or [last])[-1] + 1)
            last = number
            assert pico.get("/kept") == b"k" * 5000


def test_mpremote_works_on_it(firmware, tmp_path):
    (tmp_path / "hello.py").write_text("print('hello from', __name__)\n")
    (tmp_path / "package.json").write_text('{"urls": [["pack/hi.py", "hello.py"]]}')
    with Pico(firmware, tmp_path / "board") as pico:

        def mpremote(*arguments):
            command = [sys.executable, "-m", "mpremote", "connect", pico.repl_url, *arguments]
            done = subprocess.run(
                command,
                cwd=tmp_path,
                capture_output=True,
                text=True,
                timeout=patience.stretched(200),
                check=False,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        put = ("cp", "hello.py", ":main.py", "+", "run", "hello.py", "+", "ls")
        assert "hello from __main__" in mpremote(*put)
        mpremote("mip", "install", "--target", "/lib", "package.json", "+", "reset")
        assert pico.wait_for_boot() == "watchdog"
        assert "hello from pack.hi" in mpremote("resume", "exec", "import pack.hi")
        mpremote("soft-reset")
        mpremote("cp", ":main.py", "copy.py")
        assert (tmp_path / "copy.py").read_text() == (tmp_path / "hello.py").read_text()


def test_idle_time_goes_as_fast_as_it_is_told(online):
    before = online.emulated_s()
    online.set_speed(500)
    online.run("import time; time.sleep(600)")
    online.set_speed(1)
    assert online.emulated_s() - before > 599


def echo(connection):
    while data := connection.recv(4096):
        connection.sendall(data)


# Little is on its way at a time: lwIP's PPP cannot send again what was lost while all of its
# memory holds what is still to be sent.
SEND_AND_RECEIVE = """
def send_and_receive(port, count, size):
    s = connect(port)
    for number in range(count):
        piece = bytes((number + i) & 255 for i in range(size))
        s.write(piece)
        back = s.read(size)
        if back != piece:
            raise OSError("got %r for %r" % (back, piece))
    s.close()
    return count
"""


@pytest.mark.parametrize(
    "faults",
    [
        {},
        {"lose_to_device": 0.08, "lose_from_device": 0.08},
        {"segment_bytes": 1},
        {"delay_ms": 30},
    ],
    ids=str,
)
def test_data_arrives_whole_and_in_order(network, faults):
    network.run(SEND_AND_RECEIVE)
    network.fault(**faults)
    network.set_speed(20)
    lossy = "lose_to_device" in faults
    size = 50 if "segment_bytes" in faults else 1500
    for _ in range(20):  # until chance has struck both ways
        with server(echo) as port:
            assert network.run(f"print(send_and_receive({port}, 8, {size}))") == "8"
        stats = network.stats()
        if not lossy or (stats["lost_to_device"] and stats["lost_from_device"]):
            break
    network.set_speed(1)
    assert stats["bad_frames"] == stats["malformed"] == 0
    if lossy:
        assert stats["lost_to_device"] > 0
        assert stats["lost_from_device"] > 0


def test_a_device_that_does_not_read_holds_the_sender_back(network):
    sent = hashlib.sha256()

    def pour(connection):
        for number in range(3000):
            piece = bytes([number % 251]) * 100
            connection.sendall(piece)
            sent.update(piece)
        connection.shutdown(socket.SHUT_WR)

    before = network.stats()["bytes_to_device"]
    with server(pour) as port:
        network.run(f"import hashlib, time; s = connect({port}); time.sleep(1)")
        # the window of lwIP, and what asks whether it is open again
        assert network.stats()["bytes_to_device"] - before < 20_000
        digest = network.run("""
h = hashlib.sha256()
while piece := s.recv(2000): h.update(piece)
print(h.digest().hex()); s.close()
""")
    assert digest == sent.hexdigest()


def test_each_side_ends_its_half_of_a_connection(network):
    heard = queue.Queue()

    def half(connection):
        assert connection.recv(5, socket.MSG_WAITALL) == b"hello"
        connection.sendall(b"that is all")
        connection.shutdown(socket.SHUT_WR)
        text = b""
        while data := connection.recv(100):  # in whatever pieces
            text += data
        heard.put(text)

    with server(half) as port:
        network.run(f"s = connect({port}); s.write(b'hello')")
        assert network.run("print(s.read()); s.write(b'thanks'); s.close()") == "b'that is all'"
        network.run("import time; time.sleep_ms(200)")
        assert heard.get(timeout=patience.stretched(20)) == b"thanks"
    assert network.stats()["connections"] == 0


def test_connections_are_refused_reset_and_swallowed(network):
    held = queue.Queue()

    def hold(connection):
        held.put(connection.recv(100))
        with contextlib.suppress(ConnectionResetError):
            connection.recv(100)
            return
        held.put("reset")

    attempt = "try: s = connect({}); print('connected')\nexcept OSError as e: print(e)"
    with server(hold) as port:
        network.fault(refuse=[port])
        assert "ECONNRESET" in network.run(attempt.format(port))
        network.fault(refuse=[], blackhole=[port])
        network.set_speed(50)
        assert "connected" not in network.run(attempt.format(port))
        network.set_speed(1)
        network.heal()
        assert network.run(attempt.format(port)) == "connected"
        network.run("s.write(b'x'); import time; time.sleep_ms(100)")
        network.reset_connections()
        code = "try: print(s.read(1))\nexcept OSError as e: print(e)"
        assert "ECONNRESET" in network.run(code)
        for each in (b"x", "reset"):
            assert held.get(timeout=patience.stretched(20)) == each
    # nobody listens
    assert "ECONNRESET" in network.run(attempt.format(port))


def test_a_silent_link_is_noticed_by_nobody_and_tcp_goes_on_after_it(network):
    with server(echo) as port:
        network.run(f"s = connect({port}); s.write(b'before'); print(s.read(6))")
        network.fault(link="silent")
        lost = network.stats()["lost_from_device"]
        code = "import time; s.write(b'during'); time.sleep(2); print(ppp.isconnected())"
        assert network.run(code) == "True"
        assert network.stats()["lost_from_device"] > lost
        network.fault(link="up")
        network.set_speed(5)
        assert network.run("print(s.read(6)); s.close()") == "b'during'"
        network.set_speed(1)


def test_a_link_that_goes_down_can_be_brought_up_again(network):
    network.set_speed(20)
    network.fault(link="down")
    network.run("import time\nwhile ppp.isconnected(): time.sleep_ms(10)")
    network.fault(link="up")
    network.run("ppp.disconnect()\nppp.connect()\nwhile not ppp.isconnected(): time.sleep_ms(10)")
    network.set_speed(1)
    with server(echo) as port:
        code = f"s = connect({port}); s.write(b'again'); print(s.read(5)); s.close()"
        assert network.run(code) == "b'again'"


def test_names_come_from_the_network_or_a_server_of_the_test(network):
    look_up = "print(socket.getaddrinfo({!r}, 1)[0][-1])"
    assert network.run(look_up.format("broker.test")) == f"('{ADDRESS}', 1)"
    with pytest.raises(PicoError, match="OSError: -2"):
        network.run(look_up.format("nobody.test"))
    network.set_names({"nobody.test": "10.77.0.3"})
    assert network.run(look_up.format("nobody.test")) == "('10.77.0.3', 1)"
    with DNS({"made.up": "10.77.0.5"}) as dns, server(echo) as port:
        network.set_ports({53: dns.port, 1883: port})
        assert network.run(look_up.format("made.up")) == "('10.77.0.5', 1)"
        assert set(dns.queries) == {"made.up"}  # asked again where the answer takes its time
        # all addresses up to 10.77.0.9 are this computer
        code = "s = connect(1883, '10.77.0.5'); s.write(b'hi'); print(s.read(2)); s.close()"
        assert network.run(code) == "b'hi'"
