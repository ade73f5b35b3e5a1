"""The C module in firmware/: a handshake in steps, TLS in memory of its own, nothing else new."""

import os
import re
import subprocess
import threading
import time

import pytest

from tests.support import patience
from tests.support.pki import PKI
from tests.support.server import server
from tests.virtual_pico.desk import Desk
from tests.virtual_pico.pico import PicoError
from tools import firmware as builder

_RUN = "import handshakes; handshakes.{}"
_USED = "import gc, tls_steps; gc.collect(); print(tls_steps.info().used_bytes)"
_ROUNDS = int(os.environ.get("PICO_HANDSHAKES", "4"))
_LINK = "import config, asyncio; asyncio.run(config.link.up())"


@pytest.fixture(scope="module")
def _desk(steps_firmware, tmp_path_factory, pki):
    with Desk(steps_firmware, tmp_path_factory.mktemp("steps"), pki) as desk:
        desk.install("handshakes", "job")
        yield desk


@pytest.fixture
def pico(_desk):
    """The board of a Desk that all these tests share, after a soft reset."""
    _desk.pico.soft_reset()
    assert _desk.pico.run(_USED) == "0"
    _desk.pico.run(_LINK)
    return _desk.pico


def lines(said, begin):
    """Return the lines of a program's output that begin with the word `begin` (list of str)."""
    return re.findall(rf"^{begin} (.*?)\s*$", said, re.M)


def test_it_says_what_it_is(pico):
    said = pico.run("import tls_steps; print(tls_steps.info())")
    assert re.fullmatch(
        r"\(operations=250, heap_bytes=49152, used_bytes=\d+, peak_bytes=\d+, missed=\d+\)", said
    )
    with pytest.raises(PicoError, match="operations: 0 .a handshake at once. or more"):
        pico.run("tls_steps.operations(-1)")


def test_both_heaps_have_the_memory_that_one_has_on_a_pico_w(steps_firmware):
    places = builder.symbols(steps_firmware)
    c_heap = places["__StackLimit"] - places["__bss_end__"]
    assert c_heap == 48 * 1024
    gc_heap = places["__GcHeapEnd"] - places["__GcHeapStart"]
    session = 3 * 32 + 3 * 4 + 1536  # tls_sessions.c
    assert abs(gc_heap + c_heap + session - 190 * 1024) < 1024


def test_a_wrap_that_nobody_calls_fails_the_build(steps_firmware):
    def check(wraps):
        words = ["-DNM=arm-none-eabi-nm", f"-DFIRMWARE={steps_firmware.with_suffix('.elf')}"]
        words += [f"-DWRAPS={wraps}", "-P", str(builder.STEPS / "check_wraps.cmake")]
        return subprocess.run(["cmake", *words], capture_output=True, text=True, check=False)

    cmake = (builder.STEPS / "micropython.cmake").read_text()
    wraps = re.search(r"TLS_STEPS_WRAPS\n(.*?)\n\)", cmake, re.S)[1].split()
    assert len(wraps) == 6
    assert check(";".join(wraps)).returncode == 0
    failed = check("mbedtls_ssl_handshake;mbedtls_ssl_gone")
    assert failed.returncode != 0
    assert "nothing calls mbedtls_ssl_gone" in " ".join(failed.stderr.split())


def test_errors_have_the_numbers_and_words_that_they_have_without_it(
    pico, firmware, tmp_path, pki
):
    said = pico.run(_RUN.format("errors()"))
    with Desk(firmware, tmp_path, pki) as desk:
        desk.install("handshakes")
        desk.pico.run(_LINK)
        without = desk.pico.run(_RUN.format("errors()"))
    assert len(lines(said, "error")) == 12
    assert lines(said, "error") == lines(without, "error")
    # after what a callback raised it does not go on
    assert lines(said, "again") == ["-12288"] * 3
    assert lines(said, "left") == ["0"]


def test_users_that_know_nothing_of_steps_have_their_handshake_at_once(pico):
    said = pico.run(_RUN.format("blocking()"))
    assert lines(said, "wrote") == ["18 True", "18 True"]
    assert "not correctly signed by the trusted CA" in said
    assert lines(said, "left") == ["0"]


def test_asyncios_streams_have_it_in_steps(pico):
    said = pico.run(_RUN.format("streams()"))
    assert lines(said, "answer") == lines(said, "turns") == ["True", "True"]
    assert lines(said, "left") == ["True", "True"]


def test_connections_that_nobody_has_any_more_make_room(pico):
    said = lines(pico.run(_RUN.format("dropped(5)")), "dropped")
    missed, left = map(int, said[0].split())
    # what lies on the stack may name one of them for a while; without a collection it is 2,700
    assert missed < 20
    assert left < 30_000


def test_a_handshake_that_ends_after_any_step_leaves_nothing(pico):
    said = pico.run(_RUN.format("ends(9)"), timeout_s=600)
    steps, left = re.search(r"^ended (\d+) left (\d+)", said, re.M).groups()
    assert int(steps) > 30
    assert (left, lines(said, "after")) == ("0", [])


@pytest.mark.parametrize("after", [3, 15, 40])
def test_a_connection_that_is_reset_after_some_steps_says_so_and_leaves_nothing(pico, after):
    pico.start(_RUN.format(f"dies({after})"))
    pico.wait_for("^there")
    pico.reset_connections()
    assert pico.wait_for("^ended") == "ended 1"
    assert re.search(r"OSError\(.*(104|-9)", pico.wait_for("^died"))
    assert pico.wait_for("^left") == "left 0"


def test_two_handshakes_at_once_keep_apart(pico):
    said = pico.run(_RUN.format("together()"))
    both, one = lines(said, "together")
    assert both == "[True, True] True"
    assert one == "[True, 'The certificate is not correctly signed by the trusted CA'] True"
    assert lines(said, "left") == ["0"]


def test_where_no_memory_is_left_it_says_so_and_the_next_one_is_good(pico):
    said = pico.run(_RUN.format("full()"))
    for each in lines(said, "full"):
        assert re.search(r"OSError\((12|-\d+)|ValueError.*not correctly signed|MemoryError", each)
    assert len(lines(said, "full")) == 3
    assert lines(said, "up") == ["True", "True"]
    assert lines(said, "again") == ["True"]
    assert lines(said, "left") == ["0"]


@pytest.mark.timeout(300 + 10 * _ROUNDS)
def test_good_and_failed_handshakes_leave_nothing(pico):
    said = pico.run(_RUN.format(f"many({_ROUNDS})"), timeout_s=300 + 10 * _ROUNDS)
    assert lines(said, "many") == [f"{_ROUNDS} left 0"]


def test_a_client_that_is_cancelled_in_the_handshake_leaves_nothing(pico):
    said = pico.run(_RUN.format("cancelled(1, 150, 400)"))
    assert lines(said, "cancelled") == ["1", "150", "400"]
    assert lines(said, "left") == ["0"]


def interrupt(pico):
    """Press Ctrl-C until it is heard: one that meets the callback of a UART ends that alone."""
    with pytest.raises(PicoError, match="KeyboardInterrupt"):
        for _ in range(30):
            pico.interrupt()
            try:
                pico.finish(timeout_s=2)
            except PicoError as error:
                if "time-out" not in str(error):
                    raise


def test_after_ctrl_c_in_a_handshake_all_of_it_is_given_back(pico):
    def left():
        return int(pico.run(_USED)) - before

    before = int(pico.run(_USED))
    for wait_s in (0.1, 0.3, 0.6, 1.0):
        pico.start(_RUN.format("many(100)"))
        begin = pico.emulated_s()
        while pico.emulated_s() < begin + wait_s:
            time.sleep(0.01)
        interrupt(pico)
        (many,) = lines(pico.run(_RUN.format("many(1)")), "many")
        assert many.startswith("1 left ") and int(many[7:]) <= 0  # what an earlier one left may go
        # what lies on the stack from before may look like one of the contexts, of 1.7 KB
        assert left() < 4000
    begun = threading.Event()

    def silent(sock):
        sock.recv(1)
        begun.set()
        while sock.recv(1000):
            pass

    with server(silent) as port:
        pico.start(_RUN.format(f"silent({port})"))
        assert begun.wait(patience.stretched(60))
        interrupt(pico)
    assert left() < 4000


def test_after_ctrl_c_the_next_client_gives_back_what_the_last_one_had(pico):
    before = pico.run(_USED)
    for _ in range(2):
        pico.start("import job; asyncio.run(job.run(job.make(4)))")
        pico.wait_for("connected in")
        interrupt(pico)
        pico.run("client = job.make(4)")  # until then the interrupted one is kept, to be ended
        assert pico.run(_USED) == before


def test_a_soft_reset_gives_all_back(pico):
    for count in (5, 30, None):
        code = "import handshakes\nt = handshakes.Handshake(handshakes.context())\n"
        code += f"for _ in range({count}): t.step()" if count else "while not t.step(): pass"
        pico.run(code)
        assert int(pico.run(_USED)) > 20_000
        pico.soft_reset()
        assert pico.run(_USED) == "0"
        pico.run(_LINK)


def test_a_chain_of_rsa_certificates_is_verified_signature_by_signature(steps_firmware, tmp_path):
    for name in ("pki", "forged"):
        (tmp_path / name).mkdir()
    pki = PKI(tmp_path / "pki")
    pki.ca = pki.issue("ca", "ca", key="rsa2048", path_length=1)
    between = pki.issue("between", "ca", issuer=pki.ca, key="rsa2048")
    pki.broker = pki.issue("broker", issuer=between, key="rsa2048")
    # of the same name, but not what signed the chain
    pki.other_ca = PKI(tmp_path / "forged").issue("ca", "ca", key="rsa2048", path_length=1)
    with Desk(steps_firmware, tmp_path / "desk", pki) as desk:
        desk.install("handshakes")
        desk.pico.run(_LINK)
        said = desk.pico.run(_RUN.format("together()"))
        assert lines(said, "together")[0] == "[True, True] True"
        assert "not correctly signed by the trusted CA" in lines(said, "together")[1]
        said += desk.pico.run(_RUN.format("ends(3)"))
        assert lines(said, "after") == []
        assert re.findall(r"left (\d+)", said) == ["0", "0"]
