"""
mqttls killed at every step: nothing half-written, and the next run finishes or undoes.

A child process runs a command and kills itself with SIGKILL before its nth step; a step is a file
opened for writing, a folder made, a rename, a removal, a sync. That goes on until a child lives.
"""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support import mpy
from tests.support.tool import mqttls
from tools.mqttls import certificates, cli

STEPS = ("os.mkdir", "os.rename", "os.remove", "os.rmdir")


def killed_before(step, arguments):
    """
    Run the command line in a child that kills itself before step `step`; return whether it did.
    """
    child = os.fork()
    if child == 0:
        count = 0

        def watch(event, details):
            nonlocal count
            writes = event == "open" and details[2] & (os.O_WRONLY | os.O_RDWR)
            if not writes and event not in STEPS:
                return
            if count == step:
                os.kill(os.getpid(), signal.SIGKILL)
            count += 1

        status = 1
        try:
            sys.addaudithook(watch)
            with contextlib.redirect_stdout(io.StringIO()):
                status = cli.main(arguments)
        finally:
            os._exit(status)
    _, how = os.waitpid(child, 0)
    if os.WIFSIGNALED(how):
        return True
    assert os.WEXITSTATUS(how) == 0
    return False


def run(*arguments):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = cli.main([*arguments, "--json"])
    return status, json.loads(out.getvalue())


def whole_files(folder):
    """Every file that is at its place is whole, and so are the folders of devices."""
    for path in folder.rglob("*"):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            continue
        if path.is_dir():
            assert path.stat().st_mode & 0o777 == 0o700, path
            continue
        assert path.stat().st_mode & 0o077 == 0, path
        if path.suffix == ".crt" or path.name in ("cert.der", "ca.der", "ca2.der"):
            certificates.load_all(path)
        elif path.suffix == ".key" or path.name in ("key.der", "key.pem"):
            certificates.load_key(path)
        elif path.suffix == ".json":
            json.loads(path.read_bytes())
        elif path.name == "crl.pem":
            certificates.load_crls(path)
        else:
            assert path.stat().st_size > 0, path
    for device in (folder / "devices").glob("*"):
        assert {each.name for each in device.iterdir()} >= {"cert.der", "key.der", "tls.json"}


def left_overs(folder):
    return [each for each in folder.rglob(".*") if each != folder / ".lock"]


COMMANDS = {
    "init": [],
    "device add": ["device", "add", "kitchen", "cellar"],
    "renew": ["renew", "--all"],
    "revoke": ["revoke", "kitchen"],
    "roll-over": ["renew", "--ca"],
    "its end": ["renew", "--ca", "--finish", "--force"],
    "passwords": ["broker-conf", "--server-only"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_killed_at_every_step_nothing_is_half_written(tmp_path, name):
    start = tmp_path / "start"
    init = ["init", "--broker", "127.0.0.1", "--dir"]
    if name != "init":
        assert cli.main([*init, str(start)]) == 0
    if name not in ("init", "device add"):
        assert cli.main(["device", "add", "kitchen", "cellar", "--dir", str(start)]) == 0
    if name == "its end":
        assert cli.main(["renew", "--ca", "--dir", str(start)]) == 0
    folder = tmp_path / "pki"
    common = ["--dir", str(folder)]
    command = [*init, str(folder)] if name == "init" else [*COMMANDS[name], *common]
    step = 0
    while True:
        shutil.rmtree(folder, ignore_errors=True)
        if start.exists():
            shutil.copytree(start, folder)
        died = killed_before(step, command)
        if folder.exists():
            whole_files(folder)
        # the next command, whichever, puts things right: all of the change is there, or nothing
        if name == "init":
            assert run(*command)[0] == 0
        status, found = run("status", *common)
        assert status == 0, (step, found["problems"])
        assert not left_overs(folder)
        whole_files(folder)
        if not died:
            break
        step += 1
    assert step > 8


def test_killed_at_random_moments_a_fleet_is_finished_by_the_next_run(tmp_path):
    folder = tmp_path / "pki"
    mqttls(folder, "init", "--broker", "127.0.0.1")
    names = [f"board{number}" for number in range(200)]
    command = [sys.executable, "-m", "tools.mqttls", "device", "add", *names, "--dir", folder]
    for _ in range(6):
        child = subprocess.Popen(command, cwd=mpy.ROOT, stdout=subprocess.DEVNULL)
        time.sleep(0.3 + random.random() * 0.5)
        child.kill()
        child.wait()
        whole_files(folder)
    assert mqttls(folder, "device", "add", *names).code == 0
    status = mqttls(folder, "status", "--json").json
    assert [each["name"] for each in status["devices"]] == sorted(names)
    assert not left_overs(folder)
