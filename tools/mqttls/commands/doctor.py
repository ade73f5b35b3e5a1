"""`mqttls doctor`: why a board does not connect, stage by stage."""

import argparse
import dataclasses
import functools
import os
import sys
import tempfile
from pathlib import Path

from .. import certificates, passphrase, system
from ..arguments import host_port, server_name
from ..deployment import Deployment
from ..doctor import on_board, reading, roots
from ..doctor.attempt import Target
from ..doctor.causes import STAGES
from ..doctor.conf import Configuration
from ..doctor.diagnose import Case, diagnose
from ..files import SETTINGS, Directory, read_tls_json
from ..messages import Failure, Usage, command

NAME = "doctor"
SUMMARY = "why a board does not connect: the stage that fails, its cause, its cure"

_MARKS = {"ok": "ok", "failed": "FAILED", "unknown": "?", "denied": "no", "none": "none"}
_TONES = {"ok": "good", "failed": "bad", "unknown": "wait", "denied": "wait", "none": "wait"}
PLAIN_PORT = 1883


def add(parser):
    parser.add_argument(
        "target", nargs="?", metavar="HOST[:PORT]", help="the broker, as the board dials it"
    )
    parser.add_argument("--device", metavar="NAME", help="connect as this device of --dir")
    parser.add_argument(
        "--topic", metavar="TOPIC", help="what does the broker let it publish and receive there?"
    )
    parser.add_argument("--board", action="store_true", help="ask the board on USB, too")
    parser.add_argument(
        "--port", default="auto", metavar="SERIAL", help="serial port of the board (the only one)"
    )
    parser.add_argument("--conf", metavar="FILE", help="the broker's mosquitto.conf")
    parser.add_argument("--log", metavar="FILE", help="the broker's log")
    own = parser.add_argument_group("without a device of --dir")
    own.add_argument("--ca", action="append", metavar="FILE", help="whom the board trusts")
    own.add_argument("--cert", metavar="FILE", help="the board's certificate")
    own.add_argument("--key", metavar="FILE", help="its private key")
    own.add_argument("--name", help="server_hostname, where that is not HOST")
    own.add_argument(
        "--no-tls", action="store_true", help=f"without TLS (so it is with port {PLAIN_PORT})"
    )
    own.add_argument("--user", help="user name")
    own.add_argument("--password-file", metavar="FILE", help="the password is in its first line")
    parser.add_argument(
        "--client-id",
        metavar="ID",
        help="client id (default: the device's, with -doctor: the same one would throw a live "
        "board out)",
    )
    parser.add_argument(
        "--as-device",
        action="store_true",
        help="connect as the device itself where the broker takes client ids from certificates or "
        "user names: its connection ends, and comes back; with --topic what waits for it is lost",
    )
    parser.add_argument(
        "--timeout", type=_seconds, default=10, metavar="S", help="for each look (10 s)"
    )


def _seconds(text):
    value = float(text)
    if not 1 <= value <= 120:
        raise argparse.ArgumentTypeError("1 to 120 seconds")
    return value


def run(arguments, report):
    """Return 0 when all is well, 1 when a problem was found."""
    with tempfile.TemporaryDirectory(prefix="mqttls-") as scratch:
        return _run(arguments, report, Path(scratch))


def _run(arguments, report, scratch):
    device = arguments.device
    if arguments.board and not (device or arguments.ca or arguments.cert):
        device = on_board.name_on(arguments.port)
    cases = list(_cases(arguments, device, scratch))
    for title, case in cases:
        if arguments.board:
            verdict = on_board.diagnose(case, arguments.port)
        else:
            try:
                verdict = diagnose(case)
            except OSError as error:
                raise Failure(
                    f"{case.log} cannot be read: {error.strerror}",
                    "give the path of a log, or a copy, that you may read, or leave --log away",
                    stage="files",
                ) from None
        _tell(report, title, case, verdict, len(cases) > 1)
        if verdict.root:
            _offer(report, case.target, verdict.root, Path(arguments.dir, SETTINGS).exists())
    return report.status


def _cases(arguments, device, scratch):
    """
    Yield (title, Case): one, or without any target one for all of --dir.

    device  name of the device to connect as, or None
    """
    target, folder = _target(arguments, device), Path(arguments.dir)
    case = Case(
        target=target,
        conf=arguments.conf,
        log=arguments.log,
        topic=_topic(arguments, target),
        as_device=arguments.as_device,
        timeout_s=arguments.timeout,
    )
    if device:
        case = dataclasses.replace(
            case,
            crls=_there(folder / "crl.pem"),
            broker_ca=_there(folder / "broker/ca.crt"),
            acl=next(iter(_there(folder / "broker/acl")), None),
            known=_there(folder / "broker/broker.crt"),
            bound=_is_bound(folder / "broker/mosquitto.conf"),
            stand_in=functools.partial(_stand_in, arguments.dir, device, target, scratch),
        )
    own = arguments.ca or arguments.cert or arguments.key
    if target:
        yield f"{target.host} port {target.port}, as a board sees it", case
    elif arguments.conf or arguments.log or own:
        if own:
            target = Target("", ca=arguments.ca or [], cert=arguments.cert, key=arguments.key)
        yield "the files", dataclasses.replace(case, target=target, online=False)
    else:
        yield from _all_of(arguments)


def _is_bound(conf):
    """Tell whether the broker of a mosquitto.conf takes client ids from user names."""
    listener = Configuration(conf).listener() if conf.is_file() else None
    return listener is not None and listener.is_on("use_username_as_clientid")


def _stand_in(folder, device, target, scratch):
    """
    Return the Target with a client of the doctor's own, in the place of the device; None where
    there is no authority's key that can be used without a question.

    scratch  Path of a folder that only we can read, which is gone in the end
    """
    try:
        with Directory.opened(folder) as directory:
            found = Deployment(directory).stand_in(device)
    except (Failure, OSError):
        return None
    if found is None:
        return None
    cert, key = scratch / "cert.der", scratch / "key.der"
    system.create(cert, certificates.cert_der(found.certificate))
    system.create(key, certificates.key_der(found.key))
    name = certificates.common_name(found.certificate)
    return dataclasses.replace(target, client_id=name, cert=str(cert), key=str(key))


def _topic(arguments, target):
    """Return the topic that the broker is asked about, or None."""
    topic = arguments.topic
    if topic is None:
        return None
    if target is None or arguments.board:
        raise Usage("--topic asks the broker itself: mqttls doctor HOST --device NAME --topic T")
    if not topic.isprintable() or not 0 < len(topic.encode()) < 65536:
        raise Usage(f"--topic {topic!r}: a topic has 1 to 65535 bytes that can be printed")
    if "+" in topic or "#" in topic:
        raise Usage(f"--topic {topic!r}: name one topic, without + and #")
    if topic.startswith("$share/"):  # messages of those who share it would come here instead
        raise Usage(f"--topic {topic!r}: name the topic after $share/GROUP/, whose rights it has")
    return topic


def _there(path):
    return [str(path)] if path.is_file() else []


def _target(arguments, device):
    """Return the Target, or None when there is no host."""
    host = port = None
    if arguments.target:
        host, port = host_port(arguments.target)
    if device:
        if arguments.ca or arguments.cert or arguments.key:
            raise Usage("--device has its own --ca, --cert and --key: give one or the other")
        target = _of_device(arguments.dir, device)
    elif host:
        files = {"ca": arguments.ca or [], "cert": arguments.cert, "key": arguments.key}
        target = Target(host, **files, client_id="mqttls-doctor")
    else:
        return None
    own = device or arguments.ca or arguments.cert or arguments.key
    plain = arguments.no_tls or (port == PLAIN_PORT and not own)
    if arguments.no_tls and own:
        raise Usage("--no-tls: without it there are no --ca, --cert and --key, and no --device")
    if plain:
        target, port = dataclasses.replace(target, tls=False), port or PLAIN_PORT
    given = {
        "host": host,
        "port": port,
        "server_hostname": server_name(arguments.name) if arguments.name else None,
        "client_id": arguments.client_id or None,
        "user": arguments.user,
    }
    given = {name: value for name, value in given.items() if value is not None}
    target = dataclasses.replace(target, **given)
    if arguments.password_file and target.user is None:
        raise Usage("--password-file needs --user")
    if arguments.password_file or (arguments.user is not None and sys.stdin.isatty()):
        password = passphrase.password(arguments.user or target.user, arguments.password_file)
        target = dataclasses.replace(target, password=password)
    return target


def _of_device(path, name):
    with Directory.opened(path, write=False) as directory:
        return _read_device(directory.existing_device(name))


def _read_device(folder):
    name = folder.name
    said = read_tls_json(folder)
    one = {each: str(folder / said[each]) for each in ("cert", "key") if said.get(each)}
    return Target(
        said["host"],
        said["port"],
        said.get("server_hostname"),
        [str(folder / each) for each in said["ca"]],
        one.get("cert"),
        one.get("key"),
        f"{said.get('client_id') or name}-doctor",
        said.get("user"),
        said.get("password"),
        said.get("tls") is not False,
    )


def _all_of(arguments):
    try:
        with Directory.opened(arguments.dir, write=False) as directory:
            folders = [directory.device(each) for each in directory.devices()]
            targets = [(each.name, _read_device(each)) for each in folders]
    except Failure as failure:
        if os.path.isdir(arguments.dir):
            raise
        raise Usage(
            f"{failure.fact}: say what to look at: mqttls doctor HOST:PORT --ca FILE, "
            "--device NAME, --conf FILE or --log FILE"
        ) from None
    root = Path(arguments.dir)
    for path in _there(root / "broker/mosquitto.conf"):
        yield "the broker's files", Case(conf=path)
    crls, broker_ca = _there(root / "crl.pem"), _there(root / "broker/ca.crt")
    for name, target in targets:
        yield (
            f"the files of {name}",
            Case(target=target, online=False, crls=crls, broker_ca=broker_ca),
        )


def _tell(report, title, case, verdict, several):
    report.say(title)
    for stage in STAGES:
        if stage in verdict.stages:
            state, detail = verdict.stages[stage]
            mark = _MARKS[state]
            line = f"  {stage:<18}  {mark:<6}  {detail}"
            report.say(line, word=mark, word_tone=_TONES[state])
    data = {
        "title": title,
        "stages": {
            stage: {"state": state, "detail": detail}
            for stage, (state, detail) in verdict.stages.items()
        },
        "findings": [each.data() for each in verdict.findings],
    }
    if verdict.peek:
        data["peek"] = verdict.peek
    if verdict.attempt:
        data["attempt"] = verdict.attempt.data()
    if several:
        report.data.setdefault("looks", []).append(data)
    else:
        report.data.update(data)
    if verdict.problems:
        report.data.setdefault("verdict", verdict.problems[0].data())
    for each in verdict.problems:
        report.problem(each.stage, each.fact, each.cause, each.cure)
    for each in verdict.remarks:
        more = "; ".join(one for one in (each.cause, each.cure) if one)
        report.note(f"{each.fact}: {more}" if more else each.fact)
    if verdict.root:
        data["root"] = {
            "found": verdict.root.root is not None,
            "sentence": roots.sentence(verdict.root),
        }
    if not verdict.problems:
        _all_well(report, case, verdict)


def _all_well(report, case, verdict):
    attempt = verdict.attempt
    if attempt and attempt.ok:
        denied = any(state == "denied" for state, _ in verdict.stages.values())
        word = "it connects, and may do a part" if denied else "all is well"
        report.say(word, tone="wait" if denied else "good")
        return
    target = case.target
    if target and case.online and not target.ca:
        return
    if target and case.online:
        open_ones = [stage for stage, (state, _) in verdict.stages.items() if state == "unknown"]
        report.say(f"nothing wrong as far as it was looked; not seen: {', '.join(open_ones)}")
        name = target.client_id.removesuffix("-doctor")
        if "CONNACK" in open_ones and not case.as_device and name != target.client_id:
            where = f"{target.host}:{target.port}"
            # a device of --dir has a client of the doctor's own
            who = ("--device", name) if case.stand_in else _own_files(case)
            report.next(
                command("doctor", where, *who, "--as-device"),
                "connects as the device, which is back in seconds",
            )
        return
    report.say(
        "nothing wrong in these files; not seen in them: does the broker run with them, is it "
        "reached, does it let the board in"
    )
    if target and target.host:
        words = ("--device", target.client_id.removesuffix("-doctor"))
        report.next(command("doctor", f"{target.host}:{target.port}", *words), "tries it")
    elif target or case.conf:
        report.next(command("doctor", "HOST:PORT", *_own_files(case)), "tries it")


def _own_files(case):
    words = []
    if case.target:
        for each in case.target.ca:
            words += ["--ca", each]
        for name in ("cert", "key"):
            if getattr(case.target, name):
                words += [f"--{name}", getattr(case.target, name)]
    if case.conf:
        words += ["--conf", case.conf]
    return words


def _offer(report, target, root, has_folder):
    """Say how boards are made to trust the broker, in a folder of its own where there is one."""
    where = [f"{target.host}:{target.port}"]
    if target.server_hostname:
        where += ["--name", target.server_hostname]
    if root.root is not None:
        why = f"takes {reading.name_of(root.root)}, for boards of a broker that is not yours"
    elif root.is_self_signed:
        why = "pins its certificate, once you have compared the fingerprint"
    else:
        where += ["--ca", "FILE"]
        why = f"FILE has the certificate of {reading.issuer_of(root.below)}"
    if has_folder:
        device = command("doctor", where[0], "--device", "NAME")
        report.next(device, "checks the chain, and connects")
    report.next(command("use", *where), why)
