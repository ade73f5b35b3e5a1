"""What is wrong is said in a sentence with its cure, and nothing is half-made."""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from tests.support import mpy, patience
from tests.support.tool import mqttls, typing, without_root, write_secret
from tools.mqttls import cli, files, given, guard

INIT = ("init", "--broker", "127.0.0.1", "--broker", "broker.lan")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "mqtt-pki"
    mqttls(folder, *INIT)
    return folder


@pytest.fixture
def pki(made, tmp_path):
    return shutil.copytree(made, tmp_path / "mqtt-pki")


def snapshot(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


# Usage


def test_alone_it_prints_worked_examples():
    said = mqttls(None).out
    examples = [line for line in said.splitlines() if line.startswith("mqttls ")]
    verbs = ["init", "use", "device", "provision", "doctor"]
    assert [line.split()[1] for line in examples[:5]] == verbs


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["bake"], "invalid choice: 'bake'"),
        (["init"], "required: --broker"),
        (["init", "--broker", "mqtts://broker.lan"], "give a host name or an IP address only"),
        (["init", "--broker", "broker.lan:8883"], "the port with --port"),
        (["init", "--broker", "192.168.1.300"], "four numbers from 0 to 255"),
        (["init", "--broker", "bröker.lan"], "xn-- form"),
        (["init", "--broker", "a b"], "neither a host name nor an IP address"),
        (["init", "--broker", "x", "--port", "70000"], "--port: invalid port value: '70000'"),
        (["init", "--broker", "x", "--key", "ed25519"], "invalid choice: 'ed25519'"),
        (["device", "add"], "give names, or --csv FILE"),
        (["device", "add", "a/b", "..", "x" * 65], "'a/b', '..'"),
        (["renew", "--finish"], "--finish belongs to --ca"),
        (["init", "--broker", "mqtts://ann:secret@broker.lan"], "host name or an IP address only"),
        (["doctor", "mqtt://ann:secret@broker.lan"], "--password-file"),
        (["doctor", "ann:secret@broker.lan:8883"], "--password-file"),
        (["doctor", "wss://broker.lan/mqtt"], "no MQTT over WebSocket"),
        (["doctor", "https://broker.lan"], "no broker of MQTT"),
        (["doctor", "mqtts://broker.lan/mqtt"], "give HOST or HOST:PORT"),
        (["doctor", "[::1]:8883"], "boards know no IPv6"),
        (["doctor", "fe80::1"], "boards know no IPv6"),
        (["doctor", "broker lan"], "give HOST or HOST:PORT"),
        (["doctor", "broker\x1b[2J.lan"], "give HOST or HOST:PORT"),
        (["doctor", "bröker.lan"], "is not ASCII, in DNS it is xn--brker-kua.lan"),
        (["doctor", "ö" * 80], "is not ASCII"),
        (["doctor", "broker.lan."], "ends with a dot"),
        (["doctor", "10.0.0.256"], "four numbers from 0 to 255"),
        (["doctor", "broker.lan:70000"], "'70000' is no port"),
        (["doctor", "broker.lan:x"], "'x' is no port"),
        (["doctor", ":8883"], "give HOST or HOST:PORT"),
        (["--json"], "no command given"),
    ],
)
def test_a_wrong_call_is_2_and_says_what_is_right(tmp_path, arguments, why):
    folder = tmp_path / "mqtt-pki"
    said = mqttls(folder, *arguments, code=2)
    assert why in said.err + said.out
    assert "Traceback" not in said.err
    assert "secret" not in said.err + said.out and "\x1b" not in said.err + said.out
    assert not folder.exists()


@pytest.mark.parametrize(
    "arguments",
    [["status"], ["device", "add", "x"], ["renew"], ["revoke", "x"], ["broker-conf"]],
)
def test_without_init_every_command_says_so(tmp_path, arguments):
    said = mqttls(tmp_path / "mqtt-pki", *arguments, code=1)
    assert "there are no certificates in" in said.err
    assert "mqttls init --broker" in said.err


@pytest.mark.parametrize(
    "arguments", [["status", "celar"], ["renew", "celar"], ["revoke", "celar"]]
)
def test_an_unknown_device_is_told_with_the_known_ones(pki, arguments):
    mqttls(pki, "device", "add", "cellar")
    before = snapshot(pki)
    said = mqttls(pki, *arguments, code=1)
    assert "no device 'celar'" in said.err
    assert "there are cellar" in said.err
    assert snapshot(pki) == before


def test_json_is_one_object_also_when_it_fails(tmp_path, pki):
    found = mqttls(tmp_path / "nowhere", "status", "--json", code=1).json
    assert found["exit"] == 1
    assert "init" in found["problems"][0]["cure"]
    found = mqttls(pki, "device", "add", "kitchen", "--json").json
    assert found["added"] == ["kitchen"] and found["exit"] == 0
    assert found["made"][0]["path"] == str(pki / "devices" / "kitchen")


# Never overwritten


def test_init_again_changes_nothing(pki):
    before = snapshot(pki)
    assert "nothing to do" in mqttls(pki, *INIT).out
    assert snapshot(pki) == before


def test_init_with_another_name_keeps_the_authority_and_archives_the_old_certificate(pki):
    before = snapshot(pki)
    serial = mqttls(pki, "status", "--json").json["broker"]["serial"]
    said = mqttls(pki, *INIT, "--broker", "garden.lan")
    assert "its names changed" in said.out
    after = snapshot(pki)
    assert after["ca.crt"] == before["ca.crt"] and after["ca.key"] == before["ca.key"]
    for file in ("broker/broker.crt", "broker/broker.key"):
        assert before[file] != after[file]
    assert after[f"archive/{serial}/broker/broker.crt"] == before["broker/broker.crt"]
    assert f"archive/{serial}/broker/broker.key" not in after
    names = mqttls(pki, "status", "--json").json["broker"]["names"]
    assert names == ["127.0.0.1", "broker.lan", "garden.lan"]


def test_a_device_that_is_valid_stays_and_one_that_is_not_is_made_anew(pki):
    mqttls(pki, "device", "add", "kitchen", "cellar", "attic")
    before = snapshot(pki)
    (pki / "devices/cellar/key.der").write_bytes(b"0")
    (pki / "devices/attic/cert.crt").unlink()
    (pki / "devices/attic/cert.der").unlink()
    found = mqttls(pki, "device", "add", "kitchen", "cellar", "attic", "--json").json
    assert (found["added"], found["kept"]) == (["cellar", "attic"], ["kitchen"])
    after = snapshot(pki)
    for file in ("cert.der", "key.der", "tls.json"):
        assert after[f"devices/kitchen/{file}"] == before[f"devices/kitchen/{file}"]
    assert mqttls(pki, "status", "--json").json["problems"] == []
    kept = [path for path in after if path.endswith("devices/cellar/cert.crt")]
    assert len(kept) == 2  # its own, and that in the archive


def test_names_that_differ_in_case_only_are_refused(pki):
    mqttls(pki, "device", "add", "kitchen")
    said = mqttls(pki, "device", "add", "Kitchen", code=1)
    assert "upper and lower case only" in said.err
    assert not (pki / "devices/Kitchen").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    said = mqttls(tmp_path, *INIT, code=1)
    assert "holds other files (letter.txt" in said.err
    assert snapshot(tmp_path) == {"letter.txt": b"dear"}


def test_hidden_folders_of_others_are_left_alone_too(tmp_path):
    for name in (".new", ".commit"):
        (tmp_path / name / "tree").mkdir(parents=True)
        (tmp_path / name / "mine").touch()
    assert "there are no certificates" in mqttls(tmp_path, "status", code=1).err
    mqttls(tmp_path, "init", "--broker", "broker.lan", code=1)
    assert all((tmp_path / name / "mine").exists() for name in (".new", ".commit"))
    assert not (tmp_path / "settings.json").exists()


# Damaged files


@pytest.mark.parametrize(
    ("file", "command", "says"),
    [
        ("ca.crt", ["device", "add", "x"], "ca.crt is damaged: there is no certificate in it"),
        ("ca.key", ["device", "add", "x"], "ca.key is damaged: there is no private key in it"),
        ("settings.json", ["status"], "settings.json is damaged: it is not JSON"),
        ("settings.json", ["device", "add", "x"], "settings.json is damaged: it is not JSON"),
        ("revoked.json", ["revoke", "kitchen"], "revoked.json is damaged: it is not JSON"),
        ("ca.crt", ["renew", "--ca"], "ca.crt is damaged: there is no certificate in it"),
    ],
)
@pytest.mark.parametrize("damage", ["cut", "letter", "empty", "zeros"])
def test_a_damaged_file_is_named_with_its_cure(pki, file, command, says, damage):
    mqttls(pki, "device", "add", "kitchen")
    path = pki / file
    data = path.read_bytes() if path.exists() else b"[ 1, 2 ]"
    half = len(data) // 2
    path.write_bytes(
        {
            "cut": data[:half],
            "letter": data[:half] + b"!" + data[half + 1 :],
            "empty": b"",
            "zeros": bytes(len(data)),
        }[damage]
    )
    if file.endswith(".json") and damage == "letter":
        path.write_bytes(b"{" + data)
    before = snapshot(pki)
    said = mqttls(pki, *command, code=1)
    assert says in said.err and "cure:" in said.err, said
    assert "Traceback" not in said.err
    assert snapshot(pki) == before


@pytest.mark.parametrize("server_only", [False, True])
def test_json_of_another_shape_is_damage_too(tmp_path, capsys, server_only):
    good = tmp_path / "good"
    more = ["--server-only"] if server_only else []
    for line in (["init", "--broker", "127.0.0.1", *more], ["device", "add", "kitchen"]):
        assert cli.main([*line, "--dir", str(good)]) == 0
    shapes = ("[1]", "null", '{"ca": 3, "cert": []}', '[{"name": 1}]', "[" * 5000)
    commands = ("status", "device list", "renew --all", "revoke kitchen", "broker-conf", "doctor")
    folder = tmp_path / "pki"
    for file in ("settings.json", "revoked.json", "devices/kitchen/tls.json"):
        for shape in shapes:
            for command in commands:
                shutil.rmtree(folder, ignore_errors=True)
                shutil.copytree(good, folder)
                (folder / file).write_text(shape)
                capsys.readouterr()
                status = cli.main([*command.split(), "--dir", str(folder)])
                said = "".join(capsys.readouterr())
                assert status in (0, 1), (file, shape, command, said)
                if file == "settings.json" and command != "doctor":
                    assert "settings.json is damaged" in said, (shape, command, said)
    shutil.rmtree(folder)
    shutil.copytree(good, folder)
    (folder / "devices/kitchen/board.json").write_text("[1]")
    assert cli.main(["status", "--dir", str(folder)]) == 0, "a note that provision writes anew"


NO_REVOKED = [
    *({"serial": each} for each in ("x", "", "0", "-1", "f" * 40, "1" * 41, "a\nb", "\u0661", 7)),
    *({"revoked": each} for each in ("x", "", "2026-01-01", "1900-01-01T00:00:00+00:00", None)),
    {"name": "\ud800"},
]


@pytest.mark.parametrize("wrong", NO_REVOKED, ids=str)
def test_what_no_list_can_hold_is_damage(pki, capsys, wrong):
    gone = {"serial": "01", "name": "x", "revoked": "2026-01-01T00:00:00+00:00", "authority": "1"}
    (pki / "revoked.json").write_text(json.dumps([{**gone, **wrong}]))
    for command in ("status", "renew --ca", "revoke --serial 2", "broker-conf"):
        capsys.readouterr()
        cli.main([*command.split(), "--dir", str(pki)])
        said = "".join(capsys.readouterr())
        assert "revoked.json is damaged" in said or command == "broker-conf", said


def test_a_password_that_no_broker_takes_is_damage(tmp_path, capsys):
    pki = tmp_path / "mqtt-pki"
    for line in (["init", "--broker", "127.0.0.1", "--server-only"], ["device", "add", "kitchen"]):
        assert cli.main([*line, "--dir", str(pki)]) == 0
    path = pki / "devices/kitchen/tls.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "password": "\ud800"}))
    capsys.readouterr()
    assert cli.main(["provision", "kitchen", "--dir", str(pki)]) == 1
    assert "tls.json is damaged" in "".join(capsys.readouterr())
    assert cli.main(["broker-conf", "--dir", str(pki)]) == 0  # it makes another
    assert json.loads(path.read_text())["password"].isprintable()


def test_a_serial_number_that_no_certificate_has(pki, capsys):
    assert cli.main(["revoke", "--serial", "f" * 40, "--dir", str(pki)]) == 2
    assert cli.main(["revoke", "--serial", "7" + "f" * 39, "--dir", str(pki)]) == 0


@pytest.mark.parametrize("file", ["broker/broker.crt", "broker/broker.key", "crl.pem"])
def test_status_tells_of_a_damaged_file_and_renew_heals_it(pki, file):
    (pki / file).write_bytes(b"-----BEGIN NOTHING-----")
    found = mqttls(pki, "status", "--json", code=1).json
    assert f"{file} is damaged" in found["problems"][0]["fact"]
    assert found["problems"][0]["cure"].startswith("mqttls renew")
    mqttls(pki, "renew")
    assert mqttls(pki, "status", "--json").json["problems"] == []


def test_a_key_of_another_certificate_is_noticed(tmp_path, pki):
    other = tmp_path / "other"
    mqttls(other, *INIT)
    (pki / "ca.key").write_bytes((other / "ca.key").read_bytes())
    said = mqttls(pki, "device", "add", "x", code=1)
    assert "do not belong together" in said.err
    assert not (pki / "devices").exists()


def test_what_others_can_read_is_a_problem(pki):
    mqttls(pki, "device", "add", "kitchen")
    (pki / "devices/kitchen/key.der").chmod(0o644)
    (pki / "ca.key").chmod(0o640)
    found = mqttls(pki, "status", "--json", code=1).json["problems"]
    assert sorted(each["fact"].split()[3].rpartition("/")[2] for each in found) == [
        "ca.key",
        "key.der",
    ]


# Passphrases


def secret(tmp_path, text):
    return {"MQTTLS_PASSPHRASE_FILE": str(write_secret(tmp_path / "passphrase", text))}


def test_an_encrypted_authority_wants_its_passphrase(tmp_path):
    pki = tmp_path / "mqtt-pki"
    right = secret(tmp_path, "correct horse\n")
    mqttls(pki, *INIT, "--encrypt-ca", env=right)
    assert b"ENCRYPTED" in (pki / "ca.key").read_bytes()
    mqttls(pki, "device", "add", "kitchen", env=right)
    assert "key encrypted" in mqttls(pki, "status").out  # which needs none
    before = snapshot(pki)
    wrong = secret(tmp_path, "battery staple\n")
    assert "wrong passphrase for" in mqttls(pki, "revoke", "kitchen", env=wrong, code=1).err
    empty = secret(tmp_path, "\n")
    assert "is empty" in mqttls(pki, "revoke", "kitchen", env=empty, code=1).err
    none = {"MQTTLS_PASSPHRASE_FILE": str(tmp_path / "nowhere")}
    assert "No such file" in mqttls(pki, "revoke", "kitchen", env=none, code=1).err
    said = mqttls(pki, "revoke", "kitchen", env={"MQTTLS_PASSPHRASE_FILE": ""}, code=1)
    assert "no terminal to ask on" in said.err
    assert snapshot(pki) == before
    right = secret(tmp_path, "correct horse\n")
    mqttls(pki, "renew", "--ca", env=right)
    for key in [pki / "ca.key", *(pki / "ca").glob("*.key")]:
        assert b"ENCRYPTED" in key.read_bytes()
    mqttls(pki, "revoke", "kitchen", env=right)


def test_a_passphrase_is_typed_twice_and_not_shown(tmp_path):
    pki = tmp_path / "mqtt-pki"
    command = [*INIT, "--encrypt-ca", "--dir", pki]
    for end in "\x04", "\x03":  # Ctrl-D, Ctrl-C
        status, text = typing(command, end)
        assert status == 130 and text.endswith("mqttls: interrupted\n"), text
    status, text = typing(command, "sesame open up", "sesamy open up")
    assert status == 1 and "the two passphrases differ" in text
    assert not pki.exists()
    status, text = typing(command, "sesame open up", "sesame open up")
    assert status == 0 and "sesame" not in text, text
    status, text = typing(["device", "add", "kitchen", "--dir", pki], "sesame open up")
    assert status == 0 and (pki / "devices/kitchen/key.der").exists(), text


def test_no_option_takes_a_passphrase():
    for command in ("init", "use", "renew", "revoke", "device add", "broker-conf", "doctor"):
        said = mqttls(None, *command.split(), "--help").out
        for each in ("--password-file FILE", "--passphrase-file FILE"):  # which hold one
            said = said.replace(each, "")
        assert "--pass" not in said


# Disks


def test_a_read_only_folder_is_said_and_status_still_works(pki):
    mqttls(pki, "device", "add", "kitchen")
    before = snapshot(pki)
    pki.chmod(0o500)
    try:
        said = mqttls(pki, "device", "add", "cellar", code=1, wrapper=without_root())
        assert f"{pki}/.new: Permission denied" in said.err and "cure:" in said.err
        status = mqttls(pki, "status", wrapper=without_root())
        assert "kitchen" in status.out
    finally:
        pki.chmod(0o700)
    assert snapshot(pki) == before


def test_a_folder_that_cannot_be_made_is_said(tmp_path):
    tmp_path.chmod(0o500)
    try:
        said = mqttls(tmp_path / "new", *INIT, code=1, wrapper=without_root())
        assert f"{tmp_path}/new: Permission denied" in said.err
    finally:
        tmp_path.chmod(0o700)
    said = mqttls(tmp_path / "no" / "such", *INIT, code=1)
    assert "No such file or directory" in said.err


def test_a_limit_on_the_size_of_files_leaves_nothing_behind(tmp_path, pki):
    before = snapshot(pki)
    limited = ["sh", "-c", 'ulimit -f 0; exec "$0" "$@"']
    said = mqttls(pki, "device", "add", "kitchen", code=1, wrapper=limited)
    assert "File too large" in said.err and "ulimit -f" in said.err
    assert snapshot(pki) == before
    fresh = tmp_path / "fresh"
    assert "File too large" in mqttls(fresh, *INIT, code=1, wrapper=limited).err
    assert not fresh.exists()


@pytest.fixture
def small_disk(tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1200k", "none", str(disk)]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("no right to mount a small disk")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_leaves_nothing_half_written(small_disk):
    pki = small_disk / "mqtt-pki"
    mqttls(pki, *INIT)
    names = [f"board{number:02}" for number in range(60)]
    said = mqttls(pki, "device", "add", *names, code=1)
    assert "No space left on device" in said.err and "make room" in said.err
    assert [each.name for each in pki.glob(".*")] == [".lock"]
    made = files.Directory(pki).devices()
    status = mqttls(pki, "status", "--json").json
    assert status["problems"] == [] and len(status["devices"]) == len(made)
    assert 0 < len(made) < 60
    filler = small_disk / "filler"
    with pytest.raises(OSError), filler.open("wb") as file:
        while True:
            file.write(bytes(1000))
            file.flush()
    before = snapshot(pki)
    for command in (["renew", "--all"], ["renew", "--ca"], ["revoke", *made], ["broker-conf"]):
        assert "No space left" in mqttls(pki, *command, code=1).err
        assert snapshot(pki) == before
    filler.unlink()
    mqttls(pki, "renew", made[0])


# Two at once


def test_two_runs_at_once_wait_for_each_other(pki):
    command = [sys.executable, "-m", "tools.mqttls", "device", "add"]
    runs = [
        subprocess.Popen(
            [*command, *(f"board{number}-{each}" for each in range(40)), "--dir", pki],
            cwd=mpy.ROOT,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        for number in range(3)
    ]
    for each in runs:
        _, err = each.communicate(timeout=patience.stretched(60))
        assert each.returncode == 0, err
    status = mqttls(pki, "status", "--json").json
    assert len(status["devices"]) == 120 and status["problems"] == []


def test_a_run_gives_up_when_another_never_ends(pki):
    with files.Directory.opened(pki):
        child = subprocess.Popen(
            [
                *(sys.executable, "-c"),
                "import sys; from tools.mqttls import cli, files; files.LOCK_WAIT_S = 0.3; "
                "sys.exit(cli.main(sys.argv[1:]))",
                *("revoke", "kitchen", "--dir", pki),
            ],
            cwd=mpy.ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        _, err = child.communicate(timeout=patience.stretched(30))
    assert child.returncode == 1
    assert "another mqttls has been working in" in err


# Fleets


def csv_file(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "fleet.csv"
    path.write_bytes(text.encode(encoding))
    return path


def test_every_bad_row_is_told_with_its_line_and_nothing_is_made(tmp_path, pki):
    path = csv_file(
        tmp_path,
        "name,host,port\n"
        "kitchen,broker.lan,8883\n"
        "\n"
        "# a comment\n"
        "bad/name,,\n"
        "Kitchen,,\n"
        "cellar,garden.lan,\n"
        "attic,,70000\n"
        ",broker.lan,\n"
        "a,b,1,too,many\n"
        f"{'x' * 65},,\n"
        "..,,x\n"
        '"two\nlines",,\n'
        "good,127.0.0.1,8884\n"
        f"shed,,{'9' * 5000}\n",
    )
    before = snapshot(pki)
    said = mqttls(pki, "device", "add", "--csv", path, code=1).err
    assert "has 11 mistakes, nothing was made" in said
    lines = [line.strip() for line in said.splitlines()[1:-1]]
    assert [int(line.split(":")[0].split()[1]) for line in lines] == [
        *(5, 6, 7, 8, 9, 10, 11, 12, 12, 14, 16),
    ]
    assert "'bad/name' cannot be a device's name" in lines[0]
    assert "'Kitchen' is there already, in line 2" in lines[1]
    assert "the broker's certificate is not for 'garden.lan'" in lines[2]
    assert "'70000' is not a port" in lines[3]
    assert lines[4] == "line 9: no name"
    assert "5 fields, but 3 columns" in lines[5]
    assert snapshot(pki) == before


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "names no device"),
        ("name,port\n", "names no device"),
        ("name,wifi\nkitchen,x\n", "line 1: unknown column 'wifi'"),
        ("kitchen\x00\n", "line 1:"),
        ("kitchen\n'''\n", "line 2:"),
    ],
)
def test_a_file_that_is_no_fleet_is_refused(tmp_path, pki, text, says):
    said = mqttls(pki, "device", "add", "--csv", csv_file(tmp_path, text), code=1)
    assert says in said.err and "Traceback" not in said.err
    assert not (pki / "devices").exists()


def test_a_file_in_another_encoding_or_not_there_is_refused(tmp_path, pki):
    path = csv_file(tmp_path, "küche\n", "latin-1")
    assert "is not UTF-8 (byte 1)" in mqttls(pki, "device", "add", "--csv", path, code=1).err
    nowhere = tmp_path / "nowhere.csv"
    assert "No such file" in mqttls(pki, "device", "add", "--csv", nowhere, code=1).err


@pytest.mark.parametrize(
    "text",
    [
        "kitchen\ncellar\n",
        "name\r\nkitchen\r\ncellar\r\n",
        "\ufeffname;port\nkitchen;\ncellar;8883\n",
        'port, name\n , "kitchen"\n8883, cellar',
    ],
)
def test_files_as_spreadsheets_write_them_are_read(tmp_path, pki, text):
    path = csv_file(tmp_path, text)
    found = mqttls(pki, "device", "add", "--csv", path, "--json").json
    assert found["added"] == ["kitchen", "cellar"]


def test_a_host_and_port_of_a_row_go_into_the_board_s_settings(tmp_path, pki):
    path = csv_file(tmp_path, "name,host,port\nkitchen,broker.lan,8884\ncellar,,\n")
    mqttls(pki, "device", "add", "--csv", path)
    kitchen = json.loads((pki / "devices/kitchen/tls.json").read_text())
    assert (kitchen["host"], kitchen["port"]) == ("broker.lan", 8884)
    assert kitchen["server_hostname"] == "broker.lan"
    cellar = json.loads((pki / "devices/cellar/tls.json").read_text())
    assert (cellar["host"], cellar["port"]) == ("127.0.0.1", 8883)
    path = csv_file(tmp_path, "name,host,port\nkitchen,broker.lan,8885\ncellar,,\n")
    found = mqttls(pki, "device", "add", "--csv", path, "--json").json
    assert (found["kept"], found["moved"]) == (["kitchen", "cellar"], ["kitchen"])
    mqttls(pki, "renew", "kitchen")
    assert json.loads((pki / "devices/kitchen/tls.json").read_text())["port"] == 8885


@pytest.mark.parametrize(
    "command",
    [
        ("device", "add", "--csv"),
        ("broker-conf", "--acl-file"),
        ("provision", "kitchen", "--wifi-ssid", "x", "--wifi-password-file"),
    ],
    ids=" ".join,
)
def test_a_file_without_an_end_is_not_read_to_it(command, pki, tmp_path):
    large = tmp_path / "large"
    write_secret(large, "")
    with large.open("wb") as file:
        file.truncate(given.LARGEST + 1)
    mqttls(pki, "device", "add", "kitchen")
    said = mqttls(pki, *command, large, code=1)
    assert f"{large} has more than 16 MB" in said.out + said.err


def test_a_thousand_devices_come_with_a_progress_bar(tmp_path, pki):
    path = csv_file(tmp_path, "name\n" + "".join(f"board{each:04}\n" for each in range(1000)))
    started = time.monotonic()
    status, text = typing(["device", "add", "--csv", path, "--dir", pki])
    assert status == 0, text
    assert "/1000 board0" in text and "[###" in text
    assert "1000 devices in all" in text
    assert len(files.Directory(pki).devices()) == 1000
    print(f"{time.monotonic() - started:.1f} s")
    found = mqttls(pki, "device", "add", "--csv", path, "--json").json
    assert found["added"] == [] and len(found["kept"]) == 1000


def test_what_another_run_takes_away_while_the_folder_is_looked_at_is_no_fault(pki, monkeypatch):
    real = os.scandir

    def scandir(path):
        if os.path.basename(path) == ".new":
            monkeypatch.undo()
            shutil.rmtree(path)
        return real(path)

    (pki / ".new" / "tree").mkdir(parents=True)
    monkeypatch.setattr(os, "scandir", scandir)
    guard.check_folder(str(pki))
    assert not (pki / ".new").exists()
    with pytest.raises(FileNotFoundError):
        guard.check_folder(str(pki / "nowhere"))
