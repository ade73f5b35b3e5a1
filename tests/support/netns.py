"""
A real network in this machine's kernel: a device, a router that does NAT, and a broker's host,
each in a network namespace of its own, to be cut, filtered and readdressed. Linux, root.

    with Network() as network:
        with network.device.inside():
            ...  # sockets made here, and processes and threads started here, are there for good
        network.filter("drop")

A namespace has no name: the kernel removes it, and all that is in it, once nobody holds it open.
So nothing is left of a test that was killed.
"""

import contextlib
import ctypes
import os
import shutil
import socket
import struct
import subprocess
import sys
from pathlib import Path

_NEWNET = 0x40000000
_OWN = "/proc/thread-self/ns/net"

ROUTER_NEAR, DEVICE, DEVICE_LATER = "10.77.1.1", "10.77.1.2", "10.77.1.3"
ROUTER_FAR, BROKER, BROKER_LATER = "10.77.2.1", "10.77.2.2", "10.77.2.3"

# what belongs to no connection that the router knows is dropped: it has no address to put in
_RULES = """
table ip lab {
    chain nat {
        type nat hook postrouting priority 100;
        oifname "far" masquerade
    }
    chain known {
        type filter hook forward priority -1;
        ct state invalid drop
    }
    chain mine {
        type filter hook input priority 0;
        ct state invalid drop
    }
    chain fault {
        type filter hook forward priority 0;
    }
}
"""


class Unavailable(Exception):
    """This machine cannot do it; the text says why."""


def _call(name, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, name)(*arguments):
        error = ctypes.get_errno()
        raise OSError(error, f"{name}: {os.strerror(error)}")


class Namespace:
    """A network namespace; `path` names it to `ip`."""

    def __init__(self):
        before = os.open(_OWN, os.O_RDONLY)
        try:
            _call("unshare", _NEWNET)
            self._handle = os.open(_OWN, os.O_RDONLY)
            _call("setns", before, _NEWNET)
        finally:
            os.close(before)
        self.path = f"/proc/{os.getpid()}/fd/{self._handle}"
        self.run("ip", "link", "set", "lo", "up")

    @contextlib.contextmanager
    def inside(self):
        """Have the calling thread in there for the length of a `with`."""
        before = os.open(_OWN, os.O_RDONLY)
        _call("setns", self._handle, _NEWNET)
        try:
            yield self
        finally:
            _call("setns", before, _NEWNET)
            os.close(before)

    def run(self, *command, text=None):
        """Run `command` in there, with `text` as its input; OSError with what it wrote."""
        with self.inside():
            done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode:
            raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")

    def set(self, name, value):
        """Set a kernel parameter of the network, such as ipv4/ip_forward."""
        with self.inside():
            Path("/proc/sys/net", name).write_text(str(value))

    def close(self):
        os.close(self._handle)


class Network:
    """
    Three hosts in a row: device -- router -- broker. Use it in a `with`.

    device, router, broker  Namespace

    The router's end of the device's wire is called "near", that of the broker's "far".

    Raises Unavailable where the machine does not allow it.
    """

    def __init__(self):
        if not sys.platform.startswith("linux") or os.geteuid():
            raise Unavailable("network namespaces take Linux and root")
        for tool, package in (("ip", "iproute2"), ("nft", "nftables")):
            if not shutil.which(tool):
                raise Unavailable(f"`{tool}` is missing: apt-get install {package}")
        self._spaces = []
        try:
            self.device, self.router, self.broker = (self._space() for _ in range(3))
            for end, wire, address, at in (
                (self.device, "near", ROUTER_NEAR, DEVICE),
                (self.broker, "far", ROUTER_FAR, BROKER),
            ):
                self.router.run(
                    *("ip", "link", "add", wire, "type", "veth"),
                    *("peer", "name", "eth0", "netns", end.path),
                )
                self.router.run("ip", "address", "add", f"{address}/24", "dev", wire)
                self.plug_router(wire)
                self.readdress(end, at)
            self.router.set("ipv4/ip_forward", 1)
            self.router.run("nft", "-f", "-", text=_RULES)
            # take up no connection in its middle, find fault with none whose packets were lost
            self.router.set("netfilter/nf_conntrack_tcp_loose", 0)
            self.router.set("netfilter/nf_conntrack_tcp_be_liberal", 1)
            self.forget()
        except OSError as error:
            self.close()
            raise Unavailable(f"this kernel has not all that it takes: {error}") from None

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _space(self):
        self._spaces.append(Namespace())
        return self._spaces[-1]

    def repair(self):
        """Take every fault back; what the router forgot stays forgotten."""
        self.filter()
        for wire in ("near", "far"):
            self.plug_router(wire)
        self.readdress(self.device, DEVICE)
        self.readdress(self.broker, BROKER)

    def close(self):
        for space in self._spaces:
            space.close()
        self._spaces = []

    # Faults

    def filter(self, *rules):
        """Have the router treat what it forwards by `rules` of nft; none takes them back."""
        lines = ["flush chain ip lab fault", *(f"add rule ip lab fault {rule}" for rule in rules)]
        self.router.run("nft", "-f", "-", text="\n".join(lines) + "\n")

    def unplug(self, end):
        """Take the link of `end`, the device or the broker, down: its own side knows."""
        end.run("ip", "link", "set", "eth0", "down")

    def plug(self, end):
        """Bring it up again, with the route that went with it."""
        router = ROUTER_NEAR if end is self.device else ROUTER_FAR
        end.run("ip", "link", "set", "eth0", "up")
        end.run("ip", "route", "replace", "default", "via", router)

    def readdress(self, end, address):
        """Give `end` another address, as a new lease of DHCP does; the old one is gone."""
        end.run("ip", "address", "flush", "dev", "eth0")
        end.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        self.plug(end)

    def unplug_router(self, wire):
        """Take the router's end of a wire, "near" or "far", down."""
        self.router.run("ip", "link", "set", wire, "down")

    def plug_router(self, wire):
        self.router.run("ip", "link", "set", wire, "up")

    def forget(self):
        """Have the router forget the connections that go through it, as when it was restarted."""
        # IPCTNL_MSG_CT_DELETE of everything: NLM_F_REQUEST | NLM_F_ACK, then an empty nfgenmsg
        request = struct.pack("=IHHII4x", 20, 1 << 8 | 2, 1 | 4, 1, 0)
        with self.router.inside(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12) as s:
            s.send(request)
            (error,) = struct.unpack_from("=i", s.recv(1024), 16)
        if error:
            raise OSError(-error, f"conntrack: {os.strerror(-error)}")
