"""What every command says of the folder, whatever it was asked for."""

import contextlib

from . import certificates, system
from .authority import SOON_DAYS, Authority, is_due
from .files import SETTINGS, Directory
from .messages import Failure, command


def tell(path, report):
    """Say what is about to go wrong with the folder `path`, in notes; nothing if it is none."""
    directory = Directory(path)
    if not (directory.path / SETTINGS).is_file():
        return
    with contextlib.suppress(Failure, OSError):  # which the command itself has told
        _exposed(directory, report)
    authority = Authority(directory.path)
    for each in (_revocation, _authority):
        with contextlib.suppress(Failure, OSError):
            each(authority, report)
    for each in (_broker, _devices):
        with contextlib.suppress(Failure, OSError):
            each(directory, report)


def _exposed(directory, report):
    if not system.is_windows() and system.is_open_to_others(directory.path):
        cure = system.private_command(directory.path)
        report.note(f"others can look into {directory.path}, where keys are: {cure}")


def _revocation(authority, report):
    end = authority.crl_end(SOON_DAYS)
    if end:
        what = "ended" if end < certificates.now() else "ends"
        report.note(
            f"the list of revoked certificates {what} on {end:%Y-%m-%d}, and the broker refuses "
            f"everybody then: {command('renew')}, then install it on the broker"
        )


def _authority(authority, report):
    end = authority.certificate.not_valid_after_utc
    if is_due(authority.certificate):
        cure = command("renew", "--ca")
        report.note(
            f"the authority ends on {end:%Y-%m-%d}, and with it all that it issued: {cure}"
        )


def _broker(directory, report):
    certificate = certificates.load(directory.path / "broker/broker.crt")
    if is_due(certificate, SOON_DAYS):
        end = certificate.not_valid_after_utc
        cure = f"{command('renew')}, then install it on the broker"
        report.note(f"the broker's certificate ends on {end:%Y-%m-%d}: {cure}")


def _devices(directory, report):
    ends = {}
    for name in directory.devices():
        path = directory.path / "devices" / name / "cert.crt"
        if path.exists():
            with contextlib.suppress(Failure):
                certificate = certificates.load(path)
                if is_due(certificate, SOON_DAYS):
                    ends[name] = certificate.not_valid_after_utc
    if ends:
        first = min(ends, key=ends.get)
        others = f" and {len(ends) - 1} more" if len(ends) > 1 else ""
        report.note(
            f"the certificate of {first} ends on {ends[first]:%Y-%m-%d}{others}: the broker lets "
            f"no device in then: {command('renew')}, then {command('provision', 'NAME')} for each"
        )
