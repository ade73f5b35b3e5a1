"""mqtt_as_tls: an asyncio MQTT client with TLS for MicroPython. Names are loaded when used."""

__version__ = "0.1.0"

_NAMES = {
    "MQTTClient": "client",
    "Will": "client",
    "Connected": "streams",
    "Disconnected": "streams",
    "Suspect": "streams",
    "SubscriptionRefused": "streams",
    "Message": "dispatch",
    "TLS": "tls",
    "WiFi": "wifi",
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
    try:
        value = __import__(module or name, globals(), None, [name], 1)
    except ImportError:
        if module:
            raise
        raise AttributeError(name)
    if module:
        value = getattr(value, name)
    globals()[name] = value
    return value
