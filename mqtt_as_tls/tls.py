"""A TLS context from PEM or DER that always verifies, and the errors of a handshake by name."""

import tls  # the firmware's C module: the import is absolute, it never finds this file
from micropython import const

from . import load, unload
from .errors import CertificateError, TLSError

# Out of memory in the modules of mbedTLS, each error divided by -128: SSL, cipher, MD, ECP,
# RSA private, RSA public, PK, a key, X.509.
_MEMORY = const(b"\xfe\xc3\xa3\x9b\x86\x85\x7f\x76\x51")


class TLS:
    """
    How to reach a broker over TLS: whom to trust, and who we are.

    ca    whom to trust: the certificate of the CA that signed the broker's, or the broker's own
          if it is self-signed. A path (str), the content (bytes-like, or str with the PEM text),
          or a list of these; PEM or DER, each with one certificate or several
    cert  the device's certificate, for brokers that want one (mutual TLS), and those of the CAs
          between it and the root, where the broker does not have them; given as `ca` is. All are
          sent, in their order: the device's own first
    key   its private key, not encrypted; a path or the content
    server_hostname
          str, the name that must be in the broker's certificate, where that is not the host that
          is dialled; it is also the name sent to the broker (SNI)
    ntp   what sets the clock before the first handshake if it is wrong: a name, an address, an
          ("address", port) tuple, or None for never

    Attributes: `context` (a tls.SSLContext, which umqtt.simple takes too), `verified` (bool),
    `server_hostname`, `ntp`, `rsa` (bool, the key is of RSA), `ends` (str, when
    the device's certificate ends, as YYYYMMDDHHMMSSZ, or None); `seen`, the bytes of the broker's
    largest certificate in the last handshake, 0: it has shown none; after a handshake with a
    verified broker `proved_s`, the clock at the last one (s).

    Raises ValueError, with the file's name and what to do, for what is missing, empty, encrypted,
    damaged, of another kind, or not a pair; TypeError for other types.
    """

    def __init__(self, ca=None, cert=None, key=None, *, server_hostname=None, ntp="pool.ntp.org"):
        self.server_hostname = server_hostname
        self.ntp = ntp
        self.seen = 0
        self.verified = ca is not TLS
        self.context = context = tls.SSLContext(tls.PROTOCOL_TLS_CLIENT)
        context.verify_mode = tls.CERT_REQUIRED if self.verified else tls.CERT_NONE
        context.verify_callback = self._see
        self.rsa, self.ends = load("tls_files").fill(context, ca, cert, key, server_hostname)
        unload("tls_files")

    @classmethod
    def unverified(cls, cert=None, key=None, **options):
        """
        Return a TLS that encrypts but believes any broker: whoever is in between can read and
        change everything. For a first try on a bench; arguments and errors are those of TLS.
        """
        return cls(TLS, cert, key, **options)

    def _see(self, certificate, depth):
        # mbedTLS shows the broker's certificates; it decides about them, whatever we think.
        self.seen = max(self.seen, len(certificate))
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
        self.seen = 0
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
        elif self.seen:
            reason += " after the broker's certificate"
        elif code == -30592 and self._name.replace(".", "").isdigit():
            # MicroPython checks the certificate for the name that it sends, and for no other
            reason += " at the address %s as server name" % self._name
        return kind("TLS handshake %s (%s)" % (reason, code), code)
