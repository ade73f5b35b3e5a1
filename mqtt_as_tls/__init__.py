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
    (
        "iterators",
        "Connected Disconnected RadioDead Suspect SubscriptionRefused Undelivered Oversized",
    ),
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
            value = getattr(load(module), name)
            break
    else:
        try:
            value = load(name)
        except ImportError:
            raise AttributeError(name)
    globals()[name] = value
    return value


def load(*names):
    """
    Import modules of the package, those first that others import at their top; return the last.

    MicroPython notes the name of a module before there is memory for it, and the next import would
    crash. So what could not be imported is forgotten.
    """
    import sys

    for name in names:
        path = __name__ + "." + name
        try:
            module = __import__(name, globals(), None, ("",), 1)
        except BaseException:
            sys.modules.pop(path, None)
            raise
    return module


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
