"""What mqttls prints: wrapped and coloured on a terminal, plain in a pipe; commands that work."""

import io
import json
import os
import re
import shlex
import subprocess
import sys

import pytest

from tests.support import mpy
from tests.support.tool import MQTTLS, mqttls, typing
from tools.mqttls import cli, system
from tools.mqttls.messages import VERBS, Failure, command, shell
from tools.mqttls.report import Report
from tools.mqttls.screen import printable

HOSTILE = "evil\x1b]0;x\x07 \x9b31m\u202ename\udcff\nall is well"


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that gives a Report on a terminal of so many columns, and its stream."""

    def make(columns, term="xterm", **options):
        monkeypatch.setenv("COLUMNS", str(columns))
        monkeypatch.setenv("TERM", term)
        out = Terminal()
        return Report(out=out, err=out, **options), out

    monkeypatch.delenv("NO_COLOR", raising=False)
    return make


def on_terminal(folder, *arguments, columns, **env):
    """Run mqttls in `folder` on a terminal; return what it showed (str)."""
    env = {"NO_COLOR": None, "TERM": "xterm-256color", "COLUMNS": str(columns), **env}
    return typing(arguments, cwd=folder, **env)[1]


def test_lines_end_before_the_edge_of_the_terminal_and_keep_their_columns(terminal):
    for columns in (60, 80, 200):
        report, out = terminal(columns, term="dumb")
        report.say("  client certificate  ok      kitchen, until 2036; the broker wants one " * 2)
        report.note("whoever holds the board can read its key and its Wi-Fi password " * 3)
        report.problem("chain", "nobody trusts it " * 9, "it is of another authority " * 5)
        lines = out.getvalue().splitlines()
        assert max(map(len, lines)) < min(columns, 80)
        assert max(map(len, lines)) > min(columns, 80) - 20, "no narrower than need be"
    report, out = terminal(60, term="dumb")
    report.say("  TLS   ok    TLS 1.2, ECDHE-ECDSA-AES256-GCM-SHA384, P-256, and more")
    assert out.getvalue() == (
        "  TLS   ok    TLS 1.2, ECDHE-ECDSA-AES256-GCM-SHA384,\n              P-256, and more\n"
    ), "below its column"


def test_a_command_is_never_broken(terminal):
    report, out = terminal(60, program="./dev mqttls", folder="my files")
    report.problem("", "x " * 20, cure=f"{command('renew', 'kitchen', '--days', '9')}, then again")
    report.next(shell("mosquitto_sub", "--cafile", "a/b c/ca.crt", "-t", "#"), "what passes " * 9)
    lines = re.sub("\x1b\\[\\d+m", "", out.getvalue()).splitlines()
    assert any("./dev mqttls renew kitchen --days 9 --dir 'my files'," in each for each in lines)
    assert "next: mosquitto_sub --cafile 'a/b c/ca.crt' -t '#'" in lines
    assert lines[-1].startswith("      # what passes"), "pasted along, it is a comment"


@pytest.mark.parametrize("quiet", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_are_for_terminals_that_want_them(tmp_path, quiet):
    assert "\x1b[32mmade" in on_terminal(tmp_path, "init", "--broker", "127.0.0.1", columns=80)
    plain = on_terminal(tmp_path, "status", columns=80, **quiet)
    assert "authority" in plain and "\x1b" not in plain
    added = on_terminal(tmp_path, "device", "add", "kitchen", columns=80, TERM="dumb")
    assert "\r" not in added, "no bar where a line cannot be written over"


def test_in_a_pipe_lines_are_whole(tmp_path):
    mqttls(tmp_path, "init", "--broker", "127.0.0.1", env={"COLUMNS": "40", "TERM": "xterm"})
    names = ["kitchen", "cellar"]
    said = mqttls(tmp_path, "device", "add", "--admin", *names, env={"COLUMNS": "40"}).out
    assert "\x1b" not in said
    (line,) = [each for each in said.splitlines() if each.startswith("next: ")]
    assert line.endswith("   # everything that passes") and len(line) > 120


def test_somebody_who_may_see_everything_is_told_how_with_a_password_too(tmp_path):
    mqttls(tmp_path, "init", "--server-only", "--broker", "127.0.0.1")
    said = mqttls(tmp_path, "device", "add", "--admin", "my-pc").out
    (line,) = [each for each in said.splitlines() if each.startswith("next: ")]
    assert " -u my-pc -P PASSWORD -h 127.0.0.1 " in line
    settings = json.loads((tmp_path / "devices/my-pc/tls.json").read_text())
    assert line.endswith("tls.json") and settings["password"] not in said


def test_what_came_from_outside_harms_no_terminal(terminal):
    report, out = terminal(80, term="dumb", folder=HOSTILE)
    report.say(f"  chain  ok  {HOSTILE}")
    report.show(f"first {HOSTILE}")
    report.note(HOSTILE)
    report.made(HOSTILE, HOSTILE)
    report.problem(HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    report.next(command("provision", HOSTILE), HOSTILE)
    report.failed(Failure(HOSTILE, HOSTILE, lines=[HOSTILE]))
    said = out.getvalue()
    assert all(each.isprintable() for each in said.replace("\n", ""))
    fakes = [each for each in said.splitlines() if each.strip() == "all is well"]
    assert len(fakes) == 1, "but for a file that is shown, no line of its own"
    out = io.StringIO()
    report = Report(True, out)
    report.note(HOSTILE)
    report.finish("x", 0)
    (note,) = json.loads(out.getvalue())["notes"]
    assert note == printable(HOSTILE) and note.isprintable() and out.getvalue().isascii()


def test_nobody_outside_can_forge_a_command_or_a_line():
    text = "".join(map(chr, range(0x20))) + "mqttls\x02revoke\x01kitchen\x03\nPROBLEM: none"
    out = io.StringIO()
    report = Report(out=out, program="./dev mqttls")
    report.problem("chain", text)
    assert out.getvalue().count("\n") == 1 and "./dev" not in out.getvalue()
    out = io.StringIO()
    report = Report(True, out, program="./dev mqttls")
    report.failed(Failure(text, lines=["one", text]))
    report.finish("x", 1)
    fact = json.loads(out.getvalue())["problems"][0]["fact"]
    assert fact.count("\n") == 2 and fact.replace("\n", "").isprintable() and "./dev" not in fact


def test_commands_are_printed_as_mqttls_was_started(tmp_path):
    start = [sys.executable, "-c", "import sys; from tools.mqttls import cli; %s"]
    start[2] %= "sys.exit(cli.main(program=cli.as_typed(sys.argv.pop(1))))"

    def run(script, *arguments):
        env = {**os.environ, "PYTHONPATH": str(mpy.ROOT)}
        done = subprocess.run(
            [*start, script, *arguments], cwd=tmp_path, env=env, capture_output=True, text=True
        )
        return done.stdout + done.stderr

    said = run("./dev", "init", "--broker", "127.0.0.1", "--dir", "My Files")
    assert "\nnext: ./dev mqttls device add NAME --dir 'My Files'" in said
    said = run("../a b/dev", "renew", "--ca", "--finish", "--dir", "My Files")
    assert "begin one with: '../a b/dev' mqttls renew --ca --dir 'My Files'" in said
    said = run("dev", "status")
    assert "make them with: python3 dev mqttls init --broker" in said, "no shell finds dev alone"
    said = run("./dev", "explain", "SSL routines::peer did not return a certificate")
    assert "./dev mqttls device add NAME, ./dev mqttls provision NAME" in said, "tables, too"
    for words in (["bake"], ["device", "bake"]):
        said = run("./dev", *words)
        assert f": ./dev mqttls {' '.join(words[:-1])}".rstrip() + " --help shows" in said
    assert run("./dev").startswith("./dev mqttls init ")
    assert "usage: ./dev mqttls" in run("./dev", "--help")


def test_a_printed_command_runs_when_it_is_pasted(tmp_path):
    folder = tmp_path / "it's $HOME; `x`"
    mqttls(folder, "init", "--broker", "127.0.0.1")
    found = mqttls(folder, "device", "add", "kitchen", "--json").json
    (provision,) = found["next"]
    words = shlex.split(provision)
    assert words == ["mqttls", "provision", "kitchen", "--dir", str(folder)]
    status = shlex.join(MQTTLS) + " status " + provision.partition("kitchen ")[2]
    done = subprocess.run(["sh", "-c", status], cwd=mpy.ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "kitchen" in done.stdout, done


@pytest.mark.parametrize(
    ("word", "quoted"),
    [
        (r"C:\Users\me\mqtt-pki", r"C:\Users\me\mqtt-pki"),
        (r"C:\My Files\mqtt-pki", r'"C:\My Files\mqtt-pki"'),
        ("C:\\My Files\\", '"C:\\My Files\\\\"'),
        ("*S-1-5-21:(OI)(CI)F", '"*S-1-5-21:(OI)(CI)F"'),
        ("C:\\it's $5", "'C:\\it''s $5'"),
        ("#", '"#"'),
        ("", '""'),
    ],
)
def test_words_are_quoted_for_windows(monkeypatch, word, quoted):
    monkeypatch.setattr(system, "is_windows", lambda: True)
    assert system.quote(word) == quoted
    assert cli.as_typed("dev") == "python dev mqttls"


def test_every_command_is_in_the_list_that_is_spelled_out():
    assert [each.NAME for each in cli.find_commands()] == VERBS


def test_version():
    assert re.fullmatch(r"mqttls \d+\.\d+\.\d+\n", mqttls(None, "--version").out)


def test_head_ends_it_quietly(tmp_path):
    mqttls(tmp_path / "pki", "init", "--broker", "127.0.0.1")
    names = [f"board{number}" for number in range(30)]
    mqttls(tmp_path / "pki", "device", "add", *names)
    line = f"{shlex.join([*MQTTLS, 'status', '--dir', str(tmp_path / 'pki')])} | head -n 1"
    done = subprocess.run(["sh", "-c", line], cwd=mpy.ROOT, capture_output=True, text=True)
    assert done.stdout.startswith("authority") and done.stderr == ""
