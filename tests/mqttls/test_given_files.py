"""Whatever a file that the user names is in truth, nothing waits for it or fills the memory."""

import argparse
import os
import shlex
import subprocess
import threading

import pytest

from tests.support import mpy, process
from tests.support.tool import MQTTLS, in_here, init, write_secret
from tools.mqttls import cli, given
from tools.mqttls.messages import Failure

# every option that names a file, and the command up to it
COMMANDS = {
    ("broker-conf", "--acl-file"): (),
    ("device", "--csv"): ("add",),
    ("device", "--cert"): ("add", "kitchen", "--key", "KEY"),
    ("device", "--key"): ("add", "kitchen", "--cert", "CERT"),
    ("device", "--pfx"): ("add", "kitchen"),
    ("device", "--password-file"): ("add", "kitchen", "--user", "me"),
    ("device", "--passphrase-file"): ("add", "kitchen", "--pfx", "PFX"),
    ("doctor", "--conf"): (),
    ("doctor", "--log"): (),
    ("doctor", "--ca"): (),
    ("doctor", "--cert"): ("--key", "KEY"),
    ("doctor", "--key"): ("--cert", "CERT"),
    ("doctor", "--password-file"): ("127.0.0.1:1", "--user", "me"),
    ("provision", "--wifi-password-file"): ("kitchen", "--wifi-ssid", "x"),
    ("revoke", "--cert"): (),
    ("use", "--ca"): ("127.0.0.1:1",),
    ("use", "--cert"): ("127.0.0.1:1", "--ca", "CA", "--key", "KEY"),
    ("use", "--key"): ("127.0.0.1:1", "--ca", "CA", "--cert", "CERT"),
    ("use", "--pfx"): ("127.0.0.1:1", "--ca", "CA"),
    ("use", "--password-file"): ("127.0.0.1:1", "--ca", "CA", "--user", "me"),
    ("use", "--passphrase-file"): ("127.0.0.1:1", "--ca", "CA", "--pfx", "PFX"),
}
KINDS = ("a pipe", "a device", "a folder", "too large")
CASES = [(kind, what) for kind in KINDS for what in sorted(COMMANDS)]
CASES.remove(("too large", ("doctor", "--log")))  # its end is read, however long it is


def options():
    """Return (command, option) of all options of the command line that name a file."""
    found = set()

    def look(name, parser):
        for action in parser._actions:
            if action.metavar == "FILE":
                found.add((name, action.option_strings[0]))
            if isinstance(action, argparse._SubParsersAction):
                for below, each in action.choices.items():
                    look(name or below, each)

    look("", cli.make_parser())
    return found


def test_every_option_that_names_a_file_is_here():
    assert options() == set(COMMANDS)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """{"own", "foreign": a folder of mqttls, and what stands for words in COMMANDS}."""
    top = tmp_path_factory.mktemp("made")
    init(top / "own", run=in_here)
    in_here(top / "own", "device", "add", "kitchen")
    at = top / "own/devices/kitchen"
    found = {"own": top / "own", "foreign": top / "foreign"}
    found |= {"CA": at / "ca.crt", "CERT": at / "cert.crt", "KEY": at / "key.pem"}
    found["PFX"] = top / "kitchen.pfx"
    subprocess.run(
        ["openssl", "pkcs12", "-export", "-in", found["CERT"], "-inkey", found["KEY"]]
        + ["-passout", "pass:abc", "-out", found["PFX"]],
        check=True,
        capture_output=True,
    )
    in_here(top / "foreign", "use", "127.0.0.1:1", "--ca", found["CA"])
    return found


def _id(each):
    return each if isinstance(each, str) else " ".join(each)


def odd(kind, folder):
    """Return a path (str) of that kind, and what is said of it."""
    path = folder / "odd"
    if kind == "a pipe":
        os.mkfifo(path, 0o600)
        return str(path), "is a pipe"
    if kind == "a device":
        return "/dev/zero", "is a device"
    if kind == "a folder":
        path.mkdir()
        return str(path), "is a folder"
    write_secret(path, "")
    os.truncate(path, given.LARGEST + 1)
    return str(path), "has more than"


@pytest.mark.parametrize(("kind", "what"), CASES, ids=_id)
def test_it_is_told_and_nothing_waits(kind, what, made, tmp_path):
    path, says = odd(kind, tmp_path)
    name, option = what
    words = [made.get(each, each) for each in COMMANDS[what]]
    is_foreign = name == "use" or (name == "device" and option != "--csv")
    said = in_here(made["foreign" if is_foreign else "own"], name, *words, option, path, code=1)
    assert f"{path} {says}" in said


# Pipes that are meant


@pytest.fixture
def pipe():
    """(path of its reading end, the number of its writing end)."""
    ours, theirs = os.pipe()
    with open(ours, "rb"), open(theirs, "wb") as writing:
        yield f"/dev/fd/{ours}", writing


def test_what_a_program_writes_is_read_as_of_a_file(pipe):
    path, writing = pipe
    data = os.urandom(300_000)  # more than a pipe holds at a time

    def write():
        writing.write(data)
        writing.close()

    writer = threading.Thread(target=write)
    writer.start()
    assert given.read(path) == data
    writer.join()


def test_one_that_is_never_closed_is_left(pipe, monkeypatch):
    monkeypatch.setattr(given, "_PIPE_S", 0.2)
    path, writing = pipe
    os.write(writing.fileno(), b"begin")
    with pytest.raises(Failure, match="is a pipe that was not closed within"):
        given.read(path)


def test_one_that_has_no_end_is_left_at_the_bound(pipe):
    path, writing = pipe
    child = process.spawn(["cat", "/dev/zero"], stdin=process.NULL, stdout=writing)
    try:
        with pytest.raises(Failure, match="has more than 1 MB"):
            given.read(path, 1 << 20)
    finally:
        process.end(child)


def test_a_passphrase_may_come_from_a_program(made):
    words = ["device", "add", "kitchen", "--pfx", made["PFX"], "--dir", made["foreign"]]
    line = f"{shlex.join(map(str, [*MQTTLS, *words]))} --passphrase-file <(echo abc)"
    done = subprocess.run(["bash", "-c", line], cwd=mpy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
