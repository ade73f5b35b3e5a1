"""mosquitto, as an unprivileged user, with what the tool wrote, and real MicroPython devices."""

import getpass
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import time
from pathlib import Path

import pytest

from tests.support import mpy, patience, process
from tests.support.broker import is_listening, mosquitto
from tests.support.tool import (
    NOBODY,
    Mosquitto,
    Watcher,
    give_away,
    give_nobody_rights,
    init,
    mqttls,
    open_folder,
)

DEVICE = mpy.ROOT / "tests" / "device" / "provisioned.py"


@pytest.fixture
def base():
    with open_folder() as folder:
        yield folder


@pytest.fixture
def pki(base):
    return base / "mqtt-pki"


def running(pki, port):
    return Mosquitto(pki / "broker" / "mosquitto.conf", port, pki)


def publish(pki, name, topic=None, payload="hello"):
    """Have the board that holds what devices/`name` holds publish once; return what it printed."""
    topic = topic or f"devices/{name}/test"
    return mpy.check(DEVICE, pki / "devices" / name, "publish", topic, payload).strip()


def refused(pki, name):
    """Have such a board try to publish; return the name of the error that it ends in, or ""."""
    topic = f"devices/{name}/test"
    said = mpy.check(DEVICE, pki / "devices" / name, "refused", topic).strip()
    return said[7:].partition("(")[0] if said.startswith("failed ") else ""


def provision(pki, name, board):
    """Put the files of a device onto a board, here a folder, and note it as `provision` does."""
    shutil.rmtree(board, ignore_errors=True)
    shutil.copytree(pki / "devices" / name, board)
    certificate = mqttls(pki, "status", name, "--json").json["devices"][0].get("serial")
    current = mqttls(pki, "status", "--json").json["authorities"]
    note = {"cert": certificate, "ca": [each["serial"] for each in current]}
    (pki / "devices" / name / "board.json").write_text(json.dumps(note))


def handshake(pki, port, device="kitchen", *, name="localhost"):
    """Connect as a PC does at its strictest; return the broker's certificate as DER."""
    folder = pki / "devices" / device
    context = ssl.create_default_context(cafile=folder / "ca.crt")
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    context.load_cert_chain(folder / "cert.crt", folder / "key.pem")
    with (
        socket.create_connection(("127.0.0.1", port), 10) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        return secure.getpeercert(binary_form=True)


def test_an_unprivileged_mosquitto_takes_a_device_with_its_certificate(pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "device", "add", "desk", "--admin")
    with running(pki, port) as broker, Watcher(pki, "desk", port) as watcher:
        assert os.geteuid() != 0 or broker.user() != 0
        assert publish(pki, "kitchen", payload="21.5") == "done"
        assert watcher.wait_for("devices/kitchen/test") == "21.5"
        assert "as kitchen (p2, c0, k60, u'kitchen')" in broker.log()


def test_a_request_gets_its_response_by_the_acl_that_the_tool_writes(pki):
    """Its response topic is below the device's own topics: no other device reads or writes it."""
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    rights = ("--topics", "read:devices/kitchen/ask", "--topics", "write:devices/+/response")
    mqttls(pki, "device", "add", "weather", *rights)
    mqttls(pki, "device", "add", "desk", "--admin")

    def device(name, *arguments):
        return mpy.start(DEVICE, pki / "devices" / name, *arguments)

    def ask(*timeout_s):
        own = pki / "devices" / "kitchen"
        asks = ("request", "devices/kitchen/ask", "rain?", *timeout_s)
        return mpy.check(DEVICE, own, *asks).strip()

    with running(pki, port) as broker, Watcher(pki, "desk", port) as watcher:
        # one that may neither read the question nor write the answer
        with device("cellar", "respond", "devices/kitchen/ask", "forged") as thief:
            thief.wait_for("ready")  # mosquitto takes the subscription, and sends nothing for it
            assert ask(1) == "failed TimeoutError()"
        publish(pki, "cellar", "devices/kitchen/response", "forged")
        with device("weather", "respond", "devices/kitchen/ask", "3 mm") as weather:
            weather.wait_for("ready")
            assert ask() == "answer devices/kitchen/response 3 mm"
            assert "not told" not in "".join(weather.lines)
        assert watcher.count("devices/kitchen/response") == 1
        assert "Denied PUBLISH from cellar" in broker.log()


def test_a_device_cannot_be_the_broker_with_its_own_certificate(base, pki):
    """Who stole a board is refused as a broker: by its purpose, and by its name."""
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    stolen = base / "stolen"
    shutil.copytree(pki, stolen)
    for ending, of in (("crt", "cert.crt"), ("key", "key.pem")):
        shutil.copy(pki / "devices" / "cellar" / of, stolen / "broker" / f"broker.{ending}")
    conf = stolen / "broker" / "mosquitto.conf"
    conf.write_text(conf.read_text().replace(str(pki), str(stolen)))
    with Mosquitto(conf, port, stolen) as broker:
        assert refused(pki, "kitchen") == "CertificateError"
        assert "New client connected" not in broker.log()
    with running(pki, port):
        assert publish(pki, "kitchen") == "done"


def test_revoked_foreign_and_anonymous_devices_are_refused(base, pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    lost = base / "lost"
    shutil.copytree(pki, lost)
    foreign = base / "foreign"
    init(foreign)
    mqttls(foreign, "device", "add", "kitchen")
    # it trusts the broker and knows where it is, but comes from another authority
    for file in ("ca.der", "tls.json"):
        shutil.copy(pki / "devices" / "kitchen" / file, foreign / "devices" / "kitchen" / file)
    with running(pki, port) as broker:
        assert publish(lost, "kitchen") == "done"
        assert refused(foreign, "kitchen")
        assert "certificate verify failed" in broker.log()
        anonymous = base / "anonymous" / "devices" / "kitchen"
        shutil.copytree(pki / "devices" / "kitchen", anonymous)
        settings = json.loads((anonymous / "tls.json").read_text())
        (anonymous / "tls.json").write_text(json.dumps({**settings, "cert": None, "key": None}))
        assert refused(base / "anonymous", "kitchen")
        assert "peer did not return a certificate" in broker.log()

        mqttls(pki, "revoke", "kitchen")
        broker.restart()
        assert refused(lost, "kitchen")
        assert publish(pki, "cellar") == "done"
        # the name may be given again; the old certificate stays out
        mqttls(pki, "device", "add", "kitchen")
        assert publish(pki, "kitchen") == "done"
        assert refused(lost, "kitchen")


def test_a_revoked_device_is_refused_with_every_certificate_it_ever_had(base, pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    shutil.copytree(pki, base / "first")
    mqttls(pki, "renew", "kitchen")
    shutil.copytree(pki, base / "second")
    with running(pki, port) as broker:
        assert publish(base / "first", "kitchen") == "done"
        assert publish(base / "second", "kitchen") == "done"
        mqttls(pki, "revoke", "kitchen")
        broker.restart()
        assert refused(base / "first", "kitchen")
        assert refused(base / "second", "kitchen")


def test_a_device_has_its_own_topics_only(pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    mqttls(pki, "device", "add", "desk", "desk-2", "--admin")
    with running(pki, port), Watcher(pki, "desk", port) as watcher:
        with Watcher(pki, "cellar", port) as nosy:
            assert publish(pki, "kitchen", "devices/cellar/test", "forged") == "done"
            assert publish(pki, "kitchen", "elsewhere", "forged") == "done"
            assert publish(pki, "kitchen", "devices/kitchen/test", "mine") == "done"
            assert publish(pki, "desk-2", "devices/cellar/last", "end") == "done"
            watcher.wait_for("devices/cellar/last")
            nosy.wait_for("devices/cellar/last")
            assert nosy.received == [("devices/cellar/last", "end")]
        assert watcher.received == [
            ("devices/kitchen/test", "mine"),
            ("devices/cellar/last", "end"),
        ]


@pytest.mark.parametrize("key", ["p384", "p521", "rsa2048", "rsa4096"])
def test_other_kinds_of_keys_connect(pki, key):
    port = init(pki, "--key", key)
    mqttls(pki, "device", "add", "kitchen")
    with running(pki, port):
        assert publish(pki, "kitchen") == "done"
        handshake(pki, port)
    status = mqttls(pki, "status", "--json").json
    assert {status["authorities"][0]["key"], status["broker"]["key"]} == {key}
    assert status["devices"][0]["key"] == key


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1"])
def test_the_clients_of_mosquitto_and_strict_openssl_take_the_same_files(pki, name):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    with running(pki, port):
        assert handshake(pki, port, name=name)
        folder = pki / "devices" / "kitchen"
        files = ["--cafile", folder / "ca.crt", "--cert", folder / "cert.crt"]
        files += ["--key", folder / "key.pem", "-h", name, "-p", str(port)]
        topic = ["-t", "devices/kitchen/test", "-q", "1"]
        subprocess.run(
            ["mosquitto_pub", *files, *topic, "-r", "-m", "kept"],
            check=True,
            timeout=patience.stretched(20),
        )
        heard = subprocess.run(
            ["mosquitto_sub", *files, *topic, "-C", "1", "-W", "15"],
            check=True,
            timeout=patience.stretched(20),
            capture_output=True,
        )
        assert heard.stdout == b"kept\n"


def test_a_renewed_broker_is_taken_in_by_sighup_while_a_device_stays(pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "device", "add", "desk", "--admin")
    board = pki / "devices" / "kitchen"
    with (
        running(pki, port) as broker,
        Watcher(pki, "desk", port) as watcher,
        mpy.start(DEVICE, board, "tick", "devices/kitchen/tick") as device,
    ):
        device.wait_for("event Connected")
        before = handshake(pki, port, "desk")
        mqttls(pki, "renew", "--broker")
        broker.reload()
        after = handshake(pki, port, "desk")
        assert after != before
        seen = watcher.count("devices/kitchen/tick")
        watcher.wait_for_count("devices/kitchen/tick", seen + 5)
        assert not [each for each in device.lines if "Disconnected" in each]
        broker.restart()  # and with the new certificate, the same configuration connects
        device.wait_for("event Connected")


def test_an_authority_is_rolled_over_without_a_device_losing_contact(base, pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    kitchen, cellar = base / "devices" / "kitchen", base / "devices" / "cellar"
    provision(pki, "kitchen", kitchen)
    provision(pki, "cellar", cellar)
    with running(pki, port) as broker:
        with mpy.start(DEVICE, kitchen, "tick", "devices/kitchen/tick") as device:
            device.wait_for("event Connected")
            assert publish(base, "cellar") == "done"
            mqttls(pki, "renew", "--ca")
            broker.restart()
            device.wait_for("event Connected")  # as provisioned before
            assert publish(base, "cellar") == "done"
            assert publish(pki, "cellar") == "done"  # with the new authority's certificate
            early = mqttls(pki, "renew", "--ca", "--finish", code=1)
            assert "2 devices would lose contact" in early.err
            assert "kitchen: its board has the old authority only" in early.err
            provision(pki, "cellar", cellar)
            assert publish(base, "cellar") == "done"
            one_left = mqttls(pki, "renew", "--ca", "--json")
            assert list(one_left.json["waiting"]) == ["kitchen"]
        provision(pki, "kitchen", kitchen)
        with mpy.start(DEVICE, kitchen, "tick", "devices/kitchen/tick") as device:
            device.wait_for("event Connected")
            mqttls(pki, "renew", "--ca", "--finish")
            broker.restart()
            device.wait_for("event Connected")
            assert publish(base, "cellar") == "done"
    assert not list((pki / "ca").iterdir())
    assert mqttls(pki, "status", "--json").json["problems"] == []
    assert json.loads((pki / "devices" / "cellar" / "tls.json").read_text())["ca"] == ["ca.der"]


def test_a_device_that_missed_the_roll_over_is_out(base, pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    shutil.copytree(pki, base / "old")
    mqttls(pki, "renew", "--ca")
    mqttls(pki, "renew", "--ca", "--finish", "--force")
    with running(pki, port):
        assert refused(base / "old", "kitchen") == "CertificateError"
        assert publish(pki, "kitchen") == "done"


def test_a_device_is_revoked_during_a_roll_over_with_the_old_certificate_too(base, pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen", "cellar")
    shutil.copytree(pki, base / "old")
    mqttls(pki, "renew", "--ca")
    shutil.copytree(pki, base / "new")
    mqttls(pki, "revoke", "kitchen")
    with running(pki, port):
        assert refused(base / "old", "kitchen")
        assert refused(base / "new", "kitchen")
        assert publish(base / "old", "cellar") == "done"
        assert publish(base / "new", "cellar") == "done"


def test_server_only_tls_takes_passwords(base, pki):
    port = init(pki, "--server-only")
    mqttls(pki, "device", "add", "kitchen", "cellar")
    mqttls(pki, "device", "add", "desk", "--admin")
    with running(pki, port) as broker, Watcher(pki, "desk", port) as watcher:
        assert publish(pki, "kitchen", payload="21.5") == "done"
        assert watcher.wait_for("devices/kitchen/test") == "21.5"
        assert publish(pki, "cellar", "devices/kitchen/test", "forged") == "done"
        settings = pki / "devices" / "cellar" / "tls.json"
        wrong = base / "wrong" / "devices" / "cellar"
        shutil.copytree(settings.parent, wrong)
        found = json.loads(settings.read_text())
        assert "cert" not in found and len(found["password"]) == 20
        (wrong / "tls.json").write_text(json.dumps({**found, "password": "guess"}))
        assert refused(base / "wrong", "cellar") == "RefusedError"
        shutil.copytree(pki, base / "lost")
        mqttls(pki, "revoke", "cellar")
        broker.reload()
        assert refused(base / "lost", "cellar") == "RefusedError"
        assert publish(pki, "kitchen") == "done"
        assert watcher.received == [
            ("devices/kitchen/test", "21.5"),
            ("devices/kitchen/test", "hello"),
        ]
    assert found["password"] not in (pki / "broker" / "passwords").read_text()


def test_a_broker_is_turned_from_certificates_to_passwords_and_back(pki):
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "broker-conf", "--server-only")
    with running(pki, port):
        assert publish(pki, "kitchen") == "done"
        assert "password" in (pki / "devices" / "kitchen" / "tls.json").read_text()
    mqttls(pki, "broker-conf", "--mutual")
    with running(pki, port):
        assert publish(pki, "kitchen") == "done"
        assert "password" not in (pki / "devices" / "kitchen" / "tls.json").read_text()


def install(pki, etc, *arguments, code=0):
    """Run install.sh; the user of mosquitto is nobody, where we are root."""
    owner = "nobody" if os.geteuid() == 0 else getpass.getuser()
    state = etc.parent / "state"
    done = subprocess.run(
        ["sh", pki / "broker" / "install.sh", *arguments],
        env={**os.environ, "ETC": str(etc), "OWNER": owner, "STATE": str(state), "START": "true"},
        capture_output=True,
        text=True,
        timeout=patience.stretched(20),
    )
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("options", [(), ("--server-only",)])
def test_the_install_script_installs_what_runs(base, pki, options):
    port = init(pki, *options)
    mqttls(pki, "device", "add", "kitchen")
    etc = base / "etc with space"
    assert "install mosquitto first" in install(pki, etc, code=1)
    etc.mkdir()
    main = etc / "mosquitto.conf"
    main.write_text("persistence false\n")
    assert f"include_dir {etc}/conf.d" in install(pki, etc, code=1)
    main.write_text(f"persistence false\n\ninclude_dir {etc}/conf.d\n")
    install(pki, etc)
    install(pki, etc, "reload")
    assert "it takes nothing or" in install(pki, etc, "remove", code=1)
    assert "\nuser " in (pki / "broker/mosquitto.conf").read_text()
    assert "user " not in re.sub("#.*", "", (etc / "conf.d/mqttls.conf").read_text())
    assert "by root" not in (etc / "conf.d/mqttls.conf").read_text()
    assert "persistence" not in (etc / "conf.d/mqttls.conf").read_text(), "its own says it"
    assert modes(etc / "mqttls") == ({0o750}, {0o640}) if os.geteuid() == 0 else ({0o700}, {0o600})
    assert not list(etc.rglob("*.new")) and not list(etc.glob(".*"))
    shutil.copytree(pki / "devices", base / "devices")
    shutil.rmtree(pki)  # the broker is another machine
    (base / "empty").mkdir()
    with Mosquitto(main, port, base / "empty"):
        assert publish(base, "kitchen") == "done"


def modes(folder):
    """Return (modes of the folders, modes of the files) of a folder: two sets."""
    found = [*folder.rglob("*")]
    files = {each.stat().st_mode & 0o777 for each in found if not each.is_dir()}
    return {each.stat().st_mode & 0o777 for each in [folder, *found] if each.is_dir()}, files


def test_what_has_no_place_for_its_state_gets_one(base, pki):
    init(pki)
    etc = base / "etc"
    etc.mkdir()
    (etc / "mosquitto.conf").write_text(f"include_dir {etc}/conf.d\n")
    install(pki, etc)
    assert "persistence" not in (etc / "conf.d/mqttls.conf").read_text(), "there is none"
    (base / "state").mkdir()
    install(pki, etc)
    assert f"persistence_location {base}/state/\n" in (etc / "conf.d/mqttls.conf").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_a_broker_that_was_taken_over_becomes_not_root_and_changes_no_rule(base, pki):
    """The folder of an older install.sh belongs to mosquitto: whoever took that over was there."""
    init(pki, "--server-only")
    mqttls(pki, "device", "add", "kitchen")
    etc, home = base / "etc", base / "root"
    ours, theirs = home / "precious", etc / "mqttls"
    for each in (etc, home, theirs):
        each.mkdir()
    ours.write_text("as before")
    (etc / "mosquitto.conf").write_text(f"include_dir {etc}/conf.d\n")
    for name in ("acl", "acl.new", "broker.key.new", "passwords"):
        (theirs / name).symlink_to(home)
    for name in ("ca.crt", "ca.crt.new", "broker.crt", "crl.pem.new"):
        (theirs / name).symlink_to(ours)
    give_away(theirs)
    install(pki, etc)
    assert [each.name for each in home.iterdir()] == ["precious"]
    assert ours.read_text() == "as before" and ours.stat().st_uid == 0
    installed = [theirs, *theirs.iterdir()]
    assert len(installed) == 7 and not any(each.is_symlink() for each in installed)
    assert {each.stat().st_uid for each in installed} == {0}
    attack = (
        "cat passwords >/dev/null && cd .. && for each in mqttls/* conf.d/* mosquitto.conf; do "
        "! echo x 2>/dev/null >>$each && ! rm -f $each 2>/dev/null && ! mv $each y 2>/dev/null || "
        "exit 7; done; ! touch mqttls/x conf.d/x x 2>/dev/null"
    )
    group = str(theirs.stat().st_gid)
    as_broker = ["setpriv", f"--reuid={NOBODY}", f"--regid={group}", "--clear-groups"]
    done = subprocess.run([*as_broker, "sh", "-c", attack], cwd=theirs)
    assert done.returncode == 0
    # a folder that is theirs is not installed into
    os.chown(etc / "conf.d", NOBODY, NOBODY)
    assert "is not for root alone to write" in install(pki, etc, code=1)
    os.chown(etc / "conf.d", 0, 0)
    etc.chmod(0o777)
    assert f"chmod go-w '{etc}'" in install(pki, etc, code=1)
    etc.chmod(0o755)
    give_nobody_rights(etc / "conf.d")
    assert f"chmod go-w '{etc}/conf.d'" in install(pki, etc, code=1)
    (etc / "conf.d").chmod(0o755)
    shutil.rmtree(theirs)
    theirs.symlink_to(home)
    install(pki, etc)
    assert not theirs.is_symlink() and [each.name for each in home.iterdir()] == ["precious"]


INSIDE = """
mount -t tmpfs none /mnt
for each in /*; do
    case $each in /mnt | /proc) continue ;; esac
    if [ -d "$each" ] && [ ! -L "$each" ]; then
        mkdir "/mnt$each" && mount --rbind "$each" "/mnt$each"
    else
        cp -P "$each" /mnt/
    fi
done
mkdir -p /mnt/mosquitto/config /mnt/mosquitto/data /mnt/from
mount --bind {config} /mnt/from
chroot /mnt sh -ec '{copy}'
umount /mnt/from
exec chroot --userspec=1883:1883 /mnt {program} -c /mosquitto/config/mosquitto.docker.conf -v
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for a mount namespace")
def test_the_docker_variant_runs_with_its_paths(base, pki):
    """Without Docker: the same paths, bound in a mount namespace of its own."""
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    mqttls(pki, "broker-conf", "--docker")
    compose = (pki / "broker" / "compose.yaml").read_text()
    (copy,) = json.loads(re.search(r"command: (\[.*\])", compose)[1])
    assert 'user: "1883:1883"' in compose
    assert f"127.0.0.1:{port}:{port}" in compose
    conf = pki / "broker" / "mosquitto.docker.conf"
    assert f"listener {port}\n" in conf.read_text()
    # on loopback only, in a test
    conf.write_text(conf.read_text().replace(f"listener {port}", f"listener {port} 127.0.0.1"))
    inside = INSIDE.format(config=pki / "broker", copy=copy, program=mosquitto())
    with Mosquitto(conf, port, pki, command=["unshare", "-m", "sh", "-euc", inside]) as broker:
        assert publish(pki, "kitchen") == "done"
        assert "Config loaded from /mosquitto/config" in broker.log()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
@pytest.mark.parametrize("maker", [0, NOBODY])
@pytest.mark.parametrize("starter", [0, NOBODY])
def test_root_and_the_owner_start_the_broker_where_it_was_made(base, pki, maker, starter):
    """
    By the line of the README. The folder is its owner's alone; who may not read it, cannot: the
    last of the four.
    """
    port = init(pki)
    mqttls(pki, "device", "add", "kitchen")
    if maker:
        give_away(pki)
        as_maker = ["setpriv", f"--reuid={maker}", f"--regid={maker}", "--clear-groups"]
        # the project may lie where that user cannot read, as in root's home
        as_maker += ["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]
        mqttls(pki, "broker-conf", wrapper=as_maker)
    assert pki.stat().st_mode & 0o777 == 0o700 and pki.stat().st_uid == maker
    command = [mosquitto(), "-c", str(pki / "broker/mosquitto.conf"), "-v"]
    with (base / "broker.log").open("wb") as log:
        child = process.spawn(
            command,
            stdin=process.NULL,
            stdout=log,
            stderr=log,
            cwd="/",
            **({"user": NOBODY, "group": NOBODY, "extra_groups": []} if starter else {}),
        )
        try:
            if starter and not maker:
                child.wait(patience.stretched(10))
                assert "Unable to open config file" in (base / "broker.log").read_text()
                return
            deadline = time.monotonic() + patience.stretched(10)
            while not is_listening(port):
                assert child.poll() is None and time.monotonic() < deadline, log.name
                time.sleep(0.02)
            assert Path(f"/proc/{child.pid}").stat().st_uid == maker, "root became the owner"
            assert publish(pki, "kitchen") == "done"
        finally:
            process.end(child)
