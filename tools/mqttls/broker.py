"""What mosquitto needs: its configuration, passwords, and how to install it."""

import base64
import hashlib
import os
import re
import secrets

from .messages import shell

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a user, as mosquitto.conf can have it

_CONFIGURATION = """\
# mosquitto for boards over TLS; written by mqttls, which writes it anew: change mqttls's options
# (mqttls broker-conf --help) or add a file of your own to conf.d instead.
{note}
per_listener_settings false
allow_anonymous false
acl_file {at}/acl
{users}{extra}{owner}
listener {listen}
certfile {at}/broker.crt
keyfile {at}/broker.key
{clients}# The oldest TLS that is accepted. Boards speak 1.2: tlsv1.3 would lock them out.
tls_version tlsv1.2
"""

_NOTE_MUTUAL = """\
# Only clients with a certificate of this authority get in, and their certificate's name is their
# user name. These rules hold for every listener of this mosquitto."""

_NOTE_SERVER_ONLY = """\
# Clients check the broker's certificate and give a user name and a password. These rules hold for
# every listener of this mosquitto."""

_CLIENTS = """\
cafile {at}/ca.crt
crlfile {at}/crl.pem
require_certificate true
use_identity_as_username true
"""

_OWNER = """\
# Started by root, it becomes the owner of this folder: nobody else may read these files.
user {owner}
"""

_PERSISTENCE = """\
persistence true
persistence_location /mosquitto/data/
log_dest stderr
"""

_INSTALL = """\
#!/bin/sh
# Puts these files where mosquitto reads them, then has it use them. Run it on the broker:
#
#   sudo sh install.sh           after a first installation, a revocation, a new authority
#   sudo sh install.sh reload    after the renewal of the broker's certificate: nobody is cut off
#
# ETC    mosquitto's folder (/etc/mosquitto; with Homebrew: $(brew --prefix)/etc/mosquitto)
# OWNER  the user that mosquitto runs as (mosquitto)
# START  command instead of `systemctl restart mosquitto`; "true" for none
set -eu
here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
etc=${{ETC:-/etc/mosquitto}}
owner=${{OWNER:-mosquitto}}
verb=${{1:-restart}}
files="{files}"

fail() {{
    echo "install.sh: $1" >&2
    exit 1
}}

case $verb in restart | reload) ;; *) fail "it takes nothing or: reload" ;; esac
[ -d "$etc" ] || fail "there is no $etc: install mosquitto first, or set ETC to its folder"
id "$owner" >/dev/null 2>&1 || fail "there is no user $owner: set OWNER to mosquitto's user"
for file in $files mosquitto.conf; do
    [ -r "$here/$file" ] || fail "$here/$file is missing: run mqttls broker-conf"
done

umask 077
mkdir -p "$etc/mqttls" "$etc/conf.d"
chmod 755 "$etc/conf.d"
for file in $files; do
    cp "$here/$file" "$etc/mqttls/$file.new"
    chown "$owner" "$etc/mqttls/$file.new"
done
chown "$owner" "$etc/mqttls"
for file in $files; do
    mv "$etc/mqttls/$file.new" "$etc/mqttls/$file"
done
sed -E -e "/^# Started by root|^user /d" \\
    -e "s|^((ca\\|cert\\|key\\|crl\\|acl_\\|password_)file) .*/|\\1 $etc/mqttls/|" \\
    "$here/mosquitto.conf" >"$etc/conf.d/mqttls.conf.new"
chmod 644 "$etc/conf.d/mqttls.conf.new"
mv "$etc/conf.d/mqttls.conf.new" "$etc/conf.d/mqttls.conf"
echo "installed $etc/conf.d/mqttls.conf and $etc/mqttls/"

main=$etc/mosquitto.conf
if ! grep -Eqs "^include_dir[[:space:]]+$etc/conf.d/?[[:space:]]*$" "$main"; then
    fail "$main does not read conf.d: add this line to it, then run me again:
include_dir $etc/conf.d"
fi
if [ -n "${{START:-}}" ]; then
    $START
elif command -v systemctl >/dev/null 2>&1; then
    systemctl "$verb" mosquitto || fail "mosquitto did not start; its log says why:
journalctl -u mosquitto -n 20; tail /var/log/mosquitto/mosquitto.log"
    sleep 1
    systemctl is-active --quiet mosquitto || fail "mosquitto ended; its log says why:
journalctl -u mosquitto -n 20; tail /var/log/mosquitto/mosquitto.log"
    echo "mosquitto {listens}"
else
    echo "now $verb mosquitto (Homebrew: brew services restart mosquitto)"
fi
"""

_COMPOSE = """\
# mosquitto in Docker; written by mqttls. In this folder:
#
#   docker compose up -d                     starts it
#   docker compose up -d --force-recreate    after a change by mqttls
#   docker compose run --rm files && docker compose kill -s HUP mosquitto
#                                            after a renewal of the broker's certificate: nobody
#                                            is cut off
services:
  files: # copies these files to where mosquitto, and nobody else, can read them
    image: eclipse-mosquitto:2
    user: root
    entrypoint: ["sh", "-ec"]
    command: ["{copy}"]
    volumes:
      - .:/from:ro
      - config:/mosquitto/config
      - data:/mosquitto/data
  mosquitto:
    image: eclipse-mosquitto:2
    restart: unless-stopped
    user: "1883:1883" # mosquitto's, in that image
    command: mosquitto -c /mosquitto/config/mosquitto.docker.conf
    ports:
      - "{published}:{port}"
    volumes:
      - config:/mosquitto/config:ro
      - data:/mosquitto/data
    depends_on:
      files:
        condition: service_completed_successfully
volumes:
  config:
  data:
"""

_COPY = (
    "cd /from; umask 077; cp {files} mosquitto.docker.conf /mosquitto/config/; "
    "chmod 700 /mosquitto/config; chown -R 1883:1883 /mosquitto/config /mosquitto/data"
)


def configuration(settings, at, *, owner="", docker=False):
    """
    Return the text of mosquitto.conf.

    settings  dict of settings.json
    at        folder of the files that it names, as mosquitto sees it
    owner     name of the user who may read them, "" where mosquitto's own user may
    docker    it runs in a container: on every address of it, with its state on a volume
    """
    server_only = settings["server_only"]
    bind = settings.get("bind")
    return _CONFIGURATION.format(
        note=_NOTE_SERVER_ONLY if server_only else _NOTE_MUTUAL,
        at=at,
        users=f"password_file {at}/passwords\n" if server_only else "",
        extra=_PERSISTENCE if docker else "",
        owner=_OWNER.format(owner=owner) if _NAME.fullmatch(owner) else "",
        listen=f"{settings['port']} {bind}" if bind and not docker else settings["port"],
        clients="" if server_only else _CLIENTS.format(at=at),
    )


def _files(settings):
    """Return the names of the files that mosquitto.conf names (str)."""
    names = "broker.crt broker.key ca.crt crl.pem acl"
    return f"{names} passwords" if settings["server_only"] else names


def install_script(settings):
    """Return the text of install.sh."""
    return _INSTALL.format(files=_files(settings), listens=f"listens on port {settings['port']}")


def install_command(folder, verb=""):
    """
    Return the command that installs the broker's files.

    folder  Path of the folder of certificates
    verb    "reload" cuts nobody off
    """
    script = (folder / "broker/install.sh").as_posix()  # also where Windows made it
    return shell("sudo", "sh", script, *([verb] if verb else []))


def compose(settings):
    """Return the text of compose.yaml."""
    port, bind = settings["port"], settings.get("bind")
    return _COMPOSE.format(
        copy=_COPY.format(files=_files(settings)),
        published=f"{bind}:{port}" if bind else port,
        port=port,
    )


def new_password():
    """Return a random password (str) of 20 letters and digits, 100 bits."""
    alphabet = "abcdefghijkmnpqrstuvwxyz23456789"
    return "".join(secrets.choice(alphabet) for _ in range(20))


def password_line(user, password):
    """Return the line of mosquitto's password file: PBKDF2 with SHA-512, as mosquitto_passwd."""
    return _password_line(user, password, os.urandom(12))


def _password_line(user, password, salt):
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, 101)
    salt, digest = (base64.b64encode(each).decode() for each in (salt, digest))
    return f"{user}:$7$101${salt}${digest}\n"


def is_password_line(line, user, password):
    """Tell whether `line` (str, of the password file) lets the user in with that password."""
    try:
        salt = base64.b64decode(line.split("$")[3], validate=True)
    except (IndexError, ValueError):
        return False
    return line == _password_line(user, password, salt)
