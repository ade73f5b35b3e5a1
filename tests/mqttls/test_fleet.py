"""`mqttls fleet`: boards that tell how they are, and who may see it."""

import asyncio
import contextlib
import csv
import io
import json
import os
import pty
import re
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.request

import pytest

from tests.support import browser, docs, mpy, patience
from tests.support.broker import Peer, is_listening
from tests.support.tool import MQTTLS, Mosquitto, init, mqttls, open_folder
from tools.mqttls import acl, certificates
from tools.mqttls.fleet import boards, metrics, table
from tools.mqttls.fleet import web as fleet_web
from tools.mqttls.fleet.boards import Boards
from tools.ports import free_port

NOW = 1_800_000_000
EVIL = "<img src=x onerror=alert(1)>"
REPORT = {
    "v": 1,
    "package": "0.1.0",
    "firmware": "MicroPython v1.28.0 on 2026-04-06",
    "machine": "Raspberry Pi Pico W with RP2040",
    "at": NOW - 60,
    "every_s": 900,
    "uptime_s": 7200,
    "online_s": 600,
    "outage_s": 42,
    "connects": 3,
    "reset": 1,
    "error": "ConnectError: no answer to a ping for 20 s",
    "rssi": -61,
    "mem_free": 98_304,
    "mem_block": 32_704,
    "ends": "20280101000000Z",
    "queue": 0,
}


def seen(**more):
    """Return Boards that heard of the board "kitchen", from what a broker keeps."""
    found = Boards(clock=lambda: NOW)
    found.take("devices/kitchen/status", b"online", True)
    found.take("devices/kitchen/report", json.dumps({**REPORT, **more}).encode(), True)
    return found


def row(**more):
    (one,) = seen(**more).rows()
    return one


# What boards say, without a broker


def test_a_board_is_shown_as_it_told():
    one = row()
    assert list(one) == list(boards.COLUMNS)
    assert (one["online"], one["since"], one["heard"]) == (True, NOW - 660, NOW - 60)
    assert one["days"] == (1_830_297_600 - NOW) // 86400
    assert one["needs"] == []
    assert one["means"].startswith("no answer for long, or the board's network was lost")
    assert {name: one[name] for name in ("package", "rssi", "mem_free", "queue", "connects")} == {
        "package": "0.1.0",
        "rssi": -61,
        "mem_free": 98_304,
        "queue": 0,
        "connects": 3,
    }


def test_what_happens_now_has_the_time_of_this_pc():
    found = seen()
    found.take("devices/kitchen/status", b"offline", False)
    assert (found.rows()[0]["online"], found.rows()[0]["since"]) == (False, NOW)
    found.take("devices/kitchen/status", b"", False)  # taken back
    assert found.rows() == []


@pytest.mark.parametrize(
    ("more", "needs"),
    [
        ({"ends": "20270201000000Z"}, "its certificate ends in 16 days"),
        ({"ends": "20270101000000Z"}, "its certificate has ended"),
        ({"at": NOW - 4000}, "online, but silent"),
        ({"mem_block": 9000}, "no piece of memory above 9000 bytes"),
        ({"reset": 3}, "reset by its watchdog"),
        ({"queue": 21}, "21 messages wait"),
        ({"rssi": -81}, "weak signal, -81 dBm"),
    ],
)
def test_what_needs_somebody_is_told(more, needs):
    assert row(**more)["needs"] == [needs]


def test_those_that_need_somebody_come_first():
    found = seen()
    for name, status, more in (
        ("weak", b"online", {"rssi": -90}),
        ("gone", b"offline", {}),
        ("ending", b"online", {"ends": "20270201000000Z"}),
    ):
        found.take(f"devices/{name}/status", status, True)
        found.take(f"devices/{name}/report", json.dumps({**REPORT, **more}).encode(), True)
    assert [each["name"] for each in found.rows()] == ["gone", "ending", "weak", "kitchen"]
    assert table.summary(found.rows()) == "4 boards, 3 online, 1 offline, 3 to look at"
    assert table.summary(found.rows()[:1]) == "1 board, 0 online, 1 offline, 1 to look at"


HOSTILE = [
    b"\xff\xfe\0",
    b"[" * 8000,
    b'{"v":1,"a":' * 700,
    b"9" * 8000,
    b"x" * 9000,
    b"[]",
    b"null",
    b'{"v":2}',
    b'{"v":1,"rssi":NaN}',
]


@pytest.mark.parametrize("payload", HOSTILE, ids=lambda each: repr(each[:12]))
def test_what_is_no_report_is_told_and_nothing_else(payload):
    found = seen()
    found.take("devices/kitchen/report", payload, False)
    (one,) = found.rows()
    assert one["needs"][0].startswith("a report")
    assert one["package"] == "0.1.0"  # of the last one that was good


def test_values_of_other_types_are_left_out_and_texts_are_harmless():
    wrong = {name: {"x": [1]} for name in REPORT if name != "v"}
    assert not any(row(**wrong)[name] for name in boards.COLUMNS[3:])
    found = seen()
    found.take("devices/kitchen/report", b'{"v": 1, "queue": 1e999}', False)
    assert (found.rows()[0]["queue"], found.rows()[0]["needs"]) == (None, [])
    (one,) = seen(rssi=True, connects=10**400, error="\x1b[31m\n\u202e" + "x" * 5000).rows()
    assert one["rssi"] is one["connects"] is None
    assert one["error"].startswith("\\x1b[31m\\n\\u202e") and len(one["error"]) == 120
    huge = row(at=9e15, online_s=-9e15, ends="99991231235959Z", mem_free=-1)
    assert "\n" not in table.lines([huge], NOW)[1]
    table.as_csv([huge])


def test_names_are_bounded_in_number_and_form(monkeypatch):
    monkeypatch.setattr(boards, "MOST", 100)
    found = Boards()
    for at in range(300):
        found.take(f"devices/board-{at}/status", b"online", True)
    for name in ("", "x" * 65, "a\x1b[2J", "a\nb", "\u202e"):
        found.take(f"devices/{name}/status", b"online", True)
    for topic in ("devices/a/b/status", "devices/a/set", "x/devices/a/status", "devices//report"):
        found.take(topic, b"online", True)
    assert (found.count, found.ignored) == (100, 206)


def test_csv_is_read_by_spreadsheets_and_runs_nothing_there():
    text = table.as_csv([row(error="=cmd|'/c calc'!A1"), row(error='a,"b"')])
    first, second = csv.DictReader(io.StringIO(text))
    assert first["error"] == "'=cmd|'/c calc'!A1"
    assert second["error"] == 'a,"b"'
    assert (first["name"], first["online"]) == ("kitchen", "True")
    assert first["since"] == "2027-01-15T07:49:00Z"


def test_the_page_of_the_docs_has_every_field_of_a_report():
    schema = json.loads((mpy.ROOT / "tests/support/report.schema.json").read_text())
    tables = docs.tables(mpy.ROOT / "docs/fleet.md")
    (rows,) = [each for each in tables if each[0][0] == "field"]
    told = [name.strip("` ") for row in rows[1:] for name in row[0].split(",")]
    assert sorted(told) == sorted(schema["required"]) == sorted(schema["properties"])
    assert set(boards.COLUMNS) - set(told) == {
        *("name", "online", "since", "needs", "means", "days", "heard")
    }


# For Prometheus


def get(port, path, host=None, code=200):
    """Return what a server on loopback answers (str)."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}")
    if host:
        request.add_header("Host", host)
    try:
        with urllib.request.urlopen(request, timeout=patience.stretched(10)) as answer:
            status, text = answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        status, text = error.code, error.read().decode()
    assert status == code, text
    return text


def test_prometheus_reads_it_and_no_name_or_text_breaks_its_lines():
    parser = pytest.importorskip("prometheus_client.parser")
    port = free_port()
    found = seen(firmware='v1"} 1\nevil 1\\')
    found.take('devices/a"} 1/status', b"offline", False)
    with metrics.Server(found, port):
        text = get(port, "/metrics")
        assert "127.0.0.1 alone" in get(port, "/metrics", host="evil.example", code=403)
    samples = {}
    for family in parser.text_string_to_metric_families(text):
        for each in family.samples:
            samples[each.name, each.labels["name"]] = each
    assert samples["mqttls_board_online", "kitchen"].value == 1
    assert samples["mqttls_board_online", 'a"} 1'].value == 0
    assert samples["mqttls_board_rssi_dbm", "kitchen"].value == -61
    assert samples["mqttls_board_connects_total", "kitchen"].value == 3
    info = samples["mqttls_board_info", "kitchen"].labels
    assert info["firmware"] == 'v1"} 1\\nevil 1\\'  # on one line
    assert not any(name.startswith("evil") for name, _ in samples)


# With a broker


@pytest.fixture(scope="module")
def deployment():
    """A folder of mqttls with boards, a monitor and an admin, and its mosquitto."""
    with open_folder() as folder:
        pki = folder / "mqtt-pki"
        port = init(pki)
        mqttls(pki, "device", "add", "kitchen", "cellar", "--topics", "read:devices/wall/#")
        said = mqttls(pki, "device", "add", "wall", "--monitor")
        assert "fleet --as wall" in said.out
        mqttls(pki, "device", "add", "desk", "--admin")
        with Mosquitto(pki / "broker/mosquitto.conf", port, pki) as broker:
            yield pki, broker


class Pair:
    """A certificate of a folder of mqttls, for Peer."""

    def __init__(self, cert, key=None):
        self.cert_pem, self.key_pem = str(cert), str(key)


def peer(pki, broker, name):
    folder = pki / "devices" / name
    identity = Pair(folder / "cert.crt", folder / "key.pem")
    return Peer(broker.port, ca=Pair(folder / "ca.crt"), identity=identity)


def test_a_board_told_by_the_page_is_seen_by_a_monitor(deployment, tmp_path):
    pki, broker = deployment
    program = docs.text("report").replace("asyncio.sleep(60)", "asyncio.sleep(1)")
    folder = pki / "devices/kitchen"
    env = {"MICROPYPATH": f"{folder}:{mpy.environment()['MICROPYPATH']}"}
    with peer(pki, broker, "desk") as desk, mpy.start(program, env=env):
        desk.subscribe("devices/kitchen/#")
        desk.wait_for(1, topic="devices/kitchen/report")
        (one,) = mqttls(pki, "fleet", "--json").json["boards"]
    end = certificates.load(folder / "cert.crt").not_valid_after_utc.timestamp()
    assert (one["name"], one["online"], one["connects"]) == ("kitchen", True, 1)
    assert abs(one["days"] - (end - time.time()) / 86400) < 2
    assert one["since"] is not None


def test_a_monitor_reads_below_devices_and_writes_nothing(deployment):
    pki, broker = deployment
    text = (pki / "broker/acl").read_text()
    for topic in ("devices/kitchen/report", "devices/cellar/x/y"):
        assert acl.allows(text, "read", topic, "wall", "wall")
    for topic in ("devices/wall/report", "devices/kitchen/set", "x", "$SYS/x", "devices"):
        assert not acl.allows(text, "write", topic, "wall", "wall"), topic
    assert not acl.allows(text, "read", "homeassistant/x", "wall", "wall")
    with peer(pki, broker, "desk") as desk, peer(pki, broker, "wall") as wall:
        wall.subscribe("#")
        desk.subscribe("#")
        for topic in ("devices/wall/x", "devices/kitchen/set", "x"):
            wall.publish(topic, b"from wall")
        desk.publish("x", b"1")
        desk.publish("devices/cellar/y", b"2")
        wall.wait_for(topic="devices/cellar/y")
        desk.wait_for(topic="devices/cellar/y")
        assert [each for each in desk.received if each[1] == b"from wall"] == []
        assert not [each for each in wall.received if not each[0].startswith("devices/")]


def test_the_table_is_drawn_anew_until_it_is_interrupted(deployment):
    pki, broker = deployment
    terminal, stdout = pty.openpty()
    child = subprocess.Popen(
        [*MQTTLS, "fleet", "--dir", str(pki)],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=stdout,
        env={**os.environ, "PYTHONPATH": str(mpy.ROOT), "LINES": "8", "COLUMNS": "60"},
        start_new_session=True,
    )
    os.close(stdout)
    screen = b""

    def read_until(text):
        nonlocal screen
        while not re.search(text, screen):
            screen += os.read(terminal, 4096)  # the test's own deadline ends it

    with peer(pki, broker, "desk") as desk:
        read_until(b"NAME")
        desk.publish("devices/roof/status", b"online", retain=True)
        read_until(rb"roof +online")
        desk.publish("devices/roof/status", b"offline", retain=True)
        screen = b""
        read_until(rb"roof +offline")
        desk.publish("devices/roof/status", b"", retain=True)
    child.send_signal(signal.SIGINT)
    with contextlib.suppress(OSError):
        while data := os.read(terminal, 4096):
            screen += data
    os.close(terminal)
    assert child.wait(patience.stretched(10)) == 0
    assert b"Traceback" not in screen


def test_page_and_metrics_are_served_until_it_is_interrupted(deployment):
    pki, broker = deployment
    pytest.importorskip("aiohttp")
    web, prometheus = free_port(), free_port()
    child = subprocess.Popen(
        [*MQTTLS, "fleet", "--web", str(web), "--prometheus", str(prometheus), "--dir", str(pki)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(mpy.ROOT)},
        start_new_session=True,
    )
    with peer(pki, broker, "desk") as desk, child:
        desk.publish("devices/cellar/status", b"online", retain=True)
        deadline = time.monotonic() + patience.stretched(20)
        while not (is_listening(web) and is_listening(prometheus)):
            assert time.monotonic() < deadline and child.poll() is None
            time.sleep(0.05)
        names = ()
        while "cellar" not in names:
            assert time.monotonic() < deadline
            said = json.loads(get(web, "/boards.json"))
            names = [each["name"] for each in said["boards"]]
        assert said["connected"] is True
        assert 'mqttls_board_online{name="cellar"} 1.0' in get(prometheus, "/metrics")
        taken = mqttls(pki, "fleet", "--prometheus", prometheus, code=1)
        assert f"port {prometheus}" in taken.err
        child.send_signal(signal.SIGINT)
        out, _ = child.communicate(timeout=patience.stretched(10))
    assert child.returncode == 0
    assert out.startswith(f"metrics: http://127.0.0.1:{prometheus}/metrics\npage: http://127")


def test_the_table_of_hostile_devices_is_whole(deployment):
    pki, broker = deployment
    with peer(pki, broker, "desk") as desk:
        desk.publish("devices/cellar/status", b"offline", retain=True)
        desk.publish("devices/cellar/report", json.dumps(REPORT).encode(), retain=True)
        for at, payload in enumerate(HOSTILE):
            desk.publish(f"devices/odd-{at}/report", payload, retain=True)
        desk.publish(f"devices/{'x' * 65}/status", b"online", retain=True)
        out = mqttls(pki, "fleet", "--once", "--as", "wall").out
        text = mqttls(pki, "fleet", "--csv").out
        for at in range(len(HOSTILE)):
            desk.publish(f"devices/odd-{at}/report", b"", retain=True)
        desk.publish(f"devices/{'x' * 65}/status", b"", retain=True)
    lines = out.splitlines()
    assert lines[0].split()[:3] == ["NAME", "STATE", "SINCE"]
    assert lines[1].split()[:2] == ["cellar", "offline"]
    assert "(last error: ConnectError: no answer to a ping for 20 s)" in lines[1]
    assert "\x1b" not in out and "note: 1 messages of names" in out
    assert len([line for line in lines if line.startswith("odd-")]) == len(HOSTILE)
    assert len(list(csv.DictReader(io.StringIO(text)))) >= len(HOSTILE) + 1


def test_who_has_no_monitor_and_a_wrong_use_are_told(tmp_path, deployment):
    pki = tmp_path / "mqtt-pki"
    init(pki)
    assert "device add wall --monitor" in mqttls(pki, "fleet", code=1).err
    mqttls(pki, "device", "add", "wall", "--monitor")
    said = mqttls(pki, "fleet", "--json", code=1).json["problems"][0]  # nothing listens
    assert said["stage"] == "connect" and "--device wall" in said["cure"]
    for words in (("--csv", "--json"), ("--home", "devices/#"), ("--home", "a+/"), ("--web", "0")):
        mqttls(pki, "fleet", *words, code=2)
    for words in (("--monitor", "--admin"), ("--monitor", "--topics", "x")):
        mqttls(pki, "device", "add", "x", *words, code=2)
    (one,) = mqttls(pki, "device", "list", "wall", "--json").json["devices"]
    assert one["monitor"] and one["lacks"] == ""
    mqttls(pki, "device", "add", "wall", "--admin")
    assert "monitor" not in (pki / "broker/acl").read_text()
    mqttls(pki, "device", "add", "wall", "--monitor")
    assert "--admin" not in (pki / "broker/acl").read_text()
    mqttls(pki, "revoke", "wall")
    assert "wall" not in (pki / "broker/acl").read_text()


def test_a_broker_of_somebody_else(tmp_path, tls_broker, pki):
    folder = tmp_path / "foreign"
    tls_broker.publish("garden/gate/status", b"online", retain=True)
    target = f"localhost:{tls_broker.port}"
    mqttls(folder, "use", target, "--ca", pki.ca.cert_pem)
    mqttls(folder, "device", "add", "x", "--monitor", code=2)  # its owner's to say
    assert "device add NAME" in mqttls(folder, "fleet", code=1).err
    mqttls(folder, "device", "add", "gate")
    (one,) = mqttls(folder, "fleet", "--home", "garden/+/", "--json").json["boards"]
    assert (one["name"], one["online"], one["since"]) == ("gate", True, None)
    assert "no device" in mqttls(folder, "fleet", "--as", "nobody", code=1).err


# The page


class Connected:
    connected = True


@pytest.fixture(scope="module")
def page():
    """The page with 10,000 boards, one of them hostile; yields (its Boards, its port)."""
    web = pytest.importorskip("aiohttp.web")
    found = Boards()
    report = {**REPORT, "at": int(time.time()) - 60, "ends": "20990101000000Z"}
    for at in range(9_999):
        said = json.dumps({**report, "rssi": -40 - at % 40, "connects": at + 1}).encode()
        found.take(f"devices/board-{at}/status", b"offline" if at == 77 else b"online", True)
        found.take(f"devices/board-{at}/report", said, True)
    found.take(f"devices/{EVIL}/status", b"online", True)
    said = {**report, **dict.fromkeys(("package", "firmware", "machine", "error"), EVIL)}
    found.take(f"devices/{EVIL}/report", json.dumps(said).encode(), True)
    port, loop, ready = free_port(), asyncio.new_event_loop(), threading.Event()

    async def start():
        runner = web.AppRunner(fleet_web.application(found, Connected, port))
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        ready.set()

    def run():
        asyncio.set_event_loop(loop)
        task = loop.create_task(start())
        loop.run_forever()
        task.result()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(patience.stretched(10))
    yield found, port
    loop.call_soon_threadsafe(loop.stop)
    thread.join()


def test_the_page_is_for_this_pc_alone_and_only_read(page):
    _, port = page
    for path in ("/", "/boards.json", "/page.js", "/nothing"):
        assert "127.0.0.1 alone" in get(port, path, host="evil.example", code=403)
        get(port, path, host=f"evil.example:{port}", code=403)
    get(port, "/", host=f"localhost:{port}")
    get(port, "/../boards.py", code=404)
    request = urllib.request.Request(f"http://127.0.0.1:{port}/boards.json", data=b"x")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(request, timeout=patience.stretched(10))
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/") as answer:
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


@pytest.mark.skipif(not browser.find(), reason="there is no Chromium")
def test_10000_boards_are_shown_sorted_searched_and_kept_up_to_date(page):
    found, port = page
    names = "[...document.querySelectorAll('#rows td:first-child')].map((td) => td.textContent)"
    click = "document.querySelectorAll('#heads button')[%d].click()"
    search = "search.value = %r; search.dispatchEvent(new Event('input'))"
    with browser.Browser() as tab:
        tab.open(f"http://127.0.0.1:{port}/")
        tab.wait_for(f"{names}.length > 0")
        summary = tab.evaluate("document.querySelector('#summary').textContent")
        assert summary == "10000 boards, 9999 online, 1 offline, 1 to look at"
        assert tab.evaluate(names)[0] == "board-77"  # what needs somebody is on top
        assert tab.evaluate("document.querySelectorAll('#rows tr').length") < 100
        tab.evaluate(click % 10)  # connects, then the other way round
        assert tab.evaluate(names)[0] == "board-0"
        tab.evaluate(click % 10)
        assert tab.evaluate(names)[1] == "board-9997"
        tab.evaluate("document.querySelector('#view').scrollTop = 1e9")
        tab.wait_for(f"{names}.includes('board-0')")
        tab.evaluate(search % "img onerror")
        assert tab.evaluate(names) == [EVIL]
        assert tab.evaluate("document.querySelectorAll('#view img').length") == 0
        found.take(f"devices/{EVIL}/status", b"offline", False)
        tab.wait_for("document.querySelector('#rows td.bad').textContent == 'offline'")
        for event in ("Page.javascriptDialogOpening", "Runtime.exceptionThrown", "Log.entryAdded"):
            assert tab.happened(event) == []
