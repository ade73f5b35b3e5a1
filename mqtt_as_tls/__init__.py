"""mqtt_as_tls: an asyncio MQTT client with TLS for MicroPython. Names are loaded when used."""

__version__ = "0.1.0"

# A tuple of constants: frozen, it takes no memory
_NAMES = (
    ("client", "MQTTClient"),
    ("dispatch", "Message"),
    (
        "errors",
        "MQTTError LinkError ResolveError ConnectError TLSError CertificateError RefusedError"
        " ProtocolError DeliveryUnknown",
    ),
    ("iterators", "Connected Disconnected Suspect SubscriptionRefused Undelivered Oversized"),
    ("store", "FileStore"),
    ("tls", "TLS"),
    ("wifi", "WiFi"),
    ("will", "Will"),
)


def __getattr__(name):
    # or what importing leaves would lie between what stays, and later the largest block be small
    import gc

    gc.collect()
    for module, names in _NAMES:
        if name in names.split():
            value = getattr(__import__(module, globals(), None, [name], 1), name)
            break
    else:
        try:
            value = __import__(name, globals(), None, [name], 1)
        except ImportError:
            raise AttributeError(name)
    globals()[name] = value
    return value


def unload(*names):
    """Unload modules of the package, if they are there: another needs the memory."""
    import gc
    import sys

    found = None
    for name in names:
        found = sys.modules.pop(__name__ + "." + name, None) or found
        globals().pop(name, None)
    if found:
        gc.collect()  # or what comes next would lie behind them
