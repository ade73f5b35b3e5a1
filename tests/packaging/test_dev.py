"""`./dev` where something is missing: as root, as anybody, on Windows; and what it leaves."""

import hashlib
import importlib.machinery
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest

from tests.support import windows
from tests.support.mpy import ROOT

DPKG_QUERY = """\
shift 3
for name; do grep -qx "$name" {folder}/installed && echo "installed $name"; done
exit 1
"""
APT_GET = """\
echo "apt-get $*" >> {folder}/calls
[ -f {folder}/policy-rc.d ] && echo guarded >> {folder}/calls
case "$*" in *update) exit ;; esac
[ -f {folder}/offline ] && exit 100
while [ "$1" != install ]; do shift; done
for name; do case "$name" in -*|install) ;; *)
    echo "$name" >> {folder}/installed
    touch {folder}/units/"$name".service {folder}/bin/"$name" && chmod +x {folder}/bin/"$name"
esac; done
"""
CALLED = """\
echo "$(basename "$0") $*" >> {folder}/calls
"""


class Machine:
    """
    A computer with nothing but a shell and dpkg, in `folder`: `dev` there is the module ./dev of
    a clone of its own.
    """

    def __init__(self, folder, monkeypatch):
        self.folder, self._patch = folder, monkeypatch
        self.clone = folder / "clone"
        self.clone.mkdir()
        shutil.copy(ROOT / "dev", self.clone)
        shutil.copytree(ROOT / "requirements", self.clone / "requirements")
        (folder / "bin").mkdir()
        (folder / "units").mkdir()
        (folder / "installed").write_text("dpkg\n")
        (folder / "calls").touch()
        for name in ("sh", "grep", "touch", "chmod", "basename", "rm", "env"):
            (folder / "bin" / name).symlink_to(shutil.which(name))
        self.has("dpkg-query", DPKG_QUERY)
        self.has("deb-systemd-helper", '[ -n "$DPKG_MAINTSCRIPT_PACKAGE" ] || exit 1\n' + CALLED)
        self.has("update-rc.d")
        monkeypatch.setenv("PATH", str(folder / "bin"))
        loader = importlib.machinery.SourceFileLoader("dev", str(self.clone / "dev"))
        spec = importlib.util.spec_from_loader("dev", loader)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        self.dev = importlib.util.module_from_spec(spec)
        loader.exec_module(self.dev)
        monkeypatch.setattr(self.dev, "PLACES", ())
        monkeypatch.setattr(self.dev, "POLICY", folder / "policy-rc.d")
        monkeypatch.setattr(self.dev, "UNITS", folder / "units")
        monkeypatch.delenv("CI", raising=False)
        self.is_root(False)

    def has(self, program, text=CALLED):
        path = self.folder / "bin" / program
        path.write_text("#!/bin/sh\n" + text.replace("{folder}", str(self.folder)))
        path.chmod(0o755)

    def is_root(self, so):
        """Have it run as root, who has said --yes."""
        self._patch.setattr(os, "geteuid", lambda: 0 if so else 1000)
        self._patch.setenv(self.dev.YES, "yes" if so else "")

    def has_a_venv(self, pip="exit 0"):
        """Make .venv with a Python whose pip is this line of shell."""
        python = self.dev.PYTHON
        python.parent.mkdir(parents=True)
        python.write_text(f'#!/bin/sh\necho "python $*" >> {self.folder}/calls\n{pip}\n')
        python.chmod(0o755)
        self.dev.write(self.dev.STAMP, {"root": str(self.clone)})

    def calls(self):
        return (self.folder / "calls").read_text().splitlines()


@pytest.fixture
def machine(tmp_path, monkeypatch):
    return Machine(tmp_path, monkeypatch)


def packages():
    lines = (ROOT / "requirements/debian.txt").read_text().splitlines()
    return [line for line in lines if line and line[0] not in "#["]


def test_the_list_of_packages_names_each_once_with_a_program_and_a_purpose():
    names = [line.split(None, 2)[0] for line in packages()]
    assert len(names) == len(set(names)) > 10
    assert all(len(line.split(None, 2)) == 3 for line in packages())
    # it stands once
    assert "install" not in (ROOT / ".ci/run").read_text().split("./dev lint")[1]


# What is missing


def test_root_gets_all_that_is_missing_at_once_after_one_update(machine, capsys):
    machine.has("apt-get", APT_GET)
    machine.is_root(True)
    machine.dev.need("broker", "tests")
    update, guarded, install, guarded_too = machine.calls()[:4]
    assert update.endswith(" update")
    assert guarded == guarded_too == "guarded", "their services could start"
    assert install.split(" --no-install-recommends ")[1].split()[:2] == [
        "mosquitto",
        "mosquitto-clients",
    ]
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 or "their services are off" in said[1]
    assert said[0].startswith("installing with apt-get: mosquitto (the broker); mosquitto-clients")
    assert "iproute2 (networks that are cut)" in said[0]
    machine.dev.need("broker", "tests")
    assert sum(call.endswith("update") for call in machine.calls()) == 1


@pytest.mark.parametrize("answer", [None, "", "n", "yes\n", "y\n"])
def test_root_is_asked_before_anything_is_installed(machine, capsys, monkeypatch, answer):
    machine.has("apt-get", APT_GET)
    machine.is_root(True)
    monkeypatch.setenv(machine.dev.YES, "")
    for stream in (sys.stdin, sys.stderr):
        monkeypatch.setattr(stream, "isatty", lambda: answer is not None)
    monkeypatch.setattr(sys.stdin, "readline", lambda: answer)
    machine.dev.need("broker", then="without")
    said = capsys.readouterr().err
    calls = machine.folder / "calls"
    installs = calls.exists() and "apt-get" in calls.read_text()
    assert installs == (answer in ("yes\n", "y\n"))
    assert installs or "mosquitto" in said and "or let ./dev do it: ./dev --yes" in said
    assert answer is None or "It would install with apt-get: mosquitto (the broker)" in said


@pytest.mark.parametrize("variable", ["CI", "DEV_YES"])
def test_ci_is_not_asked(machine, monkeypatch, variable):
    machine.has("apt-get", APT_GET)
    machine.is_root(True)
    monkeypatch.setenv(machine.dev.YES, "")
    monkeypatch.setenv(variable, "true")
    machine.dev.need("broker", then="without")
    assert any("--no-install-recommends mosquitto" in call for call in machine.calls())


def test_yes_stands_before_the_command(machine, monkeypatch, capsys):
    assert machine.dev.main(["--yes", "--help"]) == 0
    assert os.environ[machine.dev.YES] == "yes"
    assert "./dev --yes COMMAND" in capsys.readouterr().out


def test_every_package_is_pinned_with_its_hashes():
    """Those that packages want, too; and what is written by hand is what was compiled."""
    lists = sorted((ROOT / "requirements").glob("*.in"))
    assert len(lists) == 8
    for path in lists:
        text = path.with_suffix(".txt").read_text().replace("\\\n", " ")
        lines = [line for line in text.splitlines() if line and line[0] != "#"]
        assert all("==" in line and " --hash=sha256:" in line for line in lines), path
        compiled = {line.split()[0].lower() for line in lines}
        for line in path.read_text().splitlines():
            if line and line[0] != "#":
                assert line.lower() in compiled, f"{line}: python tools/pins.py"


def test_pip_takes_nothing_without_its_hash(machine):
    machine.has_a_venv()
    machine.dev.install(machine.dev.TESTS)
    assert "--require-hashes" in machine.calls()[0]


def test_what_a_distribution_has_not_keeps_nothing_else_from_being_installed(machine, capsys):
    machine.has("apt-get", APT_GET)
    machine.has("apt-cache", 'echo " mosquitto | 2.0.18 | archive"; echo "N: nothing else" >&2')
    machine.is_root(True)
    machine.dev.need("broker", "docs", then="without")
    (install,) = [call for call in machine.calls() if "--no-install-recommends" in call]
    assert install.endswith(" --no-install-recommends mosquitto")
    assert "missing: chromium" in capsys.readouterr().err


def test_services_that_came_along_are_switched_off_and_what_was_there_is_left_alone(
    machine, capsys
):
    machine.has("apt-get", APT_GET)
    (machine.folder / "units/epmd.service").touch()  # the user's own
    machine.is_root(True)
    machine.dev.need("broker", "tests")
    off = [call for call in machine.calls() if call.startswith("deb-systemd-helper")]
    assert off == [
        f"deb-systemd-helper disable {name}.service" for name in ("ejabberd", "mosquitto")
    ]
    assert "systemctl enable --now ejabberd mosquitto" in capsys.readouterr().err
    assert not machine.dev.POLICY.exists()


def asked(policy, *words):
    return subprocess.run(["/bin/sh", policy, *words]).returncode


def test_only_what_is_installed_for_the_tests_is_kept_from_starting(machine):
    policy = machine.dev.POLICY
    with machine.dev.services_off():
        assert asked(policy, "mosquitto", "start") == 101
        assert asked(policy, "ejabberd.service", "start") == 101
        assert asked(policy, "cron", "restart") == 0
    assert not policy.exists()


def test_a_rule_whose_owner_was_killed_goes_and_forbids_nothing(machine):
    policy = machine.dev.POLICY
    with machine.dev.services_off():
        dead = subprocess.Popen(["/bin/sh", "-c", "exit"])
        dead.wait()
        policy.write_text(policy.read_text().replace(str(os.getpid()), str(dead.pid)))
        left = policy.read_text()
        assert asked(policy, "mosquitto", "start") == 0
        assert not policy.exists()
    policy.write_text(left)
    with machine.dev.services_off():
        assert asked(policy, "mosquitto", "start") == 101, "what was left took our place"
    assert not policy.exists()


def test_a_rule_of_the_machine_itself_stays(machine):
    machine.dev.POLICY.write_text("#!/bin/sh\nexit 101\n")
    with machine.dev.services_off():
        pass
    assert machine.dev.POLICY.read_text() == "#!/bin/sh\nexit 101\n"


def test_others_are_told_all_that_is_missing_in_one_line_to_copy(machine, capsys):
    machine.has("apt-get", APT_GET)
    machine.dev.need("broker", "firmware", then="without")
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert "sudo apt-get update && sudo apt-get install --no-install-recommends " in said[0]
    names = said[0].split("--no-install-recommends ")[1].split()
    assert names[:2] == ["mosquitto", "gcc-arm-none-eabi"] and "cmake" in names
    assert said[1] == "./dev: going on without"
    assert machine.calls() == []


def test_what_cannot_be_done_without_ends_the_command_before_it_begins(machine):
    machine.has("apt-get", APT_GET)
    with pytest.raises(machine.dev.Failure, match=r"missing: mosquitto \(the broker\); gcc"):
        machine.dev.pico([])
    assert not machine.dev.VENV.exists()


def test_root_without_a_network_is_told_what_to_install(machine):
    machine.has("apt-get", APT_GET)
    (machine.folder / "offline").touch()
    machine.is_root(True)
    with pytest.raises(machine.dev.Failure, match="sudo apt-get update && sudo apt-get install"):
        machine.dev.need("broker")


def test_a_python_without_venv_is_told_with_everything_else(machine, monkeypatch):
    machine.has("apt-get", APT_GET)
    found = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "ensurepip" else found(name)
    )
    words = r"python3\.\d+-venv \(.*mosquitto.*install.*nothing can be run without python3"
    with pytest.raises(machine.dev.Failure, match=words):
        machine.dev.need("broker", then="without")  # nothing goes without a venv


def test_homebrew_is_asked_where_it_is_what_installs(machine):
    (machine.folder / "bin/dpkg-query").unlink()
    machine.has("brew")
    with pytest.raises(machine.dev.Failure, match="brew install mosquitto"):
        machine.dev.need("broker")


def test_elsewhere_what_is_missing_is_named(machine):
    (machine.folder / "bin/dpkg-query").unlink()
    with pytest.raises(
        machine.dev.Failure, match=r"mosquitto \(the broker\): install it; the name"
    ):
        machine.dev.need("broker")


def test_one_dev_waits_for_another_that_installs(machine, capsys):
    machine.has_a_venv()
    with machine.dev.locked():
        waiting = threading.Thread(target=machine.dev.install, args=(machine.dev.TESTS,))
        waiting.start()
        while "waiting for another ./dev" not in capsys.readouterr().err:
            time.sleep(0.01)
        assert machine.calls() == []
    waiting.join()
    assert len(machine.calls()) == 1


def test_a_program_that_was_not_installed_by_a_package_counts(machine):
    machine.has("mosquitto")
    machine.dev.need("broker")


@pytest.mark.parametrize(
    ("version", "wanted"), [("v18.19.0", True), ("v20.1.0", False), ("", True)]
)
def test_node_is_installed_where_it_is_missing_or_older_than_20(machine, version, wanted):
    machine.has_a_venv()
    if version:
        machine.has("npm")
        machine.has("node", f"echo {version}\n")
    machine.dev.find_node()
    assert any("node.txt" in call for call in machine.calls()) is wanted


# .venv


def test_an_optional_package_that_cannot_be_had_is_tried_again_only_after_a_day(machine, capsys):
    machine.has_a_venv(pip="exit 1")
    dev = machine.dev
    assert not dev.install(dev.BROKER, optional=True)
    assert len(machine.calls()) == 1
    capsys.readouterr()
    assert not dev.install(dev.BROKER, optional=True)
    assert len(machine.calls()) == 1
    said = capsys.readouterr().err
    assert "embedded-broker.txt, which could not be had: it is tried again in 24 hours" in said
    failed = json.loads(dev.FAILED.read_text())
    failed[dev.BROKER]["at"] = time.time() - 25 * 3600
    dev.FAILED.write_text(json.dumps(failed))
    assert not dev.install(dev.BROKER, optional=True)
    assert len(machine.calls()) == 2


def test_another_list_is_tried_at_once(machine):
    machine.has_a_venv(pip="exit 1")
    dev = machine.dev
    dev.install(dev.BROKER, optional=True)
    with open(machine.clone / "requirements" / dev.BROKER, "a") as file:
        file.write("another==1\n")
    dev.install(dev.BROKER, optional=True)
    assert len(machine.calls()) == 2


def test_a_list_that_is_needed_fails_every_time(machine):
    machine.has_a_venv(pip="exit 1")
    for _ in range(2):
        with pytest.raises(machine.dev.Failure, match="pip could not install"):
            machine.dev.install(machine.dev.TESTS)
        # begun anew after a failure
        machine.dev.write(machine.dev.STAMP, {"root": str(machine.clone)})


def test_pip_keeps_nothing_in_the_home_folder_and_is_quiet_in_a_file_only(machine, monkeypatch):
    machine.has_a_venv()
    machine.dev.install(machine.dev.TESTS)
    assert "--no-cache-dir" in machine.calls()[0] and "--quiet" in machine.calls()[0]
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    assert "--quiet" not in machine.dev.pip(optional=False)


# What it leaves


def test_clean_deletes_what_dev_made_keeps_keys_and_names_the_packages(machine, capsys):
    machine.has("apt-get", APT_GET)
    machine.is_root(True)
    machine.dev.need("broker")
    machine.has_a_venv()
    kept = ["mqtt-pki/ca.key", "dist/SHA256SUMS", "tools/x.py"]
    gone = [".cache/freeze/x", "build/x", ".pytest_cache/x", "tools/__pycache__/x.pyc"]
    for name in kept + gone:
        path = machine.clone / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    elsewhere = machine.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    (machine.clone / ".ruff_cache").symlink_to(elsewhere)
    capsys.readouterr()
    assert machine.dev.clean([]) == 0
    assert all((machine.clone / name).exists() for name in kept)
    assert not any((machine.clone / name).exists() for name in gone)
    assert not machine.dev.VENV.exists()
    assert (elsewhere / "file").exists() and not (machine.clone / ".ruff_cache").is_symlink()
    said = capsys.readouterr().err
    assert said.count("apt-get autopurge mosquitto\n") == 1
    machine.dev.clean([])  # they are still there, and known
    assert "autopurge mosquitto" in capsys.readouterr().err


def test_clean_waits_for_what_is_being_installed(machine, monkeypatch):
    # what other runs have left is theirs to delete, at the same time too
    monkeypatch.setattr(tempfile, "tempdir", str(machine.folder))
    machine.has_a_venv()
    cleaning = threading.Thread(target=machine.dev.clean, args=([],))
    with machine.dev.locked():
        cleaning.start()
        cleaning.join(0.2)
        assert machine.dev.VENV.exists()
    cleaning.join()
    assert not machine.dev.VENV.exists() and not machine.dev.CACHE.exists()


def test_clean_takes_what_a_killed_test_run_has_left_and_nothing_of_one_that_runs(
    machine, monkeypatch
):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    numbers = (ended.pid, os.getpid(), 10**30, "x")
    killed, *others = [machine.folder / f"mqtt-tests-{each}-abc" for each in numbers]
    for path in killed, *others:
        path.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(machine.folder))
    assert machine.dev.clean([]) == 0
    assert not killed.exists()
    assert all(path.exists() for path in others)


def test_a_run_in_which_all_was_skipped_is_no_success(tmp_path):
    (tmp_path / "test_x.py").write_text("import pytest\ndef test_x(): pytest.skip('no')\n")
    # as a folder of this project has it
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-c", "pyproject.toml", "-p", "tests.conftest", tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done
    assert "nothing was tested" in done.stdout


# Windows

# It has msvcrt; its lock is a stand-in
WINDOWS = """\
import runpy, sys, types
locks = []
sys.modules["msvcrt"] = types.SimpleNamespace(LK_LOCK=1, locking=lambda *what: locks.append(what))
sys.argv[:] = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print("locks", len(locks))
"""


def on_windows(machine, *arguments, code=0, python="exit 0", installed=None):
    """Run ./dev there, with a .venv in which what is called writes into machine.calls()."""
    scripts = machine.dev.VENV / "Scripts"
    if not scripts.exists():
        scripts.mkdir(parents=True)
        for name in ("python.exe", "ruff", "codespell"):
            path = scripts / name
            path.write_text(f'#!/bin/sh\necho "{name} $*" >> {machine.folder}/calls\n{python}\n')
            path.chmod(0o755)
        machine.dev.write(machine.dev.STAMP, {"root": str(machine.clone), **(installed or {})})
    done = subprocess.run(
        [sys.executable, "-c", WINDOWS, machine.clone / "dev", *arguments],
        cwd=machine.folder,
        env=windows.environment(machine.folder),
        capture_output=True,
        text=True,
    )
    assert done.returncode == code, done
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_windows_shows_the_commands(machine):
    assert "./dev mqttls" in on_windows(machine).stdout


def test_windows_runs_the_tool_in_the_callers_folder_and_returns_its_exit_status(machine):
    lists = (machine.clone / "requirements").glob("*.txt")
    installed = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in lists}
    words = ("mqttls", "explain", "x")
    done = on_windows(machine, *words, code=7, python="pwd; exit 7", installed=installed)
    assert str(machine.folder) in done.stdout.splitlines()
    assert machine.calls()[0].endswith(f"{machine.clone / 'dev'} explain x")


def test_windows_lints_with_the_programs_of_its_venv_and_takes_its_own_lock(machine):
    done = on_windows(machine, "lint")
    assert [call.split()[0] for call in machine.calls()] == [
        "python.exe",
        "ruff",
        "ruff",
        "codespell",
    ]
    assert "locks 1" in done.stdout


@pytest.mark.parametrize("command", ["demo", "test", "bench", "freeze", "pico"])
def test_what_takes_linux_says_so_on_windows_and_names_wsl2(machine, command):
    done = on_windows(machine, command, code=1)
    assert f"{command} runs MicroPython, which takes Linux or macOS: open WSL2" in done.stderr
    assert "mqttls, build" in done.stderr
    assert machine.calls() == []


def test_windows_cleans(machine):
    on_windows(machine, "clean")
    assert not Path(machine.dev.VENV).exists()


def test_the_bare_machine_takes_no_folder_that_is_there(tmp_path):
    (tmp_path / "mine").touch()
    line = ["bash", ROOT / "tools/bare_machine.sh", "trixie", tmp_path]
    ran = subprocess.run(line, stderr=subprocess.PIPE, text=True)
    assert ran.returncode == 1 and "is there, and would be deleted" in ran.stderr
    assert (tmp_path / "mine").exists()
