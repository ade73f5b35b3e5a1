"""mqttls where there is no POSIX: what only Linux and macOS have is taken away from it."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import mpy, windows
from tests.support.tool import Mosquitto, init, mqttls, open_folder
from tools.mqttls import cli, files, system


@pytest.fixture
def on_windows(tmp_path):
    """Run mqttls with POSIX's modules taken away; its folder has a space in its name."""
    env = windows.environment(tmp_path, **windows.icacls(tmp_path / "Windows"))
    pki = tmp_path / "My Files" / "mqtt-pki"
    pki.parent.mkdir()

    def run(*arguments, code=0, **more):
        said = mqttls(pki, *arguments, code=code, env={**env, **more}, encoding="cp1252")
        assert "Traceback" not in said.err, said
        return said

    run.pki, run.env = pki, env
    run.log = tmp_path / "Windows" / "icacls.log"
    return run


def test_posix_is_gone_in_there(on_windows):
    program = """
import os, signal
for name in ("fcntl", "pwd", "grp", "termios", "resource", "pty"):
    try:
        __import__(name)
    except ImportError:
        continue
    print(name)
names = ("getuid", "geteuid", "fork", "fchmod", "O_NOFOLLOW")
print([each for each in names if hasattr(os, each)])
print(os.name, hasattr(signal, "SIGHUP"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **on_windows.env},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split("\n")[:-1] == ["[]", "nt False"], done


def test_a_life_from_init_to_revoke(on_windows):
    run = on_windows
    run("init", "--broker", "127.0.0.1", "--broker", "broker.lan")
    run("device", "add", "kitchen", "cellar")
    run("device", "add", "homeassistant", "--admin")
    run("renew", "--all")
    run("revoke", "cellar")
    assert "2; the list is 0 days old" in run("status").out
    found = run("status", "--json").json
    assert [each["name"] for each in found["devices"]] == ["homeassistant", "kitchen"]
    assert found["problems"] == []
    run("renew", "--ca")
    run("renew", "--ca", "--finish", "--force")
    run("broker-conf", "--docker")
    assert "nothing wrong in these files" in run("doctor").out
    assert "revoked" in run("device", "list").out
    assert "refused the TLS handshake" in run("explain", "OSError(-30592,)").out
    # what was made is as good where it is moved to
    assert mqttls(run.pki, "status", "--json").json["problems"] == []


@pytest.mark.parametrize(
    ("module", "says"),
    [("demo", "MicroPython has no sockets on Windows: run it in WSL2"), ("mqttls keys", "WSL2")],
)
def test_what_needs_linux_says_so(on_windows, module, says):
    command = [sys.executable, "-m", *f"tools.{module}".split()]
    env = {**on_windows.env, "MICROPYTHON": ""}
    done = subprocess.run(command, env=env, cwd=mpy.ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and says in done.stderr and "Traceback" not in done.stderr, done


def test_the_doctor_connects_with_pythons_ssl(tmp_path):
    with open_folder() as base:
        pki = base / "mqtt-pki"
        port = init(pki)
        mqttls(pki, "device", "add", "kitchen")
        (pki / ".lock").unlink()  # Windows has a lock of another kind
        env = windows.environment(tmp_path, MICROPYTHON="")
        with Mosquitto(pki / "broker/mosquitto.conf", port, pki):
            line = ["--device", "kitchen", "--conf", pki / "broker/mosquitto.conf"]
            found = mqttls(pki, "doctor", *line, "--json", env=env).json
    assert found["stages"]["CONNACK"]["detail"].startswith("Python's ssl connected")
    assert found["problems"] == [] and "WSL2" in found["notes"][0]


def test_a_console_without_the_letters_shows_escapes(on_windows):
    on_windows("init", "--broker", "127.0.0.1")
    said = on_windows("device", "add", "漢字", code=2)
    assert r"'\u6f22\u5b57' cannot be a device's name" in said.err
    assert "漢" not in on_windows("device", "add", "漢字", "--json", code=2).out


def test_a_file_opened_without_an_encoding_is_noticed(tmp_path):
    env = windows.environment(tmp_path)
    command = [sys.executable, "-c", "open('file', 'w')"]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1 and "EncodingWarning" in done.stderr


def test_passwords(on_windows):
    on_windows("init", "--broker", "127.0.0.1", "--server-only")
    on_windows("device", "add", "kitchen")
    assert on_windows("status", "--json").json["devices"][0]["problem"] == ""


def test_text_files_have_no_carriage_returns(on_windows):
    on_windows("init", "--broker", "127.0.0.1")
    on_windows("device", "add", "kitchen")
    on_windows("broker-conf", "--docker")
    texts = [each for each in on_windows.pki.rglob("*") if each.suffix not in (".der", "")]
    assert len(texts) > 10
    assert [each for each in texts if b"\r" in each.read_bytes()] == []


def test_the_folder_is_for_its_owner_alone(on_windows):
    on_windows("init", "--broker", "127.0.0.1")
    called = on_windows.log.read_text().splitlines()
    assert called == [f"{on_windows.pki} /inheritance:r /grant:r *S-1-5-21-1-2-3-1001:(OI)(CI)F"]


def test_where_icacls_fails_a_sentence_says_what_to_do(tmp_path, on_windows):
    refuses = windows.icacls(tmp_path / "refuses", fails=True)
    found = on_windows("init", "--broker", "127.0.0.1", "--json", **refuses).json
    (note,) = found["notes"]
    assert "others may be able to read" in note and "Access denied" in note
    found = on_windows("status", "--json", code=1, **refuses).json
    assert "others can read" in found["problems"][0]["fact"]
    assert found["problems"][0]["cure"].startswith(f'icacls "{on_windows.pki}" /inheritance:r')


class Held:
    """os.replace as where another program has files open that are called `name`, `times` times."""

    def __init__(self, monkeypatch, name, times):
        self.name, self.times, self._replace = name, times, os.replace
        monkeypatch.setattr(system, "is_windows", lambda: True)
        monkeypatch.setattr(system, "keep_private", lambda _: "")
        monkeypatch.setattr(system, "is_open_to_others", lambda _: False)
        monkeypatch.setattr(os, "replace", self)

    def __call__(self, old, new):
        if os.path.basename(new) == self.name and self.times:
            self.times -= 1
            raise PermissionError(13, "it is being used by another process", str(old))
        self._replace(old, new)


def test_what_another_program_holds_open_for_a_moment_is_tried_again(tmp_path, monkeypatch):
    held = Held(monkeypatch, "file", times=3)
    (tmp_path / "file").write_bytes(b"old")
    files.write(tmp_path / "file", "new")
    assert held.times == 0 and (tmp_path / "file").read_bytes() == b"new"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_change_that_is_stuck_half_way_is_finished_by_the_next_command(
    tmp_path, monkeypatch, capsys
):
    line = ["--dir", str(tmp_path), "--json"]
    assert cli.main(["init", "--broker", "127.0.0.1", *line]) == 0
    assert cli.main(["device", "add", "kitchen", *line]) == 0
    before = (tmp_path / "devices/kitchen/key.der").read_bytes()
    held = Held(monkeypatch, "key.der", times=-1)  # for ever
    monkeypatch.setattr(system, "_PATIENCE_S", 0)
    capsys.readouterr()
    assert cli.main(["renew", "kitchen", *line]) == 1
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "used by another process" in problem["fact"] and "close what has" in problem["cure"]
    held.times = 0
    assert cli.main(["status", *line]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == []
    assert (tmp_path / "devices/kitchen/key.der").read_bytes() != before
    assert [each.name for each in tmp_path.glob(".*")] == [".lock"]


KEPT = ["CON", "nul", "aux", "com1", "LPT9", "nul.txt", "Aux.2.x", "kitchen."]


def test_names_that_windows_keeps_for_itself_are_refused_everywhere(tmp_path):
    mqttls(tmp_path / "pki", "init", "--broker", "127.0.0.1")
    said = mqttls(tmp_path / "pki", "device", "add", *KEPT, code=2).err
    assert f"{', '.join(map(repr, KEPT))} cannot be a device's name" in said and "CON, NUL" in said
    (tmp_path / "fleet.csv").write_text("\n".join(KEPT))
    said = mqttls(tmp_path / "pki", "device", "add", "--csv", tmp_path / "fleet.csv", code=1).err
    assert said.count("cannot be a device's name") == len(KEPT)


def test_names_that_only_look_like_them_are_taken(tmp_path):
    names = ["console", "com", "com10", "nul-1", "a.con", "lpt_1"]
    mqttls(tmp_path / "pki", "init", "--broker", "127.0.0.1")
    assert mqttls(tmp_path / "pki", "device", "add", *names, "--json").json["added"] == names


def test_a_name_in_another_case_is_another_name(tmp_path):
    mqttls(tmp_path, "init", "--broker", "127.0.0.1")
    mqttls(tmp_path, "device", "add", "kitchen")
    for command in ("revoke", "renew", "status"):
        said = mqttls(tmp_path, command, "Kitchen", code=1)
        assert "no device 'Kitchen'" in said.err and "there are kitchen" in said.err
    assert json.loads((tmp_path / "settings.json").read_text())["admins"] == []
