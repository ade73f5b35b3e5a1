"""The config.py of a board in tests: the names of examples/config.py."""

WIFI = ("my-ssid", "my-password")  # what the examples and the docs say

_TEXT = """\
from mqtt_as_tls import TLS, WiFi
{imports}
host = {host!r}
port = {port}
client_id = {client_id!r}
user = {user!r}
password = {password!r}
link = {link}
tls = {tls}
mqtt = {{
    "host": host,
    "port": port,
    "client_id": client_id,
    "user": user,
    "password": password,
    "link": link,
    "tls": tls,
}}
home = "devices/" + client_id + "/"
"""


def text(
    host, port, client_id, *, tls, link=None, wifi=True, imports="", user=None, password=None
):
    """
    Return it (str).

    host, port, client_id  as MQTTClient takes them; user, password  too
    tls    str, source text
    wifi   the board joins a network; False: it is in one
    link, imports  str, source text of another link, and of what it imports
    """
    return _TEXT.format(
        imports=imports,
        host=host,
        port=port,
        client_id=client_id,
        user=user,
        password=password,
        link=link or ("WiFi({!r}, {!r})".format(*WIFI) if wifi else None),
        tls=tls,
    )
