"""
Fetch Debian's packages, with an apt that has a configuration of its own: the system's list of
packages is neither read nor touched, and nothing is installed.

What cannot be had (apt, the keys, a mirror, the network) raises `Unavailable`, which says what.
"""

import platform
import shlex
import shutil
import subprocess
import sys
import tarfile
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / ".cache"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")


class Unavailable(Exception):
    """Something that is wanted cannot be had here; the text says what, and the remedy."""


def fetch(suite, sources, folder, binaries=()):
    """
    Have packages in `folder`, downloaded unless they lie there already.

    suite     str, Debian's: "trixie", "sid"
    sources   iterable of str, of source packages: what their authors released, without Debian's
              changes
    folder    Path, for these packages alone
    binaries  iterable of str, of binary packages (.deb)

    Return a text that names their files, with their versions. Raises Unavailable.
    """
    wanted = [f"{name}_*.orig.tar.*" for name in sources]
    wanted += [f"{name}_*.deb" for name in binaries]
    if not all(list(folder.glob(pattern)) for pattern in wanted):
        shutil.rmtree(folder, ignore_errors=True)
        fresh = folder.with_name(folder.name + ".new")
        _download(suite, sources, binaries, fresh)
        fresh.rename(folder)
    return " ".join(sorted(file.name for kind in wanted for file in folder.glob(kind)))


def program(suite, package, name, folder):
    """
    Have a program of a binary package in `folder`, with all that it depends on, down to the C
    library, unless it lies there already.

    suite    str, Debian's
    package  str
    name     str, path of the program in the package: "usr/bin/micropython"
    folder   Path, for this program alone

    Return the Path of a script that starts it. Raises Unavailable.
    """
    script = folder / Path(name).name
    with locked(folder.parent):
        if not script.is_file():
            fresh = folder.with_name(folder.name + ".new")
            _download(suite, (), (), fresh, (package,))
            for file in fresh.glob("*.deb"):
                run("dpkg-deb", "-x", file, fresh)
                file.unlink()
            # an own C library has a loader of its own, which takes the paths of libraries
            loader = next(fresh.rglob("ld-linux*.so.*")).relative_to(fresh)
            libraries = {path.parent.relative_to(fresh) for path in fresh.rglob("lib*.so.*")}
            path = ":".join(f"{folder}/{each}" for each in sorted(libraries))
            words = (str(folder / loader), "--library-path", path, str(folder / name))
            (fresh / script.name).write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
            (fresh / script.name).chmod(0o755)
            fresh.rename(folder)
    return script


def unpack(archive, folder, only=""):
    """Unpack what lies under `only` (str, a path) in the archive's top folder into `folder`."""
    unpacked = folder.with_name(folder.name + ".unpack")
    shutil.rmtree(unpacked, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive) as tar:
        if hasattr(tarfile, "data_filter"):
            tar.extraction_filter = tarfile.data_filter
        tar.extractall(unpacked)
    shutil.rmtree(folder, ignore_errors=True)
    (next(unpacked.iterdir()) / only).rename(folder)
    shutil.rmtree(unpacked)


def unpack_binary(package, folder, only):
    """Unpack what lies under `only` (str, a path) in a .deb into `folder`."""
    unpacked = folder.with_name(folder.name + ".unpack")
    shutil.rmtree(unpacked, ignore_errors=True)
    run("dpkg-deb", "-x", package, unpacked)
    shutil.rmtree(folder, ignore_errors=True)
    (unpacked / only).rename(folder)
    shutil.rmtree(unpacked)


@contextmanager
def locked(folder):
    """One process at a time in this folder."""
    import fcntl  # Windows, which does not come here, has none

    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def run(*command, **options):
    """Run a command; return what it wrote. Raises CalledProcessError, which has that too."""
    return subprocess.run(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=True,
        **options,
    ).stdout


def _download(suite, sources, binaries, folder, programs=()):
    # `programs` are binary packages with all that they depend on
    if platform.system() != "Linux" or not shutil.which("apt-get"):
        raise Unavailable("the sources come through apt-get, which is not here: use Debian")
    # Debian 13 renamed the file and left this name as a link
    if not KEYRING.exists():
        raise Unavailable(f"{KEYRING} is missing: install debian-archive-keyring")
    try:
        sites = run("apt-get", "indextargets", "--format", "$(SITE)").split()
    except subprocess.CalledProcessError as error:
        raise Unavailable(f"apt does not work here: {error.stdout.strip()}") from error
    mirror = next((site for site in sites if site.rstrip("/").endswith("/debian")), None)
    if not mirror:
        raise Unavailable("this machine's apt knows no Debian mirror: use Debian")
    print(
        "fetch", *sources, *binaries, *programs, "from Debian", suite, file=sys.stderr, flush=True
    )
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    apt = CACHE / "apt" / suite
    with locked(apt):
        # the list of binary packages is large: only where one is wanted
        kinds = [*(["deb-src"] if sources else []), *(["deb"] if binaries or programs else [])]
        lines = [f"{kind} [signed-by={KEYRING}] {mirror} {suite} main\n" for kind in kinds]
        command = _apt(apt, "".join(lines))
        try:
            run(*command, "--error-on=any", "update")
            if sources:
                run(*command, "--download-only", "--tar-only", "source", *sources, cwd=folder)
            if binaries:
                run(*command, "download", *binaries, cwd=folder)
            if programs:
                (folder / "partial").mkdir()
                command += ["-o", f"Dir::Cache::archives={folder}", "--no-install-recommends"]
                run(*command, "--yes", "--download-only", "install", *programs)
        except subprocess.CalledProcessError as error:
            last = (error.stdout.strip().splitlines() or ["no output"])[-1]
            raise Unavailable(f"apt could not fetch from Debian {suite}: {last}") from error


def _apt(folder, sources):
    """Return the command line of an apt-get that knows nothing but `sources` (text)."""
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / "status").touch()
    (folder / "sources.list").write_text(sources)
    command = ["apt-get", "-q"]
    for option in (
        f"Dir::Etc::SourceList={folder}/sources.list",
        f"Dir::Etc::SourceParts={folder}/parts",
        f"Dir::State::Lists={folder}/lists",
        f"Dir::State::Status={folder}/status",
        f"Dir::Cache={folder}/cache",
        "APT::Sandbox::User=",
        "Acquire::Languages=none",
        # kept as they come: a sixth of the size
        "Acquire::GzipIndexes=true",
        "Acquire::CompressionTypes::Order::=xz",
        "Dir::Cache::pkgcache=",
        "Dir::Cache::srcpkgcache=",
        # signed all the same; a mirror that lags, or a clock that is ahead, is good enough here
        "Acquire::Check-Valid-Until=false",
        "Acquire::Retries=2",
        "Acquire::http::Timeout=30",
    ):
        command += ["-o", option]
    return command
