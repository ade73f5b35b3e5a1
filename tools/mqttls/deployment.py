"""
A broker and its devices: what each is given, and what is wrong with what it has.

Methods named put_… add files to a Change and decide nothing about when.
"""

import contextlib
import functools
import json
import secrets

from . import acl, board_files, broker, certificates, system
from .authority import Authority, ends_in, expired
from .files import SETTINGS, read_json, read_tls_json, write
from .messages import Failure, command
from .names import DOCTOR

_BOARD = "board.json"
_DEVICE_FILES = ("cert.crt", "cert.der", "key.der", "key.pem")


class Deployment:
    """
    The broker and the devices of a files.Directory.

    settings   dict: names, port, bind, key, server_only, docker, admins, days, monitors, and
               topics, {name: what acl.rules returned}
    authority  Authority that signs for them
    own_acl    lines of the user's own for the broker's ACL (str)
    """

    def __init__(self, directory, settings=None):
        self.directory, self.path = directory, directory.path
        self.settings = settings or directory.settings
        self.authority = Authority(self.path)

    def set(self, **settings):
        """Have `settings` from now on; put_settings writes them."""
        self.settings.update(settings)
        self.__dict__.pop("topics", None)  # made of them anew

    def put_settings(self, change):
        change.put_json(SETTINGS, self.settings)

    @functools.cached_property
    def topics(self):
        """{name: rules} of devices that were given topics."""
        return acl.given(self.settings)

    @property
    def monitors(self):
        """The names (list) of those that see how all boards are."""
        return acl.monitors(self.settings)

    @property
    def on_pcs(self):
        """The names (list) of devices that are programs on PCs."""
        return [*self.settings["admins"], *self.monitors]

    @functools.cached_property
    def own_acl(self):
        path = self.path / acl.OWN
        return acl.own_lines(path.read_bytes(), path) if path.exists() else ""

    def put_own_acl(self, change, text):
        """Have `text` (str, "" for none) be the user's own lines of the ACL."""
        self.own_acl = text
        if text:
            change.put(acl.OWN, text)
        else:
            change.remove(acl.OWN)

    # The broker

    def broker_problem(self):
        """Return why the broker's certificate must be issued anew (str), or "" if it is good."""
        folder = self.path / "broker"
        try:
            found = certificates.load_identity(folder / "broker.crt", folder / "broker.key")
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except Failure as failure:
            return failure.fact
        if set(certificates.names_of(found.certificate)) != set(self.settings["names"]):
            return "its names changed"
        if certificates.key_kind(found.key) != self.settings["key"]:
            return "its kind of key changed"
        if not certificates.issuer_among(found.certificate, self.authority.trusted):
            return "it is from another authority"
        return expired(found.certificate)

    def put_broker(self, change, days=None):
        """Issue the broker's certificate anew; the old one goes to the archive. Return it."""
        old = self.path / "broker" / "broker.crt"
        if old.exists():
            change.keep(_serial_in(old), "broker/broker.crt", "broker/broker.key")
        names = self.settings["names"]
        found = certificates.issue(
            names[0] if len(names[0]) <= 64 else "broker",
            certificates.SERVER,
            self.settings["key"],
            ends_in(days or self.settings["days"]["broker"]),
            issuer=self.authority.broker_issuer,
            names=names,
        )
        issuer = self.authority.broker_issuer.serial
        self.authority.put_issued(change, found.certificate, issuer)
        change.put("broker/broker.crt", certificates.cert_pem(found.certificate))
        change.put("broker/broker.key", certificates.key_pem(found.key))
        return found

    def put_broker_files(self, change, passwords=None, gone=()):
        """
        Write what the broker needs besides its certificate.

        passwords  {name: password} of devices that are made in the same change
        gone       names of devices that are removed in it
        """
        server_only = self.settings["server_only"]
        at = (self.path / "broker").resolve().as_posix()  # on Windows, too
        change.put("broker/ca.crt", certificates.cert_pem(*self.authority.trusted))
        owner = system.owner_of(self.path)
        change.put("broker/mosquitto.conf", broker.configuration(self.settings, at, owner=owner))
        change.put("broker/acl", acl.text(self.settings, self.own_acl))
        change.put("broker/install.sh", broker.install_script(self.settings), 0o700)
        if server_only:
            change.put("broker/passwords", self._passwords(passwords or {}, gone))
        if self.settings.get("docker"):
            text = broker.configuration(self.settings, "/mosquitto/config", docker=True)
            change.put("broker/mosquitto.docker.conf", text)
            change.put("broker/compose.yaml", broker.compose(self.settings))
        if not change.has("crl.pem") and self.authority.crl_problem():
            self.authority.put_crl(change)

    def _passwords(self, wanted, gone):
        """Return the broker's password file; lines that are right stay as they are."""
        path = self.path / "broker" / "passwords"
        lines = {}
        if path.exists():
            for line in path.read_text("utf-8", "replace").splitlines(keepends=True):
                lines[line.partition(":")[0]] = line
        wanted = dict(wanted)
        for name in self.directory.devices():
            if name not in wanted:
                wanted[name] = self.device_settings(name).get("password")
        return "".join(
            lines[name]
            if broker.is_password_line(lines.get(name, ""), name, password)
            else broker.password_line(name, password)
            for name, password in sorted(wanted.items())
            if password and name not in gone
        )

    # Devices

    def device_settings(self, name):
        """Return the dict of the device's tls.json, {} where there is none or a damaged one."""
        with contextlib.suppress(Failure):
            return read_tls_json(self.directory.device(name))
        return {}

    def device_certificate(self, name):
        """Return the device's certificate; None where devices have passwords."""
        path = self.directory.device(name) / "cert.crt"
        if self.settings["server_only"] and not path.exists():
            return None
        return certificates.load(path)

    def proof(self, name):
        """Return with what a device shows who it is (str): "certificate" or "password"."""
        return "password" if self.settings["server_only"] else "certificate"

    def cure_of_end(self, name):
        """Return what to do when a device's certificate ends (str)."""
        return command("renew", name)

    def cure_of_loss(self, name):
        """Return what to do when a board is lost (str)."""
        return command("revoke", name)

    def device_problem(self, name):
        """Return why the device must be made anew (str), or "" if it is good."""
        folder = self.directory.device(name)
        try:
            said = read_tls_json(folder)
            if self.settings["server_only"]:
                return "" if said.get("password") else "it has no password"
            found = certificates.load_identity(folder / "cert.crt", folder / "key.der")
            if (folder / "cert.der").read_bytes() != certificates.cert_der(found.certificate):
                return f"{folder}/cert.der is not what cert.crt is"
        except FileNotFoundError as error:
            return f"{error.filename} is missing"
        except Failure as failure:
            return failure.fact
        if certificates.common_name(found.certificate) != name:
            return f"its certificate is that of {certificates.common_name(found.certificate)!r}"
        if not certificates.issuer_among(found.certificate, self.authority.trusted):
            return "its certificate is from another authority"
        if certificates.serial_of(found.certificate) in {
            each["serial"] for each in self.authority.revoked()
        }:
            return "its certificate was revoked"
        return expired(found.certificate)

    def put_device(self, change, name, *, host=None, port=None, days=None):
        """
        Make a device, or make it anew; what it had goes to the archive.

        host, port  of the broker as this device knows it; those of the settings when None

        Returns its password (str) where devices have passwords, else None.
        """
        folder = self.directory.device(name)
        if self.settings["server_only"]:
            password = self.device_settings(name).get("password") or broker.new_password()
            self.put_device_settings(change, name, host=host, port=port, password=password)
            return password
        had = [f"devices/{name}/{each}" for each in _DEVICE_FILES if (folder / each).exists()]
        if had:
            change.keep(_serial_in(folder / "cert.crt"), *had)
        found = certificates.issue(
            name,
            certificates.CLIENT,
            self.settings["key"],
            ends_in(days or self.settings["days"]["device"]),
            issuer=self.authority.identity,
        )
        self.authority.put_issued(change, found.certificate, self.authority.identity.serial)
        change.put(f"devices/{name}/cert.crt", certificates.cert_pem(found.certificate))
        change.put(f"devices/{name}/cert.der", certificates.cert_der(found.certificate))
        change.put(f"devices/{name}/key.der", certificates.key_der(found.key))
        change.put(f"devices/{name}/key.pem", certificates.key_pem(found.key))
        self.put_device_settings(change, name, host=host, port=port)
        return None

    def stand_in(self, name):
        """
        Return a client of the doctor's own (certificates.Identity) that the broker lets in as it
        does the device, for a day; None where devices have passwords, or the key of the authority
        has one, or is not here.
        """
        certificate = self.device_certificate(name)
        issuer = certificate and self.authority.identity_of(certificate)
        if issuer is None:
            return None
        found = certificates.issue(
            f"{DOCTOR}-{secrets.token_hex(3)}",
            certificates.CLIENT,
            self.settings["key"],
            ends_in(1),
            issuer=issuer,
        )
        with self.directory.change() as change:
            self.authority.put_issued(change, found.certificate, issuer.serial)
        return found

    def put_device_settings(self, change, name, *, host=None, port=None, password=None):
        """
        Write the CAs, tls.json and config.py of a device; a host or port of its own stays. Return
        the dict of tls.json.
        """
        before = self.device_settings(name)
        own = {key: before[key] for key in ("own_host", "own_port") if key in before}
        if host:
            own["own_host"] = host
        if port:
            own["own_port"] = port
        files = ["ca.der", "ca2.der"][: len(self.authority.trusted)]
        for file, certificate in zip(files, self.authority.trusted, strict=True):
            change.put(f"devices/{name}/{file}", certificates.cert_der(certificate))
        change.put(f"devices/{name}/ca.crt", certificates.cert_pem(*self.authority.trusted))
        if len(files) == 1:
            change.remove(f"devices/{name}/ca2.der")
        host = own.get("own_host", self.settings["names"][0])
        settings = {
            "host": host,
            "port": own.get("own_port", self.settings["port"]),
            "client_id": name,
            "server_hostname": host,
            "ca": files,
        }
        if self.settings["server_only"]:
            settings["user"] = name
            settings["password"] = password or before.get("password") or broker.new_password()
        else:
            settings["cert"], settings["key"] = "cert.der", "key.der"
        settings.update(own)
        change.put_json(f"devices/{name}/tls.json", settings)
        change.put(f"devices/{name}/config.py", board_files.config_on_pc())
        return settings

    def put_all_device_settings(self, change):
        """Write tls.json of every device anew; return {name: password} where they have those."""
        passwords = {}
        for name in self.directory.devices():
            settings = self.put_device_settings(change, name)
            if "password" in settings:
                passwords[name] = settings["password"]
        return passwords

    def put_revocation(self, change, names, more=()):
        """
        Shut devices out: their certificates go onto the lists, their files to the archive.

        names  list of str, each once
        more   single certificates, as put_revoked takes them

        Return the number of certificates that were not on the lists before.
        """
        now = certificates.now()
        found = [one for name in names for one in self.issued_to(name)]
        count = self.put_revoked(change, [*found, *more])
        for name in names:
            folder = self.directory.device(name)
            if not folder.exists():
                continue
            kept = f"password-{name}-{now:%Y%m%dT%H%M%S}"
            if (folder / "cert.crt").exists():
                kept = _serial_in(folder / "cert.crt")
            change.keep(kept, f"devices/{name}")
            change.remove(f"devices/{name}")
        self.set(
            admins=[each for each in self.settings["admins"] if each not in names],
            monitors=[each for each in self.monitors if each not in names],
            topics={each: rules for each, rules in self.topics.items() if each not in names},
        )
        self.put_settings(change)
        self.put_broker_files(change, gone=names)
        return count

    def put_revoked(self, change, found):
        """
        Put certificates onto the lists.

        found  list of dicts with serial, name, authority (serial number of the issuer)

        Return the number of those that were not on them before. Those of an authority that nobody
        trusts any more need not be.
        """
        now, before = certificates.now().isoformat(), self.authority.revoked()
        known = {(each["serial"], each["authority"]) for each in before}
        trusted = {certificates.serial_of(each) for each in self.authority.trusted}
        new = {}
        for each in found:
            key = (each["serial"], each["authority"])
            if key not in known and each["authority"] in trusted:
                new[key] = {
                    "serial": each["serial"],
                    "name": each["name"],
                    "revoked": now,
                    "authority": each["authority"],
                }
        self.authority.put_revoked(change, [*before, *new.values()])
        return len(new)

    def issued_to(self, name):
        """Return what was ever issued to a device (list of dicts of Authority.issued)."""
        found = [
            each
            for each in self.authority.issued()
            if each["use"] == "device" and each["name"] == name
        ]
        noted = {each["serial"] for each in found}
        # what somebody put back from an older backup is not in the record
        for path in self.path.glob(f"devices/{name}/cert.crt"):
            with contextlib.suppress(Failure):
                certificate = certificates.load(path)
                issuer = certificates.issuer_among(certificate, self.authority.trusted)
                serial = certificates.serial_of(certificate)
                if issuer and serial not in noted:
                    authority = certificates.serial_of(issuer)
                    found.append({"serial": serial, "name": name, "authority": authority})
        return found

    def boards(self):
        """Return the names of the devices that are boards, not programs on PCs (list of str)."""
        return [each for each in self.directory.devices() if each not in self.on_pcs]

    def board(self, name):
        """
        Return what `provision` noted about the device's board (dict), {} when it never ran, or
        when that note is damaged: the next time it writes a new one.
        """
        with contextlib.suppress(FileNotFoundError, Failure):
            return read_json(self.directory.device(name) / _BOARD, {"ca": [str]})
        return {}

    def board_lacks(self, name):
        """Return what keeps the device's board from what its folder holds (str), "" if nothing."""
        board, certificate = self.board(name), self.device_certificate(name)
        if not board:
            return "not provisioned by this tool yet"
        if certificates.serial_of(self.authority.certificate) not in board.get("ca", ()):
            return "its board has the old authority only"
        if certificate is not None and board.get("cert") != certificates.serial_of(certificate):
            return "its board has an older certificate"
        return ""


def note_board(directory, name, found):
    """
    Write what `provision` put onto the board of a device: what Deployment.board returns.

    directory  files.Directory
    found      dict: cert, ca (list), serial numbers; at (ISO 8601); id, machine, library
    """
    path = directory.existing_device(name) / _BOARD
    write(path, json.dumps(found, indent=2) + "\n")


def _serial_in(path):
    """Return the serial number of the certificate in a file, a time stamp when it has none."""
    try:
        return certificates.serial_of(certificates.load(path))
    except (Failure, OSError):
        return f"unreadable-{certificates.now():%Y%m%dT%H%M%S}"
