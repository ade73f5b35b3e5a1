"""
What is in a PKCS#12 file (PFX, RFC 7292), opened by a process of its own.

How often it has its passphrase hashed can stand in a part that is itself encrypted, where nobody
sees it beforehand, and while a library hashes nothing can interrupt it. A process can be ended.
"""

import base64
import json
import subprocess
import sys

from cryptography.hazmat.primitives import serialization

from . import certificates

LONGEST_S = 60

# Its folder is that of the command, which may hold anything: nothing is imported from there.
_PROGRAM = """\
import sys
sys.path[:] = [each for each in sys.path if each]
import base64, json, warnings
o = json.loads(sys.stdin.readline())
sys.path[:] = o["path"]
warnings.simplefilter("ignore")
from cryptography.hazmat.primitives import serialization as s
from cryptography.hazmat.primitives.serialization import pkcs12
data, r = base64.b64decode(o["data"]), {"error": ""}
for word in o["words"]:
    try:
        found = pkcs12.load_pkcs12(data, None if word is None else base64.b64decode(word))
        key = found.key and found.key.private_bytes(
            s.Encoding.DER, s.PrivateFormat.PKCS8, s.NoEncryption())
        held = [each.certificate for each in (found.cert, *found.additional_certs) if each]
        ders = [each.public_bytes(s.Encoding.DER) for each in held]
        r = {"key": key and base64.b64encode(key).decode(),
             "certificates": [base64.b64encode(each).decode() for each in ders]}
        break
    except Exception as error:
        r = {"error": str(error)[:200] or type(error).__name__}
print(json.dumps(r))
"""


class TooSlow(Exception):
    """It was not open within LONGEST_S."""


def load(data, words, longest_s=LONGEST_S):
    """
    Return (private key or None, list of x509.Certificate) in `data` (bytes, DER).

    words  passphrases to try, each bytes or None

    Raises ValueError with the library's words where none of them opens it, TooSlow.
    """
    asked = {
        "path": [each for each in sys.path if each],
        "data": base64.b64encode(data).decode(),
        "words": [None if each is None else base64.b64encode(each).decode() for each in words],
    }
    try:
        done = subprocess.run(
            [sys.executable, "-c", _PROGRAM],
            input=json.dumps(asked) + "\n",
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=longest_s,
        )
    except subprocess.TimeoutExpired:
        raise TooSlow from None
    try:
        said = json.loads(done.stdout)
    except ValueError:
        raise ValueError("the process that opens it failed") from None
    if "error" in said:
        raise ValueError(said["error"])
    key = said["key"] and serialization.load_der_private_key(base64.b64decode(said["key"]), None)
    ders = [base64.b64decode(each) for each in said["certificates"]]
    return key or None, [certificates.from_der(each) for each in ders]
