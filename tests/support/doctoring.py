"""What the doctor's tests share: wrong certificates, wrong servers, and the doctor's word."""

import contextlib
import io
import json
import ssl
import subprocess

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, padding

from tests.support import mpy, pki
from tests.support.broker import HOST
from tests.support.server import server
from tools.mqttls.cli import main


def mqttls(*arguments):
    """Run `mqttls ... --json`; return its JSON object (dict); `exit` is the exit status."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        status = main([*map(str, arguments), "--json"])
    said = json.loads(out.getvalue())
    assert said["exit"] == status
    return said


class Word:
    """What the doctor said: `.json`, `.rows` of the problems, `.remarks` {row: finding}."""

    def __init__(self, said):
        self.json = said
        found = said.get("findings", [])
        self.problems = [each for each in found if each["level"] == "problem"]
        self.rows = [each["row"] for each in self.problems]
        self.remarks = {each["row"]: each for each in found if each["level"] == "remark"}
        self.first = self.problems[0] if self.problems else None
        self.stages = {stage: each["state"] for stage, each in said.get("stages", {}).items()}
        self.attempt = said.get("attempt")

    def __repr__(self):
        return json.dumps(self.json, indent=1)

    def names(self, row, stage, *words):
        """
        Assert that the doctor's verdict is `row` at `stage`, with these `words` in what it says,
        that it gives a cure, and that the exit status is 1. Returns itself.
        """
        assert self.first, self
        assert self.first["row"] == row, self
        assert self.first["stage"] == stage, self
        assert self.first["cause"] and self.first["cure"], self
        text = f"{self.first['fact']} {self.first['cause']} {self.first['cure']}"
        for each in words:
            assert each in text, f"{each!r} is not in {text!r}"
        assert self.json["exit"] == 1
        problem = self.json["problems"][0]
        assert (problem["stage"], problem["fact"]) == (stage, self.first["fact"])
        return self


def doctor(port=None, *arguments, ca=None, device=None, host=HOST, timeout_s=5):
    """
    Return the doctor's Word about the broker on `port`.

    ca      Identity that the board trusts, or a list of them
    device  Identity that the board shows
    """
    line = ["doctor", "--timeout", timeout_s]
    if port is not None:
        line.append(f"{host}:{port}")
    for each in ca if isinstance(ca, list) else [ca] if ca else []:
        line += ["--ca", each.cert_der]
    if device:
        line += ["--cert", device.cert_der, "--key", device.key_der]
    return Word(mqttls(*line, *arguments))


def cured(word, folder):
    """Run the command that the first problem's cure names (str), in `folder`."""
    line = word.first["cure"].partition(": ")[2] or word.first["cure"]
    done = subprocess.run(line, shell=True, cwd=folder, capture_output=True, timeout=60)
    assert done.returncode == 0, (line, done.stderr)


def on_a_board(*given):
    """Return what MicroPython says to TLS(*given), "" for nothing."""
    done = mpy.run("import sys\nfrom mqtt_as_tls import TLS\nTLS(*sys.argv[1:])", *given)
    return (done.out + done.err).strip()


def explained(error):
    """Return "cause | cure" of `mqttls explain ERROR`, which must know it."""
    said = mqttls("explain", error)
    assert said["exit"] == 0, said
    return f"{said['cause']} | {said['cure']}"


_BARE = """
import socket, sys, tls
port, ca, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
try:
    context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
    if name == "CERT_NONE":
        context.verify_mode = tls.CERT_NONE
    if ca:
        with open(ca, "rb") as file:
            context.load_verify_locations(file.read())
    if len(sys.argv) > 4:
        with open(sys.argv[4], "rb") as cert, open(sys.argv[5], "rb") as key:
            context.load_cert_chain(cert.read(), key.read())
    s = socket.socket()
    s.connect(socket.getaddrinfo("127.0.0.1", port)[0][-1])
    s = context.wrap_socket(s, server_hostname=name or None)
    s.write(b"\\x10\\x0f\\x00\\x04MQTT\\x04\\x02\\x00<\\x00\\x03abc")
    print("CONNACK", s.read(4))
except Exception as error:
    print(repr(error))
"""


def bare(port, ca="", name="localhost", *pair, env=None):
    """
    Connect as a MicroPython program without this package does; return the error as the console
    shows it (str), or "CONNACK ...".

    ca  path of DER, "" for none; name  "" for none, "CERT_NONE" for no verification
    """
    return " ".join(mpy.check(_BARE, port, ca, name, *pair, env=env).split("\n")).strip()


def forge(
    pki_,
    name,
    usage="server",
    *,
    issuer=None,
    key="p256",
    basic=(False, None),
    key_usage="digital_signature",
    more=(),
    names=pki.NAMES,
    addresses=pki.ADDRESSES,
    valid_from=pki.EPOCH,
    valid_to=None,
    subject=None,
    hashed=None,
    pss=False,
):
    """
    Return an Identity as a careless person makes it.

    usage      "server", "client", "" for none
    basic      (CA, path length), or None for no basicConstraints
    key_usage  names of KeyUsage's fields with blanks between; None for no keyUsage
    more       list of (extension, critical)
    """
    private = pki.new_key(key)
    extensions = []
    if basic:
        extensions.append((x509.BasicConstraints(*basic), True))
    if key_usage is not None:
        extensions.append((pki.key_usage(key_usage), True))
    if usage:
        extensions.append((x509.ExtendedKeyUsage([pki.USES[usage]]), False))
    if usage == "server":
        extensions.append((pki.alternatives(names, addresses), False))
    how = {"hashed": hashed or hashes.SHA256()}
    if isinstance(issuer.key if issuer else private, ed25519.Ed25519PrivateKey):
        how["hashed"] = None
    elif pss:
        how["rsa_padding"] = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
    certificate = pki.signed(
        subject or name,
        private,
        issuer,
        [*extensions, *more],
        valid_from=valid_from,
        valid_to=valid_to,
        **how,
    )
    return pki.Identity(pki_.directory, name, certificate, private, issuer)


def revocations(issuer, path, *revoked, next_update=None):
    """Write the CRL of the CA `issuer`, with the certificates of `revoked`, to `path` as PEM."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(pki.days(-100))
        .next_update(next_update or pki.days(3650))
    )
    for each in revoked:
        builder = builder.add_revoked_certificate(
            x509.RevokedCertificateBuilder()
            .serial_number(each.certificate.serial_number)
            .revocation_date(pki.days(-1))
            .build()
        )
    made = builder.sign(issuer.key, hashes.SHA256())
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    return path


def conf_of(broker):
    """Return the path (str) of the configuration of a Broker."""
    return str(broker.directory / "broker.toml")


def log_of(broker):
    """Return the path (str) of the log of a Broker."""
    return str(broker.directory / "broker.log")


def server_context(identity):
    """Return Python's ssl context of a server with the certificate of `identity`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(identity.chain_pem, identity.key_pem)
    return context


@contextlib.contextmanager
def tls_server(context, answer=b"\x20\x02\0\0"):
    """
    Serve TLS by `context` (or a function that returns one); yield the port. What comes first is
    answered with `answer`; b"" closes.
    """

    def handle(connection):
        chosen = context() if callable(context) else context
        with contextlib.suppress(OSError), chosen.wrap_socket(connection, True) as sock:
            if sock.recv(1000) and answer:
                sock.sendall(answer)
                sock.recv(1000)

    with server(handle) as port:
        yield port
