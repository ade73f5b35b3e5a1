"""What mosquitto needs: its configuration, passwords, and how to install it."""

import base64
import hashlib
import os
import re
import secrets

from .messages import shell

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")  # of a user, as mosquitto.conf can have it

# What one client, or many, can take of the broker: mosquitto's names and our numbers
LIMITS = {
    "max_packet_size": 4 * 1024 * 1024,  # a firmware, in one message
    "memory_limit": 256 * 1024 * 1024,
    "max_queued_messages": 1000,
    "max_queued_bytes": 16 * 1024 * 1024,
    "max_connections": 1000,
}
_HIGHEST = {"max_packet_size": 268_435_460, "max_connections": 1_000_000}

_CONFIGURATION = """\
# mosquitto for boards over TLS; written by mqttls, which writes it anew: change mqttls's options
# (mqttls broker-conf --help) or add a file of your own to conf.d instead.
{note}
per_listener_settings false
allow_anonymous false
acl_file {at}/acl
{users}
# What a client can take (mqttls broker-conf --limit NAME=NUMBER changes it). Bytes of a message
# with its topic: who sends more is cut off, before it is in memory.
max_packet_size {max_packet_size}
# Bytes of memory that mosquitto takes in all: then it refuses what is new, and goes on.
memory_limit {memory_limit}
# What waits for one client that is away; what comes then is dropped.
max_queued_messages {max_queued_messages}
max_queued_bytes {max_queued_bytes}
# Sessions, what waits in them, and retained messages outlive a restart.
persistence true
persistence_location {state}/
autosave_interval 300
{extra}{owner}
listener {listen}
max_connections {max_connections}
certfile {at}/broker.crt
keyfile {at}/broker.key
{clients}# A user name is a client id, too: no client takes another's place, or what waits for it.
use_username_as_clientid true
# The oldest TLS that is accepted. Boards speak 1.2: tlsv1.3 would lock them out.
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

_INSTALL = """\
#!/bin/sh
# Puts these files where mosquitto reads them, then has it use them. Run it on the broker:
#
#   sudo sh install.sh           after a first installation, a revocation, a new authority
#   sudo sh install.sh reload    after the renewal of the broker's certificate: nobody is cut off
#
# ETC    mosquitto's folder (/etc/mosquitto; with Homebrew, where it runs as you, without sudo:
#        ETC=$(brew --prefix)/etc/mosquitto OWNER=$USER sh install.sh)
# OWNER  the user that mosquitto runs as (mosquitto)
# STATE  where it keeps its state, if its own configuration does not say (/var/lib/mosquitto)
# START  command instead of `systemctl restart mosquitto`; "true" for none
#
# What it installs is root's, and mosquitto may only read it: whoever takes over the broker changes
# neither its rules nor its passwords. (Versions of mosquitto that warn that they are not the owner
# of these files say so because of that.)
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

state=${{STATE:-/var/lib/mosquitto}}
case $etc$state in *[!A-Za-z0-9/._\\ +@-]*) fail "ETC and STATE have plain letters only" ;; esac
etc=$(CDPATH='' cd -- "$etc" && pwd -P)
mkdir -p "$etc/conf.d"

# Where others can write, they could have this script write elsewhere, or exchange what it wrote.
me=$(id -un)
for folder in "$etc" "$etc/conf.d"; do
    others=$(find "$folder" -prune \\( -perm -0002 -o -perm -0020 ! -group "$(id -gn)" \\))
    # a list of rights (acl(5)): the group's are those of the users in it, too
    case $(ls -ld "$folder") in ?????w????+*) others=$folder ;; esac
    if [ ! -O "$folder" ] || [ -L "$folder" ] || [ -n "$others" ]; then
        fail "$folder is not for $me alone to write: run me as its owner, or correct that first:
chown $me '$folder'; chmod go-w '$folder'"
    fi
done

# Nothing of the old folder is used, whoever could write in it.
umask 077
new=$etc/.mqttls.new
old=$etc/.mqttls.old
rm -rf "$new" "$old"
mkdir "$new"
for file in $files; do
    cp "$here/$file" "$new/$file"
done
if [ "$(id -u)" = 0 ]; then
    chown -R "root:$(id -gn "$owner")" "$new"
    chmod 750 "$new"
    chmod 640 "$new"/*
fi
if [ -e "$etc/mqttls" ] || [ -L "$etc/mqttls" ]; then
    mv "$etc/mqttls" "$old"
fi
mv "$new" "$etc/mqttls"
rm -rf "$old"

main=$etc/mosquitto.conf
state_line="s|^persistence_location .*|persistence_location $state/|"
if grep -Eqs "^persistence" "$main" || [ ! -d "$state" ]; then
    state_line="/^# Sessions|^persistence|^autosave_interval/d"
fi
rm -f "$etc/conf.d/mqttls.conf.new"
sed -E -e "/^# Started by root|^user /d" -e "$state_line" \\
    -e "s|^((ca\\|cert\\|key\\|crl\\|acl_\\|password_)file) .*/|\\1 $etc/mqttls/|" \\
    "$here/mosquitto.conf" >"$etc/conf.d/mqttls.conf.new"
chmod 644 "$etc/conf.d/mqttls.conf.new"
chmod 755 "$etc/conf.d"
mv -f "$etc/conf.d/mqttls.conf.new" "$etc/conf.d/mqttls.conf"
echo "installed $etc/conf.d/mqttls.conf and $etc/mqttls/"

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
  files: # copies these files to where mosquitto, and nobody else, can read them, and not write
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

_COPY = (  # mosquitto may read its files, not change them
    "cd /from; umask 077; cp {files} mosquitto.docker.conf /mosquitto/config/; "
    "cd /mosquitto/config; chown 0:1883 . *; chmod 750 .; chmod 640 *; "
    "chown 1883:1883 /mosquitto/data"
)


def configuration(settings, at, *, owner="", docker=False):
    """
    Return the text of mosquitto.conf.

    settings  dict of settings.json
    at        folder of the files that it names, as mosquitto sees it; its state is there, too
    owner     name of the user who may read them, "" where mosquitto's own user may
    docker    it runs in a container: on every address of it, with its state on a volume
    """
    server_only = settings["server_only"]
    bind, limits = settings.get("bind"), limits_of(settings)
    return _CONFIGURATION.format(
        note=_NOTE_SERVER_ONLY if server_only else _NOTE_MUTUAL,
        at=at,
        users=f"password_file {at}/passwords\n" if server_only else "",
        state="/mosquitto/data" if docker else at,
        extra="log_dest stderr\n" if docker else "",
        owner=_OWNER.format(owner=owner) if _NAME.fullmatch(owner) else "",
        listen=f"{settings['port']} {bind}" if bind and not docker else settings["port"],
        clients="" if server_only else _CLIENTS.format(at=at),
        **limits,
    )


def limits_of(settings):
    """Return {option of mosquitto: number} of all that is in LIMITS."""
    own = settings.get("limits", {})
    return {name: own.get(name, number) for name, number in LIMITS.items()}


def limit(text):
    """Return (name, number) of "NAME=NUMBER" (str); raise ValueError, with a sentence."""
    name, _, number = text.partition("=")
    if name not in LIMITS:
        raise ValueError(f"{name!r} is none of {', '.join(LIMITS)}")
    highest = _HIGHEST.get(name, 2**40)
    digits = number.isascii() and number.isdigit() and len(number) < 16
    if not digits or not 0 < int(number) <= highest:
        raise ValueError(f"{name} is a number from 1 to {highest}")
    return name, int(number)


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
