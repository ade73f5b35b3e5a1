"""
A folder of certificates from somebody else, or where others can write, is not acted in; nothing
outside of it is ever touched.
"""

import importlib
import json
import os
import shutil
import sys

import pytest

from tests.support.mpy import ROOT
from tests.support.tool import NOBODY, give_nobody_rights, in_here, init, open_folder
from tools.mqttls import cli, files
from tools.mqttls.messages import Failure

COMMANDS = (
    ["status"],
    ["device", "add", "attic"],
    ["device", "list"],
    ["renew", "--all"],
    ["renew", "--ca"],
    ["revoke", "kitchen"],
    ["broker-conf"],
    ["provision", "kitchen"],
    ["doctor"],
    ["doctor", "127.0.0.1:1", "--device", "kitchen"],
    ["init", "--broker", "127.0.0.1"],
)
only_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made") / "mqtt-pki"
    init(folder, run=in_here)
    in_here(folder, "device", "add", "kitchen")
    return folder


@pytest.fixture
def pki(made, tmp_path):
    return shutil.copytree(made, tmp_path / "mqtt-pki")


@pytest.fixture
def home(tmp_path):
    """What somebody wants to change: the folder of a user."""
    folder = tmp_path / "home"
    folder.mkdir()
    (folder / ".bashrc").write_text("as before")
    (folder / "precious.txt").write_text("precious")
    yield folder
    assert sorted(each.name for each in folder.rglob("*")) == [".bashrc", "precious.txt"]
    assert (folder / ".bashrc").read_text() == "as before"
    assert (folder / "precious.txt").read_text() == "precious"


def says(capsys, folder, *command, code=1):
    capsys.readouterr()
    assert cli.main([*command, "--dir", str(folder)]) == code
    said = "".join(capsys.readouterr())
    assert "Traceback" not in said
    return said


def change(pki, removals=(), **tree):
    """Put a change that was begun into the folder."""
    for path, text in tree.items():
        place = pki / ".commit/tree" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)
    if removals:
        (pki / ".commit").mkdir(exist_ok=True)
        (pki / ".commit/remove.json").write_text(json.dumps(list(removals)))


# Links


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_link_out_of_the_folder_is_followed_by_no_command(capsys, pki, home, command):
    (pki / "x").symlink_to(home)
    change(pki, **{"x/.bashrc": "echo PWNED"})
    assert f"mqtt-pki/x is a link, to {home}" in says(capsys, pki, *command)


@pytest.mark.parametrize("name", ["broker", "archive", "ca", "devices", ".commit", ".new", "y/z"])
def test_wherever_the_link_is(capsys, pki, home, name):
    place = pki / name
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(exist_ok=True)
    place.symlink_to(home)
    assert "is a link, to" in says(capsys, pki, "renew", "--all")


@pytest.mark.parametrize("file", ["settings.json", "ca.key", ".lock", "devices/kitchen/key.der"])
def test_a_file_that_is_a_link_is_not_read_and_not_written(capsys, pki, home, file):
    (pki / file).unlink(missing_ok=True)
    (pki / file).symlink_to(home / "precious.txt")
    assert "is a link, to" in says(capsys, pki, "provision", "kitchen")
    assert "precious\n" not in says(capsys, pki, "status")


def test_the_lock_does_not_empty_a_file_that_has_another_name(capsys, pki, home):
    (pki / ".lock").unlink()
    os.link(home / "precious.txt", pki / ".lock")
    assert ".lock is another name of a file" in says(capsys, pki, "status")


def test_what_is_no_file_is_refused(capsys, pki):
    os.mkfifo(pki / "acl.own")  # a read of it would wait for ever
    assert "acl.own is neither a file nor a folder" in says(capsys, pki, "status")


# Changes that somebody else began


@pytest.mark.parametrize(
    "path", ["ABSOLUTE", "../home/precious.txt", "broker/../../home", ".lock"]
)
def test_a_change_takes_nothing_away_outside(capsys, pki, home, path):
    path = str(home / "precious.txt") if path == "ABSOLUTE" else path
    change(pki, ["broker/acl", path])
    assert "a change that was begun in this folder is none of mqttls" in says(
        capsys, pki, "status"
    )
    assert (pki / ".lock").exists()


def test_a_change_makes_nothing_hidden(capsys, pki):
    change(pki, **{"broker/.bashrc": "echo PWNED"})
    assert "it names 'broker/.bashrc'" in says(capsys, pki, "status")
    assert not (pki / "broker/.bashrc").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "a/../../x", ".x", "a//b", "", "a\nb"])
def test_the_tool_itself_cannot_write_elsewhere(pki, path):
    with (
        pytest.raises(Failure, match="none of mqttls"),
        files.Directory.opened(pki) as directory,
        directory.change() as one,
    ):
        one.put(path, b"")
    assert not (pki / ".new").exists()


def test_files_of_a_device_are_its_own(capsys, pki, home):
    path = pki / "devices/kitchen/tls.json"
    for name in (str(home / "precious.txt"), "../../ca.key", "../kitchen/key.der", ""):
        for key in ("key", "ca"):
            tls = json.loads(path.read_text())
            tls[key] = [name] if key == "ca" else name
            if not name and key == "key":
                continue  # it has none
            path.write_text(json.dumps(tls))
            for command in (
                ["provision", "kitchen"],
                ["doctor", "127.0.0.1:1", "--device", "kitchen"],
                ["doctor"],
            ):
                said = says(capsys, pki, *command)
                assert "mqttls device add kitchen" in said, (name, said)
                assert "precious\n" not in said
            says(capsys, pki, "device", "add", "kitchen", "attic", code=0)


# Places where others can write


@only_root
@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_a_folder_of_another_user_is_left_alone(capsys, pki, command):
    for path in [pki, *pki.rglob("*")]:
        os.chown(path, NOBODY, NOBODY)
    change(pki, ["broker/acl"])
    said = says(capsys, pki, *command)
    assert f"{pki} belongs to nobody, not to root" in said and "chown -R root" in said
    assert (pki / "broker/acl").exists()


@only_root
def test_a_file_of_another_user_in_it_is_refused(capsys, pki):
    os.chown(pki / "broker/acl", NOBODY, NOBODY)
    assert "broker/acl belongs to nobody" in says(capsys, pki, "status")


@pytest.mark.parametrize("mode", [0o777, 0o722, 0o702, 0o1777])
def test_a_folder_in_which_others_can_write_is_refused(capsys, pki, mode):
    pki.chmod(mode)
    said = says(capsys, pki, "status")
    if mode == 0o722:  # the group of root is its own
        pki.chmod(0o702)
        said = says(capsys, pki, "status")
    assert f"others can write to {pki}" in said and f"chmod -R go-w {pki}" in said


def test_a_folder_below_it_in_which_others_can_write_is_refused(capsys, pki):
    (pki / "devices").chmod(0o707)
    says(capsys, pki, "status", code=0)  # nobody comes there
    pki.chmod(0o755)
    assert f"others can write to {pki}/devices" in says(capsys, pki, "status")


@pytest.mark.parametrize("command", [["status"], ["init", "--broker", "127.0.0.1"]])
def test_a_folder_above_it_in_which_others_can_write_is_refused(capsys, pki, command):
    above = pki.parent / "open"
    above.mkdir()
    (above / "own").mkdir()
    folder = above / "own/mqtt-pki"
    if command == ["status"]:
        shutil.move(pki, folder)
    above.chmod(0o777)
    said = says(capsys, folder, *command)
    assert f"{folder} lies in {above}, in which others can write" in said
    assert folder.exists() == (command == ["status"])
    above.chmod(0o1777)  # as /tmp
    says(capsys, folder, *command, code=0)


@only_root
def test_a_folder_above_it_of_another_user_is_refused(capsys, pki):
    above = pki.parent / "theirs"
    above.mkdir()
    shutil.move(pki, above / "mqtt-pki")
    os.chown(above, NOBODY, NOBODY)
    said = says(capsys, above / "mqtt-pki", "status")
    assert f"lies in {above}, which belongs to nobody" in said


@only_root
def test_a_link_of_another_user_to_it_is_refused_and_ones_own_is_not(capsys, pki):
    link = pki.parent / "link"
    link.symlink_to(pki)
    says(capsys, link, "status", code=0)
    os.lchown(link, NOBODY, NOBODY)
    assert f"{link} belongs to nobody" in says(capsys, link, "status")


@only_root
@pytest.mark.parametrize("way", ["on/..", "two", "three/made"])
def test_a_link_of_another_user_anywhere_on_the_way_is_refused(capsys, pki, way):
    """Who owns one could have it lead elsewhere between a look and a use."""
    public, below = pki.parent / "public", pki.parent / "below"
    below.mkdir()
    shutil.move(pki, below / "made")
    public.mkdir()
    public.chmod(0o1777)  # as /tmp
    if way == "on/..":  # the system goes to the parent of where it leads
        link, start, way = public / "on", public, "on/../made"
        link.symlink_to(below / "made")
    else:  # behind a link of one's own
        link, start = public / "link", pki.parent
        link.symlink_to(below / "made" if way == "two" else below)
        (start / way.partition("/")[0]).symlink_to(link)
    says(capsys, start / way, "status", code=0)
    os.lchown(link, NOBODY, NOBODY)
    assert f"{link} belongs to nobody" in says(capsys, f"{start}/{way}", "status")
    assert f"{link} belongs to nobody" in says(
        capsys, f"{start}/{way}", "init", "--broker", "127.0.0.1"
    )


@only_root
def test_rights_by_a_list_are_seen(capsys, pki):
    give_nobody_rights(pki)
    said = says(capsys, pki, "status")
    assert f"others can write to {pki}" in said and f"chmod -R go-w {pki}" in said
    pki.chmod(0o700)
    says(capsys, pki, "status", code=0)
    above = pki.parent
    mode = above.stat().st_mode & 0o7777
    give_nobody_rights(above)
    assert f"{pki} lies in {above}, in which others can write" in says(capsys, pki, "status")
    above.chmod(mode)
    says(capsys, pki, "status", code=0)


@only_root
def test_an_ordinary_user_acts_in_a_folder_of_their_own(made):
    with open_folder() as base:
        pki = shutil.copytree(made, base / "mqtt-pki")
        for path in [base, *base.rglob("*")]:
            os.chown(path, NOBODY, NOBODY)
        # that user may not be able to read where this clone is, nor the packages that it has
        for each in ("tools", "mqtt_as_tls"):
            shutil.copytree(ROOT / each, base / each)
        in_here(made, "status")
        child = os.fork()
        if child == 0:
            status = 9
            try:
                os.setgroups([])
                os.setgid(NOBODY)
                os.setuid(NOBODY)
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                for name in list(sys.modules):
                    if name.partition(".")[0] in ("tools", "mqtt_as_tls"):
                        del sys.modules[name]
                sys.path.insert(0, str(base))
                its = importlib.import_module("tools.mqttls.cli")
                status = its.main(["status", "--dir", str(pki)])
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


# Names that would become lines of a configuration


@pytest.mark.parametrize(
    "value", ["fe80::1%eth0", "fe80::1%a\nlistener 1883", "::1%", "127.0.0.1\nuser root"]
)
@pytest.mark.parametrize("option", ["--bind", "--broker"])
def test_an_address_brings_nothing_along(capsys, tmp_path, option, value):
    more = [] if option == "--broker" else ["--broker", "127.0.0.1"]
    says(capsys, tmp_path / "pki", "init", *more, option, value, code=2)
    assert not (tmp_path / "pki").exists()


def test_the_path_of_the_folder_brings_nothing_along(capsys, tmp_path):
    folder = tmp_path / "a\nlistener 1883 0.0.0.0\nallow_anonymous true"
    folder.mkdir()
    for path in (folder, folder / "pki"):
        said = says(capsys, path, "init", "--broker", "127.0.0.1")
        assert "characters in its name that cannot be printed" in said
        assert "\nlistener" not in said
    assert not list(folder.iterdir())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("bind", "127.0.0.1\nlistener 1883"),
        ("bind", "::1%\nlistener 1883"),
        ("bind", ""),
        ("names", []),
        ("names", ["a\nb"]),
        ("names", ["Broker.LAN"]),
        ("admins", ["x\ntopic #"]),
        ("admins", ["../x"]),
        ("port", 70000),
        ("port", True),
        ("key", "none"),
        ("days", {"broker": 0, "device": 1}),
        ("days", {"broker": 10**9, "device": 1}),
        ("limits", [1]),
        ("limits", {"max_connections": -1}),
        ("limits", {"max_connections": True}),
        ("limits", {"memory_limit": 10**30}),
        ("limits", {"memory_limit": "1"}),
        ("limits", {"memory_limit=1\nuser": 1}),
        ("limits", {"listener": 1883}),
        ("topics", {"x\ny": []}),
        ("topics", {"x": ["readwrite a\nuser b"]}),
    ],
)
def test_settings_of_somebody_else_write_no_configuration(capsys, pki, key, value):
    path, before = pki / "settings.json", (pki / "broker/mosquitto.conf").read_bytes()
    path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
    for command in (["broker-conf"], ["status"], ["device", "add", "x"], ["renew", "--broker"]):
        assert "settings.json is damaged: `" in says(capsys, pki, *command)
    assert (pki / "broker/mosquitto.conf").read_bytes() == before
