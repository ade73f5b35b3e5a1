"""The exception tree. ValueError and TypeError are the caller's mistakes; these are the world's."""


class MQTTError(Exception):
    """Base of every error that the network, the broker or a certificate causes."""


class LinkError(MQTTError):
    """
    The link (Wi-Fi) is not up: wrong password, no such network, no address.

    status  int that the driver reported, or None
    """

    def __init__(self, text, status=None):
        super().__init__(text)
        self.status = status


class ResolveError(MQTTError):
    """
    A name has no address, or no DNS server answered.

    host  str, the name that was asked for
    """

    def __init__(self, text, host=None):
        super().__init__(text)
        self.host = host


class ConnectError(MQTTError):
    """
    The connection was refused, timed out, or closed by the other side.

    code  int errno, or None
    """

    def __init__(self, text, code=None):
        super().__init__(text)
        self.code = code


class TLSError(MQTTError):
    """
    The TLS handshake failed.

    code    int of mbedTLS or errno, or None
    reason  str, what happened, in plain words
    cure    str, what to do about it; "" where nothing is known
    """

    def __init__(self, reason, code=None, cure=""):
        super().__init__(reason)
        self.code = code
        self.reason = reason
        self.cure = cure


class CertificateError(TLSError):
    """The broker's certificate was not accepted: wrong CA, wrong name, wrong dates."""


class RefusedError(MQTTError):
    """
    The broker answered no: CONNACK, SUBACK or PUBACK.

    code    int, the return code (3.1.1 sections 3.2.2.3 and 3.9.3)
    reason  str, the code in words
    """

    def __init__(self, reason, code=None):
        super().__init__(reason)
        self.code = code
        self.reason = reason


class ProtocolError(MQTTError):
    """The broker broke the specification; the message names the section."""


class DeliveryUnknown(MQTTError):
    """
    The session was lost while a QoS 2 message was under way: it may have been delivered.

    topic  str, where it was published
    """

    def __init__(self, text, topic=None):
        super().__init__(text)
        self.topic = topic
