"""The exception tree of the world's failures; the caller's are ValueError and TypeError."""


def printable(text):
    """
    Return `text` (str), in which may be what the broker or the network said, as one line for a log
    or an exception: what is no printable ASCII is escaped, and what is left out of the middle of
    more than 600 characters is "...".
    """
    for _ in "12":  # what is escaped is longer
        if len(text) > 600:
            text = text[:300] + "..." + text[-297:]
        data = text.encode()
        if data and (min(data) < 32 or max(data) > 126):
            text = repr(data)[2:-1]
    return text


class MQTTError(Exception):
    """
    Base of every error that the network, the broker or a certificate causes.

    Each class has one attribute of its own, given as the second argument, None by default.

    reason  str, what happened, in plain words
    cure    str, what to do about it; "" where nothing is known
    """

    cure = ""
    _field = "code"

    def __init__(self, text, value=None):
        self.reason = text = printable(text)
        super().__init__(text)
        setattr(self, self._field, value)


# A class statement takes 24 to 40 bytes more of a device's memory; what each means is in the stub

_NOTHING = {}  # what these have of their own: one for all

# The link (Wi-Fi) is not up: wrong password, no such network, no address.
# status  int that the driver reported, or None
LinkError = type("LinkError", (MQTTError,), {"_field": "status"})

# A name has no address, or no DNS server answered.
# host  str, the name that was asked for
ResolveError = type("ResolveError", (MQTTError,), {"_field": "host"})

# The connection was refused, timed out, or closed by the other side.
# code  int errno, or None
ConnectError = type("ConnectError", (MQTTError,), _NOTHING)

# The TLS handshake failed.
# code  int of mbedTLS or errno, or None
TLSError = type("TLSError", (MQTTError,), _NOTHING)

# The broker's certificate was not accepted: wrong CA, wrong name, wrong dates.
CertificateError = type("CertificateError", (TLSError,), _NOTHING)

# The broker answered no: CONNACK, SUBACK, in MQTT 5 any acknowledgement, or DISCONNECT.
# code        int, the return code (3.1.1 sections 3.2.2.3 and 3.9.3) or reason code (5.0, 2.4)
# reason      str, the code in words
# properties  dict of what the broker said with it (MQTT 5), or None
RefusedError = type("RefusedError", (MQTTError,), {"properties": None})

# The broker broke the specification; the message names the section.
# code  int, the reason code that MQTT 5 has for it, or None
ProtocolError = type("ProtocolError", (MQTTError,), _NOTHING)

# The session was lost while a QoS 2 message was under way: it may have been delivered.
# topic  str, where it was published
DeliveryUnknown = type("DeliveryUnknown", (MQTTError,), {"_field": "topic"})
