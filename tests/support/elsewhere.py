"""
What the test kit's modules take from outside of tests/: in the clone, and in the wheel that
tools/build.py makes, in which the same modules have another place.
"""

from pathlib import Path

if __package__.startswith("tests."):
    from tools.debian import CACHE, Unavailable, locked, run
    from tools.mqttls import library
    from tools.mqttls.broker import password_line
    from tools.ports import free_port, give_back

    PPP_LINK = Path(__file__).parents[2] / "examples/ppp_link.py"
else:
    import os

    from mqttls import library
    from mqttls.broker import password_line

    from ..tools.debian import Unavailable, locked, run
    from ..tools.ports import free_port, give_back

    PPP_LINK = Path(__file__).parents[1] / "virtual_pico/ppp_link.py"

    CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "mqtt-as-tls-testkit")

__all__ = [
    "CACHE",
    "PPP_LINK",
    "Unavailable",
    "free_port",
    "give_back",
    "library",
    "locked",
    "password_line",
    "run",
]
