"""
Signed updates of an app's files over MQTT: received in pieces, checked, tried once, kept when the
new app has connected, else taken back. docs/updates.md is its page.

main.py, which no update changes:

    import mqtt_update
    mqtt_update.start("garden", version=1)      # instead of: import garden

garden.py, the app:

    mqtt_update.listen(client, config.home + "update")

An update is one message, as `mqttls update build` makes it:

    4 bytes    b"MUP1"
    2 bytes    length of the manifest, big-endian
    manifest   JSON: {"app": str, "version": int, "sha256": hex of all that follows the signature,
               "files": [[path, size in bytes], ...]}
    384 bytes  RSASSA-PKCS1-v1_5 with SHA-256 of all before it (RFC 8017 section 8.2)
    the files, one after the other

What is on flash, in the folder `updates`: a folder for each version, and `state` with four
numbers: the version that runs (0: what came by cable), one to be tried (0: none), whether it was
started, the last one that failed. Its rename is what switches; a folder that it does not name is
half of an update, and is removed.
"""

import asyncio
import json
import os
import sys
from binascii import hexlify
from hashlib import sha256

import machine
from micropython import const

FOLDER = "updates"
_MAGIC = const(b"MUP1")
_KEY = const(384)  # bytes of the signature: RSA-3072
_MOST_MANIFEST = const(4096)
_MOST_FILES = const(64)
_MOST_VERSION = const(0x3FFFFFFF)
_NAMES = const("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
# Before the hash in what was signed: DigestInfo of SHA-256 (RFC 8017 section 9.2, note 1)
_DIGEST_INFO = const(
    b"\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20"
)

app = None  # what start() was given
version = 0  # of the app that runs
_state = None
_timer = None  # until a new app has connected
_busy = False


class _State:
    """What the file `state` says; damaged or not there: what came by cable runs."""

    def __init__(self):
        self.load()

    def load(self):
        self.current = self.trial = self.tried = self.failed = 0
        try:
            with open(FOLDER + "/state") as file:
                numbers = [int(each) for each in file.read(64).split()]
            self.current, self.trial, self.tried, self.failed = numbers
        except (OSError, ValueError):
            pass

    def numbers(self):
        return self.current, self.trial, self.tried, self.failed

    def there(self, number, version):
        """Return `number` if such a version is here, and newer than `version`, else 0."""
        try:
            os.stat("%s/%d" % (FOLDER, number))
        except OSError:
            return 0
        return number if number > version else 0

    def save(self):
        """Put it onto flash, whole or not at all. Raises OSError where it is not there then."""
        wanted = self.numbers()
        try:
            with open(FOLDER + "/state.new", "w") as file:
                file.write("%d %d %d %d" % wanted)
            os.rename(FOLDER + "/state.new", FOLDER + "/state")
        except OSError:
            self.load()  # what flash says counts: it may have failed behind the rename
            if self.numbers() != wanted:
                raise


# At boot


def start(name, version=0, trial_s=600):
    """
    Run the app: the newest version that has connected once, or for one try a newer one. To be
    called by main.py; returns when the app does.

    name     str, the app's module, and what updates must be for
    version  int, of the app that came by cable: what is not newer does not run
    trial_s  seconds within which a new app must have connected; else, or when it raises, the
             board is reset, and the version before runs again

    Raises what the app raises.
    """
    global app, _state, _timer
    app = name
    _state = state = _State()
    was = state.numbers()
    if state.trial and state.tried:
        print("update: version %d did not connect, back to the one before" % state.trial)
        state.failed = state.trial
        state.trial = 0
    state.current = state.there(state.current, version)
    state.trial = state.there(state.trial, version)
    state.tried = int(state.trial > 0)
    if state.numbers() != was:
        try:
            state.save()
        except OSError as e:  # what is not noted must not be tried: it might be so for ever
            print("update: flash:", e)
            state.trial = state.tried = 0
    _sweep()
    runs = state.trial or state.current
    globals()["version"] = runs or version
    if runs:
        sys.path.insert(0, "%s/%d" % (FOLDER, runs))
    if state.trial:
        _timer = machine.Timer(
            -1, mode=machine.Timer.ONE_SHOT, period=trial_s * 1000, callback=_over
        )
    try:
        __import__(name)
    except KeyboardInterrupt:
        _end_trial()  # somebody is there
        raise
    except Exception as e:
        if not _timer:
            raise
        sys.print_exception(e)
    if _timer:
        _over(None)


def _over(_):
    print("update: version %d is given up" % version)
    machine.reset()


def _end_trial():
    global _timer
    if _timer:
        _timer.deinit()
        _timer = None


def confirm():
    """
    The version that is tried works: it stays. `listen` calls this when the client has connected;
    an app that judges otherwise may call it itself.

    Raises OSError when flash fails, RuntimeError when main.py did not call start().
    """
    _check_started()
    state = _state
    if state.tried:
        state.current = state.trial
        state.trial = state.tried = 0
        state.save()
        _end_trial()
        _sweep()


def _check_started():
    if not app:
        raise RuntimeError("main.py did not call mqtt_update.start(): no update would run")


def _sweep():
    """Remove what the state does not name."""
    keep = (str(_state.current), str(_state.trial), "state")
    try:
        found = [each[0] for each in os.ilistdir(FOLDER)]
    except OSError:
        return
    for each in found:
        if each not in keep:
            _remove(FOLDER + "/" + each)


def _remove(path):
    try:
        if os.stat(path)[0] & 0x4000:
            for each in [each[0] for each in os.ilistdir(path)]:
                _remove(path + "/" + each)
            os.rmdir(path)
        else:
            os.remove(path)
    except OSError:
        pass  # at the next boot


# While it runs


def listen(client, topic, key="/certs/update.der", restart=None):
    """
    Take updates that come to a topic. What becomes of them is on `topic`/status, retained: JSON
    with app, version, failed (the last version that was taken back, or 0) and said (what became
    of the last update, in words).

    client   MQTTClient, before it starts
    topic    str
    key      str, path of the public key, or bytes: DER of SubjectPublicKeyInfo, RSA of 3072 bits
    restart  async function without arguments that ends the app when an update is to start; by
             default the client disconnects and the board is reset

    Raises RuntimeError when main.py did not call start(), ValueError for a key that is none,
    OSError when its file cannot be opened.
    """
    _check_started()
    if isinstance(key, str):
        with open(key, "rb") as file:
            key = file.read(500)
    if len(key) != 422 or key[28:33] != b"\x02\x82\x01\x81\0" or key[-5:] != b"\2\3\1\0\1":
        raise ValueError("key: not the public key of `mqttls update build` (RSA-3072, DER)")
    updates = _Updates(client, topic, int.from_bytes(key[33:-5], "big"), restart)
    client.on_connect(updates.connected)
    client.on(topic, 1, stream=True)(updates.receive)


class _Updates:
    def __init__(self, client, topic, modulus, restart):
        self.client = client
        self.topic = topic
        self.modulus = modulus
        self.restart = restart
        self.said = ""

    async def connected(self):
        confirm()
        await self.tell()

    async def tell(self):
        said = {"app": app, "version": version, "failed": _state.failed, "said": self.said}
        await self.client.publish(self.topic + "/status", json.dumps(said), qos=1, retain=True)

    async def receive(self, message):
        """The handler: a bad update is told and not taken; a lost connection brings it again."""
        global _busy
        if _busy:
            self.said = "refused: another update is being taken"
            asyncio.create_task(self.after(False))
            return
        _busy = True
        good = False
        try:
            confirm()  # what it came through is a connection
            new = await _install(message, self.modulus)
            good = True
            self.said = "installed %d, starting it" % new
        except ValueError as e:
            self.said = "refused: %s" % e
        except (KeyError, TypeError, AttributeError):
            self.said = "refused: its manifest is none"
        except OSError as e:
            self.said = "failed: flash: %s" % e
        except MemoryError:
            self.said = "failed: no memory"
        finally:
            if not good:
                _busy = False
                _sweep()
        asyncio.create_task(self.after(good))

    async def after(self, good):
        try:
            await self.tell()
        except Exception as e:  # stopped; the next connect tells it
            self.client.say("update: not told: %r" % e)
        if good and self.restart:
            await self.restart()
        elif good:
            try:
                await self.client.disconnect()  # what was received is acknowledged before
            finally:
                machine.reset()


async def _read(stream, n):
    data = bytearray(n)
    view = memoryview(data)
    while n:
        got = await stream.readinto(view[len(data) - n :])
        if not got:
            raise ValueError("cut short")
        n -= got
    return bytes(data)


async def _install(message, modulus):
    """
    Receive an update, write its files, switch. Nothing is written before the signature, the
    version, the names and the sizes are right.

    Returns its version. Raises ValueError for one that is not to be taken, in words of ours;
    OSError; ConnectError.
    """
    stream = message.stream
    total = message.length
    head = await _read(stream, 6)
    size = head[4] << 8 | head[5]
    if head[:4] != _MAGIC or not 0 < size <= _MOST_MANIFEST:
        raise ValueError("no update of mqttls")
    manifest = await _read(stream, size)
    signature = await _read(stream, _KEY)
    summed = sha256(head)
    summed.update(manifest)
    if not await _is_signed(modulus, signature, summed.digest()):
        raise ValueError("not signed with the key of this board")
    said = json.loads(manifest)
    files = said["files"]
    new = said["version"]
    if said["app"] != app:
        raise ValueError("for another app")
    state = _state
    if not isinstance(new, int) or not max(version, state.current, state.failed) < new:
        raise ValueError("not newer than what is here, or was taken back")
    if new > _MOST_VERSION:
        raise ValueError("version too large")
    _check_files(files)
    left = sum([each[1] for each in files])
    if total != 6 + size + _KEY + left:
        raise ValueError("more or less than its manifest says")
    _make(FOLDER)
    _sweep()
    _check_space(files)
    folder = "%s/%d" % (FOLDER, new)
    _make(folder)
    buffer = bytearray(1024)
    for name, size in files:
        at = name.find("/")
        while at >= 0:
            _make(folder + "/" + name[:at])
            at = name.find("/", at + 1)
        with open(folder + "/" + name, "wb") as file:
            while size:
                n = await stream.readinto(memoryview(buffer)[: min(size, 1024)])
                if not n:
                    raise ValueError("cut short")
                file.write(memoryview(buffer)[:n])
                size -= n
    summed = sha256()
    for name, _ in files:  # what is on flash is what counts
        with open(folder + "/" + name, "rb") as file:
            while True:
                n = file.readinto(buffer)
                if not n:
                    break
                summed.update(memoryview(buffer)[:n])
                await asyncio.sleep_ms(0)
    if hexlify(summed.digest()).decode() != said["sha256"]:
        raise ValueError("damaged: its files have another hash")
    state.trial = new
    state.tried = 0
    state.save()
    return new


async def _is_signed(modulus, signature, digest):
    """
    RSASSA-PKCS1-v1_5 (RFC 8017 section 8.2.2), exponent 65537: the whole of what was signed is
    compared. In steps, 19 ms each on an RP2040 and 0.3 s in all.
    """
    signature = int.from_bytes(signature, "big")
    found = signature
    for _ in range(16):
        found = found * found % modulus
        await asyncio.sleep_ms(0)
    found = found * signature % modulus
    padding = b"\xff" * (_KEY - 3 - len(_DIGEST_INFO) - 32)
    wanted = b"\0\1" + padding + b"\0" + _DIGEST_INFO + digest
    return signature < modulus and found == int.from_bytes(wanted, "big")


def _check_files(files):
    """Raise ValueError for a list of files that is none, or a path that leaves its folder."""
    names = [name for name, _ in files]
    for name, size in files:
        parts = name.split("/")
        good = isinstance(size, int) and 0 <= size <= _MOST_VERSION
        for part in parts:
            good = good and part and part[0] != "." and not part.strip(_NAMES)
        if not good or len(name) > 64 or len(parts) > 4 or names.count(name) > 1:
            raise ValueError("a file with an impossible name or size")
    wanted = [app + ".py", app + ".mpy", app + "/__init__.py", app + "/__init__.mpy"]
    if len(files) > _MOST_FILES or not [each for each in wanted if each in names]:
        raise ValueError("too many files, or the app's is not among them")


def _check_space(files):
    found = os.statvfs(FOLDER)
    block = found[1]
    # the last piece of each, folders, and what littlefs needs to write them
    wanted = 4 + sum([size // block + (4 if "/" in name else 2) for name, size in files])
    free = found[3] * block // found[1]
    if wanted > free:
        raise ValueError(
            "needs %d KB of flash, %d are free" % (wanted * block >> 10, free * block >> 10)
        )


def _make(folder):
    try:
        os.mkdir(folder)
    except OSError as e:
        if e.args[0] != 17:  # EEXIST
            raise
