"""Device apps over TLS: what tests/support/apps.py does, with the arguments of TLS as a dict."""

import json
import textwrap

from tests.support import apps


def files(ca=None, device=None, form="der", **more):
    """
    Return arguments of TLS (dict) that name the files of identities.

    ca      Identity to trust, or None
    device  Identity of the device, or None
    form    "der" or "pem"
    """
    arguments = dict(more)
    if ca:
        arguments["ca"] = getattr(ca, f"cert_{form}")
    if device:
        arguments.setdefault("cert", getattr(device, f"cert_{form}"))
        arguments["key"] = getattr(device, f"key_{form}")
    return arguments


def _prepare(app, arguments, options):
    # not in argv: MicroPython takes no more than 255 characters there
    options["env"] = {**(options.get("env") or {}), "TLS": json.dumps(arguments)}
    return "from tests.device.secure import *\n" + textwrap.dedent(app)


def start(app, port, arguments, *args, **options):
    """Start `app`, whose tls_given() is TLS(**arguments); return a mpy.Program to follow it."""
    return apps.start(_prepare(app, arguments, options), port, *args, **options)


def check(app, port, arguments, *args, **options):
    """Run `app` to its end and return its stdout; AssertionError unless it exits with 0."""
    return apps.check(_prepare(app, arguments, options), port, *args, **options)
