"""
No exception and no line of the log has a secret in it: keys, passwords, what stands in the place
of another argument. What can be wrong with an argument: test_every_argument.py.
"""

import base64
import json
from pathlib import Path

import pytest

from tests.support import apps, mpy
from tests.support.device import Device
from tests.support.fake_broker import FakeBroker

# The program has SECRETS, name: a value with secrets in it; MARKS, list of the secrets
TRIES = """
import os
import sys
from tests.fakes import network
network.board("cyw43")
from mqtt_as_tls import FileStore, MQTTClient, TLS, Will, WiFi, argument_errors, clock, options
from mqtt_as_tls import properties
from mqtt_as_tls.home_assistant import HomeAssistant
from mqtt_as_tls.errors import MQTTError

BYTES = [each.encode() for each in MARKS]
found = tried = 0


def look(what, text):
    global found
    for mark in MARKS:
        if mark in text:
            found += 1
            print("LEAK", what, mark)
    # as a repr() of it would be, with each line by itself
    for c in text.encode():
        if not 31 < c < 127:
            found += 1
            print("RAW", what, repr(text)[:200])
            break


def attempt(what, call):
    global tried
    tried += 1
    try:
        result = call()
    except (ValueError, TypeError) as e:
        look(what, str(e))
        look(what, repr(e))
        return
    if hasattr(result, "close"):
        result.close()
    look(what, repr(result))


def names():
    found = [name for name, _ in options.ATTRIBUTES + options.OTHERS]
    found += [row[0] for row in options.NUMBERS]
    found.remove("max_packet")  # it bounds max_backlog, which says so
    found += ["auth", "properties", "session_expiry_s", "topic_aliases", "shared_session"]
    return [name for name in found if name not in ("log", "client_id")]


def opened(directory):
    before = os.getcwd()
    os.chdir(FOLDER)
    try:
        store = FileStore(directory)
        store.open(4, "x", lambda line: look("log", line))
        return store
    finally:
        os.chdir(before)


for form, secret in SECRETS.items():
    attempt("directory " + form, lambda: opened(secret))
    if isinstance(secret, str):
        attempt("no directory " + form, lambda: opened("x/" + secret * 20))
    for name in names():
        for protocol in (4, 5):
            attempt(
                "%s=%s" % (name, form),
                lambda: MQTTClient("h", **dict([("protocol", protocol), (name, secret)])),
            )
        attempt("%s=(%s)" % (name, form), lambda: MQTTClient("h", **{name: ("x", secret)}))
        attempt("%s=[%s]" % (name, form), lambda: MQTTClient("h", **{name: [secret]}))
    attempt("client_id " + form, lambda: MQTTClient("h", client_id=secret))
    attempt("port " + form, lambda: MQTTClient("h", secret))
    attempt("3rd " + form, lambda: MQTTClient("h", 1883, secret))
    attempt("all " + form, lambda: MQTTClient("h", secret, secret, secret))
    attempt("misspelt " + form, lambda: MQTTClient("h", passwd=secret))
    attempt("password alone " + form, lambda: MQTTClient("h", password=secret))
    attempt("user with NUL " + form, lambda: MQTTClient("h", user="u\\0%s" % (secret,)))
    attempt("hosts " + form, lambda: MQTTClient([("h", secret)]))
    attempt("hosts 3 " + form, lambda: MQTTClient([("h", 1, secret)]))
    attempt("prefer " + form, lambda: MQTTClient(["h", "i"], prefer_first_s=secret))
    attempt("url " + form, lambda: MQTTClient("mqtts://ann:%s@h:8883/?x" % (secret,)))
    attempt("user:password " + form, lambda: MQTTClient("ann:%s" % (secret,)))
    for name in ("ca", "cert", "key", "server_hostname", "ntp"):
        for given in (secret, [secret], (CA, secret), {"x": secret}):
            mine = {"ca": CA}
            mine[name] = given
            attempt("TLS %s %s" % (name, form), lambda: TLS(**mine))
    for given in (secret, [secret]):
        attempt("TLS pair " + form, lambda: TLS(CA, CERT, given))
        attempt("TLS pair the other way " + form, lambda: TLS(CA, given, KEY))
    attempt("unverified " + form, lambda: TLS.unverified(secret, secret))
    tls = TLS.unverified(ntp=secret)
    attempt("ntp " + form, lambda: MQTTClient("h", tls=tls))
    tls = TLS.unverified(ntp=("pool.ntp.org", secret))
    attempt("ntp port " + form, lambda: MQTTClient("h", tls=tls))
    for given in (
        lambda: Will(secret, ""), lambda: Will("t", {"x": secret}), lambda: Will("t", "", secret),
        lambda: Will("t", "", birth=[secret]), lambda: Will("t", "", delay_s=secret),
        lambda: MQTTClient("h", protocol=5, will=Will("t", "", properties=secret)),
        lambda: MQTTClient(
            "h", protocol=5, will=Will("t", "", properties={"content_type": [secret]})
        ),
        lambda: MQTTClient("h", will=("t", secret)),
    ):
        attempt("Will " + form, given)
    for name in ("ssid", "password", "networks", "country", "hostname", "static"):
        attempt("WiFi %s %s" % (name, form), lambda: WiFi(**{"ssid": "n", name: secret}))
        attempt("WiFi %s alone %s" % (name, form), lambda: WiFi(**{name: secret}))
    attempt("WiFi short " + form, lambda: WiFi("n", "%s" % (secret,) + "x" * 70))
    attempt("WiFi pair " + form, lambda: WiFi(networks=[("n", secret, 5)]))
    attempt("WiFi both " + form, lambda: WiFi("n", secret, networks=[("n", secret)]))
    for name in properties._NAMES:
        if name:
            attempt("property %s %s" % (name, form), lambda: properties.encode(
                {name: [secret, secret, secret]}, 0x10))
            attempt("property %s %s" % (name, form), lambda: properties.encode(
                {name: secret if name == "receive_maximum" else (secret, 5)}, 0x10))
    attempt("properties " + form, lambda: properties.encode(secret, 0x10))
    attempt("store " + form, lambda: FileStore(os.getcwd(), secret))
    attempt("store full " + form, lambda: FileStore(os.getcwd(), full=secret))
    attempt("store list " + form, lambda: FileStore([secret]))

print("tried", tried, "found", found)
"""


@pytest.fixture
def secrets(pki):
    pem = Path(pki.device.pkcs8_pem).read_text()
    lines = pem.splitlines()
    body = "".join(lines[1:-1])
    marks = [*lines[1:-1], body[:20], body[40:60], "S3CRET"]
    forms = {
        "text": "S3CRET",
        "text with marks": "S3CRET!h@nter/ 2",
        "text with dots": "my.S3CRET",
        "bytes": b"S3CRETS3CRET",
        "number": 52711388,
        "PEM": pem,
        "PEM with CRLF": pem.replace("\n", "\r\n"),
        "PEM cut": pem[:100],
        "PEM with a wrong begin": pem[1:],
        "PEM with a typo": pem.replace("BEGIN", "BEGlN"),
        "PEM without its lines": "\n".join(lines[1:-1]),
        "one line": body,
        "base64": base64.b64encode(b"S3CRET" * 5).decode(),
        "hexadecimal": b"S3CRET".hex() * 4,
        "bytes of PEM": pem.encode(),
        "bytes cut": pem[:100].encode(),
        "DER": Path(pki.device.pkcs8_der).read_bytes(),
        "DER cut": Path(pki.device.pkcs8_der).read_bytes()[:60],
    }
    marks += ["52711388", forms["base64"][:16], forms["hexadecimal"][:16]]
    marks += [repr(forms["DER"][40:50])[2:-1], repr(forms["DER cut"][40:50])[2:-1]]
    return forms, marks


def test_no_argument_shows_what_stands_there_by_mistake(secrets, pki, tmp_path):
    forms, marks = secrets
    names = {
        "SECRETS": forms,
        "MARKS": marks,
        "CA": str(pki.ca.cert_pem),
        "CERT": str(pki.device.cert_pem),
        "KEY": str(pki.device.key_pem),
        "FOLDER": str(tmp_path / "stores"),
    }
    (tmp_path / "stores").mkdir()
    program = tmp_path / "tries.py"
    program.write_text("".join(f"{name} = {value!r}\n" for name, value in names.items()) + TRIES)
    out = mpy.check(program, timeout_s=60)
    assert "LEAK" not in out and "RAW" not in out, out
    tried = int(out.split("tried ")[1].split()[0])
    assert tried > 3500 and "found 0" in out, out


def test_a_file_that_cannot_be_opened_is_named_where_it_is_one(pki):
    out = apps.check(
        """
        from mqtt_as_tls import TLS

        async def main():
            for name in ("/certs/nothing.der", "key.pem", "../a-b/c_d.CRT", "x" * 99 + ".der",
                         "nothing", "key.pem\\n", "a\\0.pem", "\\x1b[2J.pem", "secret.word"):
                try:
                    TLS(name)
                except ValueError as e:
                    print("said", e)
        """,
        0,
    )
    assert [line[8:] for line in out.splitlines() if line.startswith("said")] == [
        "/certs/nothing.der: cannot open ([Errno 2] ENOENT): copy it to the board",
        "key.pem: cannot open ([Errno 2] ENOENT): copy it to the board",
        "../a-b/c_d.CRT: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 103, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 7, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 8, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 6, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 8, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
        "a str of 11, no path of a file: cannot open ([Errno 2] ENOENT): copy it to the board",
    ]


def test_what_is_not_taken_of_compat_shows_no_secret(secrets, tmp_path):
    forms, marks = secrets
    program = tmp_path / "tries.py"
    program.write_text(
        f"SECRETS = {forms!r}\nMARKS = {marks!r}\n"
        + """
import sys
sys.path.append("compat")
from mqtt_as import MQTTClient, config

tried = 0
for form, secret in SECRETS.items():
    for name in config:
        if name in ("client_id", "server", "subs_cb", "wifi_coro", "connect_coro"):
            continue
        for given in (secret, [secret], {"cadata": secret, "key": secret, "cert": secret}):
            tried += 1
            mine = dict(config)
            mine["server"] = "h"
            mine["user"] = "ann"
            if name == "ssl_params":
                mine["ssl"] = True
            mine[name] = given
            try:
                MQTTClient(mine)
                continue
            except MemoryError:
                continue
            except Exception as e:
                text = "%s %r" % (e, e)
            for mark in MARKS:
                if mark in text:
                    print("LEAK", name, form, text)
print("tried", tried)
"""
    )
    out = mpy.check(program, cwd=mpy.ROOT, timeout_s=60)
    assert "LEAK" not in out, out
    assert int(out.split("tried ")[-1]) > 500


def test_a_refused_password_and_authentication_data_stay_out_of_the_log(tmp_path):
    """Neither the broker's refusal nor what comes of it says what was sent."""

    def script(connection):
        connection.packet()
        # it says back all that it was sent
        said = b"your password S3CRET"
        connection.send(
            b"\x20"
            + bytes([len(said) + 6])
            + b"\0\x86"
            + bytes([len(said) + 3, 0x1F, 0])
            + bytes([len(said)])
            + said
        )

    with (
        FakeBroker(script) as fake,
        Device(
            fake,
            """
        async with client:
            await until(lambda: client.error)
            await told("leave")
        """,
            protocol=5,
            user="ann",
            password="S3CRET",
        ) as device,
    ):
        device.wait_for("bad user name or password")
        device.leave()
    # a broker that shows the password to the log is a broker that knows it: what we add is nothing
    assert "S3CRET" not in json.dumps(
        [line for line in device.lines if "your password" not in line]
    )
