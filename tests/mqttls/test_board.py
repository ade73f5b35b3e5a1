"""What mqttls does with a board: the unix port of MicroPython on a pty, through mpremote."""

import hashlib
import signal
import time

import pytest

from tests.support.pty_board import PtyBoard
from tools.mqttls import board as boards
from tools.mqttls.board import Board, BoardError, BoardGone, BoardRaised

BIG = bytes(range(256)) * 40


@pytest.fixture
def pty_board(tmp_path):
    with PtyBoard(tmp_path / "flash") as running:
        yield running


def test_a_program_runs_and_its_output_comes_back(pty_board):
    with Board(pty_board.port) as board:
        assert board.run("print('å', 1 + 1)", "adding") == "å 2\n"
        assert board.ask("print('noise')\nprint([1, None])".replace("None", "2"), "x") == [1, 2]


def test_a_program_that_raises_is_told_with_its_last_line(pty_board):
    with Board(pty_board.port) as board:
        with pytest.raises(BoardRaised) as caught:
            board.run("open('/nowhere/file')", "looking")
        assert caught.value.error == "OSError: [Errno 2] ENOENT"
        assert "looking: the board raised OSError" in caught.value.fact
        with pytest.raises(BoardRaised) as caught:
            board.run("raise OSError(28)", "writing")
        assert "flash is full" in caught.value.cure
        assert board.run("print(1)", "x") == "1\n"


def test_a_board_says_what_it_is(pty_board):
    with Board(pty_board.port) as board:
        info = board.info()
    assert tuple(info["version"]) >= boards.OLDEST
    assert info["free"] > 0 and info["clock"] and info["wifi"]
    assert info["frozen"] is None
    assert info["id"] == bytes((0xE6, 0x61, 0x38, 0x52, 0x83, 0x4F, 0x2B, 0x2C)).hex()


def test_files_arrive_whole_and_a_second_time_nothing_is_written(pty_board):
    files = {"/certs/key.der": BIG, "/lib/a/b/c.py": b"x = 1\n", "/empty": b""}
    with Board(pty_board.port) as board:
        assert board.put(files) == list(files)
        found = board.hashes([*files, "/none"])
        assert found == {
            **{path: hashlib.sha256(data).hexdigest() for path, data in files.items()},
            "/none": None,
        }
        assert {path: board.read(path) for path in files} == files
        assert board.read("/none") is None
        before = pty_board.passed
        assert board.put(files) == []
        assert pty_board.passed - before < 2000  # hashes were asked for, nothing was sent
        left = board.run("import os\nprint(os.listdir('/'), os.listdir('/certs'))", "listing")
    assert boards.TEMPORARY not in left


@pytest.mark.parametrize("files", ["littlefs", "FAT"])
def test_only_what_differs_is_written(tmp_path, files):
    with PtyBoard(tmp_path / "flash", files=files) as pty, Board(pty.port) as board:
        board.put({"/a": b"one", "/b": b"two"})
        assert board.put({"/a": b"one", "/b": b"three"}) == ["/b"]
        assert board.read("/b") == b"three"
        board.remove(["/a", "/none"])
        assert board.run("import os\nprint(os.listdir('/'))", "listing") == "['b']\n"


def test_a_board_that_fills_up_all_the_same_has_its_old_files(pty_board, monkeypatch):
    monkeypatch.setattr(Board, "_check_room", lambda self, files: None)
    with Board(pty_board.port) as board:
        board.put({"/a": b"old"})
        with pytest.raises(BoardRaised, match="writing /b: the board raised OSError") as caught:
            board.put({"/a": b"new", "/b": bytes(900_000)})
        assert "flash is full" in caught.value.cure
        assert board.read("/a") == b"old"
        assert board.run("import os\nprint(os.listdir('/'))", "listing") == "['a']\n"


def test_progress_counts_every_byte(pty_board):
    seen = []
    with Board(pty_board.port) as board:
        board.put({"/a": BIG, "/b": b"1"}, progress=lambda *args: seen.append(args))
    assert seen[-1] == (len(BIG) + 1, len(BIG) + 1, "/b")


def test_a_board_unplugged_half_way_has_its_old_files_and_the_next_run_goes_on(tmp_path):
    flash = tmp_path / "flash"
    old = {"/certs/cert.der": b"old certificate", "/certs/key.der": b"old key"}
    new = {"/certs/cert.der": b"c" * 3000, "/certs/key.der": b"k" * 30000}
    with PtyBoard(flash) as first:
        with Board(first.port) as board:
            board.put(old)
            first.unplug_after(20000)
            with pytest.raises(BoardGone) as caught:
                board.put(new)
            assert "writing /certs/key.der was not finished" in caught.value.fact
            assert "run the same command again" in caught.value.cure
        with pytest.raises(BoardError, match="no port|cannot be opened|no answer|is gone"):
            Board(first.port)
    with PtyBoard(flash) as second, Board(second.port) as board:
        assert {path: board.read(path) for path in old} == old
        before = second.passed
        assert board.put(new) == list(new)
        assert second.passed - before < 30000 * 4 / 3 + 10000  # the first file was there already
        assert {path: board.read(path) for path in new} == new


@pytest.mark.parametrize("count", [1, 50, 300, 700, 1500])
def test_wherever_it_is_unplugged_it_is_said_at_once(tmp_path, count):
    with PtyBoard(tmp_path / "flash") as plugged:
        plugged.unplug_after(count)
        # and not after it was silent for long
        with pytest.raises(BoardGone, match="is gone"), Board(plugged.port) as board:
            board.put({"/a": BIG})


def test_a_silent_board_is_given_up(pty_board):
    silent = pytest.raises(BoardGone, match="silent for 1 s")
    with Board(pty_board.port) as board, silent:
        board.run("while True: pass", "waiting", timeout_s=1)
    with Board(pty_board.port) as board:  # close() stopped the program
        assert board.run("print(2)", "x") == "2\n"


def test_a_program_that_runs_is_interrupted(pty_board):
    with Board(pty_board.port) as board:
        board._transport.exec_raw_no_follow("import time\nwhile True: time.sleep(1)")
        time.sleep(0.2)
        board._busy = False  # as if somebody else had started it
    with Board(pty_board.port) as board:
        assert board.run("print(3)", "x") == "3\n"


def test_a_program_that_took_all_memory_is_no_obstacle(tmp_path):
    with PtyBoard(tmp_path / "flash", heap="200K") as full:
        with Board(full.port) as board, pytest.raises(BoardRaised, match="MemoryError"):
            board.run("held = None\nwhile True: held = held, bytearray(16)", "filling it")
        with Board(full.port) as board:
            board.put({"/a": BIG})
            assert board.info()["version"]


def test_a_board_that_hangs_is_not_waited_for(pty_board):
    pty_board.signal(signal.SIGSTOP)
    with pytest.raises(BoardGone, match="no answer from the board") as caught:
        Board(pty_board.port)
    assert "reset button" in caught.value.cure


def test_a_soft_reset_empties_the_memory_and_leaves_the_files(pty_board):
    with Board(pty_board.port) as board:
        board.put({"/a": b"1"})
        board.run("x = 1", "x")
        board.fresh()
        assert board.run("print('x' in globals())", "x") == "False\n"
        assert board.read("/a") == b"1"


def test_one_program_at_a_time_has_the_port(pty_board):
    with Board(pty_board.port), pytest.raises(BoardError, match="cannot be opened") as caught:
        Board(pty_board.port)
    assert "Thonny" in caught.value.cure


def test_the_clock_is_set_to_utc(pty_board):
    with Board(pty_board.port) as board:
        board.set_clock(1_800_000_000)
        out = board.run("from machine import RTC\nprint(RTC().datetime())", "asking")
    assert out == "(2027, 1, 15, 4, 8, 0, 0, 0)\n"


def test_a_board_without_a_clock_is_no_error(tmp_path):
    with PtyBoard(tmp_path / "flash", fakes=()) as bare, Board(bare.port) as board:
        assert board.set_clock() is None
        assert board.info()["clock"] is False


def test_a_full_board_is_refused_before_anything_is_written(pty_board):
    with Board(pty_board.port) as board:
        with pytest.raises(BoardError, match=r"KB free, \d+ KB are needed") as caught:
            board.put({"/small": b"1", "/big": bytes(900_000)})
        assert "delete files" in caught.value.cure
        assert board.run("import os\nprint(os.listdir('/'))", "listing") == "[]\n"


def test_there_is_no_such_port():
    with pytest.raises(BoardError, match="there is no port /dev/nothing"):
        Board("/dev/nothing")


class _Port:
    def __init__(self, device, vid):
        self.device, self.vid, self.product, self.description = device, vid, "Board", ""


def test_the_only_board_is_found_and_several_are_a_question(monkeypatch):
    import serial.tools.list_ports as lister

    found = [_Port("/dev/ttyS0", None)]
    monkeypatch.setattr(lister, "comports", lambda: found)
    with pytest.raises(BoardError, match="no board found on USB"):
        boards.find_port()
    found.append(_Port("/dev/ttyACM0", 0x2E8A))
    assert boards.find_port() == "/dev/ttyACM0"
    found.append(_Port("/dev/ttyACM1", 0x303A))
    with pytest.raises(BoardError, match="several boards: /dev/ttyACM0 .*/dev/ttyACM1") as caught:
        boards.find_port()
    assert caught.value.cure == "say which: --port /dev/ttyACM0"
