"""A TLS context from PEM or DER that always verifies, and the errors of a handshake by name."""

from binascii import a2b_base64

from micropython import const

try:
    import tls  # the firmware's C module: the import is absolute, it never finds this file
except ImportError:
    import ssl as tls  # MicroPython 1.22 has the C module under this name

from . import load
from .errors import CertificateError, TLSError

_CERTIFICATE = const(b"CERTIFICATE")
_KEY = const(b"PRIVATE KEY")
_BEGIN = const(b"-----BEGIN ")

# How a P-256 and an RSA-2048 public key begin in DER, in a certificate and in its key alike.
_PUBLIC = const((b"\x03B\0\x04", b"\x02\x82\x01\x01\0"))

# Out of memory in the modules of mbedTLS, each error divided by -128: SSL, cipher, MD, ECP,
# RSA private, RSA public, PK, a key, X.509.
_MEMORY = const(b"\xfe\xc3\xa3\x9b\x86\x85\x7f\x76\x51")


def _wrong(name, problem, detail=None):
    return load("argument_errors").file(name, problem, detail)


def _load(what, source, label, use=None):
    # Call `use` with the DER of each `label` in `source`; without `use` return the name of
    # `source` for messages and the first DER. One by one, because mbedTLS reads only the first of
    # several in DER; as DER, because releases up to 1.28 read nothing else.
    name = what
    if isinstance(source, str):
        if "-----B" in source:
            source = source.encode()
        else:
            name += " " + source
            try:
                with open(source, "rb") as file:
                    source = file.read()
            except OSError as error:
                raise _wrong(name, "open", error)
    elif not isinstance(source, (bytes, bytearray, memoryview)):
        raise TypeError(what + " must be a path or bytes")
    data = bytes(source)
    problem = "cut"
    found = False
    at = max(data.find(_BEGIN), 0)
    try:
        while 0 <= at < len(data):
            if data[at] == 45:  # "-": PEM
                head = data.index(b"-----", at + 11)
                end = data.index(b"-----END ", head + 5)
                encrypted = b"ENCRYPTED" in data[at:end]
                at = data.find(_BEGIN, end)
                if not data[:head].endswith(label):
                    continue
                if encrypted:
                    problem = "encrypted"
                    raise ValueError
                der = a2b_base64(data[head + 5 : end])
            else:
                # Each element begins with its length (X.690 section 8.1.3).
                head = at + 2
                size = data[at + 1]
                if size > 127:
                    head += size & 127
                    size = int.from_bytes(data[at + 2 : head], "big")
                # A key begins with its version, an INTEGER; a certificate, an encrypted key don't.
                if data[at] != 48 or (data[head] == 2) != (label == _KEY):
                    problem = "der"
                    raise ValueError
                der = data[at : head + size]
                at = head + size
                if at > len(data):
                    raise ValueError
            if not use:
                return name, der
            found = True
            problem = "read"
            use(der)
            problem = "cut"
        if not found:
            problem = "find" if data else "empty"
            raise ValueError
    except (ValueError, IndexError):
        raise _wrong(name, problem, label.decode())


class TLS:
    """
    How to reach a broker over TLS: whom to trust, and who we are.

    ca    whom to trust: the certificate of the CA that signed the broker's, or the broker's own
          if it is self-signed. A path (str), the content (bytes-like, or str with the PEM text),
          or a list of these; PEM or DER, each with one certificate or several
    cert  the device's certificate, for brokers that want one (mutual TLS); a path or the content.
          Of a chain only the first certificate is used: the broker needs the intermediate ones
    key   its private key, not encrypted; a path or the content
    server_hostname
          str, the name that must be in the broker's certificate, where that is not the host that
          is dialled; it is also the name sent to the broker (SNI)
    ntp   what sets the clock before the first handshake if it is wrong: a name, an address, an
          ("address", port) tuple, or None for never

    Attributes: `context` (a tls.SSLContext, which umqtt.simple takes too), `verified` (bool),
    `server_hostname`, `ntp`.

    Raises ValueError, with the file's name and what to do, for what is missing, empty, encrypted,
    damaged, of another kind, or not a pair; TypeError for other types.
    """

    def __init__(self, ca=None, cert=None, key=None, *, server_hostname=None, ntp="pool.ntp.org"):
        if not ca:
            raise _wrong("no ca", "ca")
        if (cert is None) != (key is None):
            raise ValueError("give both cert and key, or none")
        self.server_hostname = server_hostname and server_hostname + ""  # TypeError unless str
        self.ntp = ntp
        self.verified = ca is not TLS
        self.context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED
        if not self.verified:
            context.verify_mode = tls.CERT_NONE
            ca = ()
        elif not isinstance(ca, (list, tuple)):
            ca = (ca,)
        if hasattr(context, "verify_callback"):
            context.verify_callback = self._see
        for source in ca:
            _load("ca", source, _CERTIFICATE, context.load_verify_locations)
        if cert is not None:
            name, cert = _load("cert", cert, _CERTIFICATE)
            key_name, key = _load("key", key, _KEY)
            for mark in _PUBLIC:
                at = key.find(mark)
                # mbedTLS takes any two, and then the broker hangs up.
                if 0 <= at < 99 and key[at : at + 60] not in cert:
                    raise _wrong(key_name, "key", name)
            try:
                context.load_cert_chain(cert, key)
            except ValueError:
                raise _wrong(name + ", " + key_name, "read")

    @classmethod
    def unverified(cls, cert=None, key=None, **options):
        """
        Return a TLS that encrypts but believes any broker: whoever is in between can read and
        change everything. For a first try on a bench; arguments and errors are those of TLS.
        """
        return cls(TLS, cert, key, **options)

    def _see(self, certificate, depth):
        # mbedTLS shows the broker's certificates; it decides about them, whatever we think.
        self._seen = True
        return 0

    def wrap(self, sock, host):
        """
        Return the TLS socket over `sock`; the handshake runs in its first reads and writes.

        sock  a connected socket; keep it, and close both: a failed handshake leaves it open
        host  str, the name that was dialled; checked against the certificate and sent (SNI),
              unless `server_hostname` says another. MicroPython sends an address, too, which
              RFC 6066 section 3 forbids and some brokers refuse

        Raises OSError or MemoryError where there is no memory: see failure().
        """
        self._seen = False
        self._name = name = self.server_hostname or host
        return self.context.wrap_socket(
            sock,
            server_hostname=name,
            do_handshake_on_connect=False,
        )

    def failure(self, error):
        """
        Return the CertificateError or TLSError for what a handshake raised; None for what cannot
        come from one (neither OSError, ValueError nor MemoryError).

        error  exception of wrap(), or of a read or write before the handshake was over

        `code` is the number of mbedTLS or the errno, None for certificates. `reason` says where
        memory ran out, and where the broker hung up after its certificate was read: then it is
        ours that it refused. `cure` is left empty: explain.explain() knows it.
        """
        if isinstance(error, ValueError):
            return CertificateError(str(error).strip().replace("\n\n", "; "))
        code = 12
        if isinstance(error, OSError):
            code = error.errno
        elif not isinstance(error, MemoryError):
            return None
        kind = TLSError
        reason = "broken off"
        # mbedTLS counts its modules in steps of 128.
        module = -(code or 0) >> 7
        # 16 and 106 are its -16 and -106, which MicroPython takes for an errno.
        if code in (12, 16, 106) or module in _MEMORY:
            reason = "out of memory"
        elif 64 < module < 84 or module == 244:  # X.509, wrong usage
            kind = CertificateError
        elif self._seen:
            reason += " after the broker's certificate"
        elif code == -30592 and self._name.replace(".", "").isdigit():
            # MicroPython checks the certificate for the name that it sends, and for no other
            reason += " at the address %s as server name" % self._name
        return kind("TLS handshake %s (%s)" % (reason, code), code)
