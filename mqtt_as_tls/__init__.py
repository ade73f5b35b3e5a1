"""mqtt_as_tls: an asyncio MQTT client with TLS for MicroPython. Names are loaded when used."""

__version__ = "0.1.0"

_NAMES = {
    "MQTTClient": "client",
    "Will": "client",
    "Connected": "client",
    "Disconnected": "client",
    "Suspect": "client",
    "SubscriptionRefused": "client",
    "Message": "dispatch",
    "TLS": "tls",
    "WiFi": "wifi",
    "explain": "explain",
    "MQTTError": "errors",
    "LinkError": "errors",
    "ResolveError": "errors",
    "ConnectError": "errors",
    "TLSError": "errors",
    "CertificateError": "errors",
    "RefusedError": "errors",
    "ProtocolError": "errors",
    "DeliveryUnknown": "errors",
}


def __getattr__(name):
    module = _NAMES.get(name)
    if module is None:
        raise AttributeError(name)
    value = getattr(__import__(module, None, None, True, 1), name)
    globals()[name] = value
    return value
