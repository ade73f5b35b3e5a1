"""
What `mqttls init` writes, installed where systemd runs mosquitto: Debian's own unit and folders,
in namespaces of their own, on a copy of this machine that is gone afterwards. By root, and by one
who is not; with mosquitto's user as the attacker.
"""

import os
import re
import shutil
import subprocess

import pytest

from tests.support import patience
from tests.support.tool import in_here, init, open_folder

UNITS = ("/lib/systemd/systemd", "/lib/systemd/system/mosquitto.service")
pytestmark = pytest.mark.skipif(
    os.geteuid() != 0 or not all(map(os.path.exists, UNITS)) or not shutil.which("mosquitto_pub"),
    reason="needs root, systemd, and mosquitto with its clients",
)
_CANNOT = 77

# $1: the folder with what is installed, and the job
BOOT = """
set -e
trap 'exit 77' EXIT
mount --make-rprivate /
mount -t tmpfs none /mnt
mkdir /mnt/changed /mnt/work /mnt/root
r=/mnt/root
mount -t overlay -o lowerdir=/,upperdir=/mnt/changed,workdir=/mnt/work none $r
for each in run tmp dev sys; do mount -t tmpfs none $r/$each; done
mount -t proc none $r/proc
mkdir -p $r/dev/shm $r/sys/fs/cgroup $r/job
for each in null zero full random urandom; do cp -a /dev/$each $r/dev/; done
if [ -d /sys/fs/cgroup/systemd ]; then
    mount -t tmpfs none $r/sys/fs/cgroup
    mkdir $r/sys/fs/cgroup/systemd
    mount -t cgroup -o none,name=systemd none $r/sys/fs/cgroup/systemd
else
    mount -t cgroup2 none $r/sys/fs/cgroup
fi
mount --bind "$1" $r/job
rm -rf $r/etc/systemd/system/*.wants $r/etc/mosquitto/conf.d/*.conf $r/etc/mosquitto/mqttls
cat >$r/etc/systemd/system/job.service <<END
[Unit]
DefaultDependencies=no
[Service]
Type=oneshot
ExecStart=/bin/sh /job/job
StandardOutput=file:/job/said
StandardError=file:/job/said
ExecStopPost=/bin/systemctl exit --no-block
END
ip link set lo up
trap - EXIT
exec chroot $r env -i container=lxc PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --unit=job.service --show-status=no --log-level=err
"""

JOB = """
useradd -m alice
chmod 700 /home/alice
cp -r /job/new/devices /home/alice/devices
take() {
    rm -rf /home/alice/mqtt-pki
    cp -r "/job/$1" /home/alice/mqtt-pki
    chown -R alice: /home/alice
}
as() {
    user=$1
    shift
    setpriv --reuid "$user" --regid "$user" --init-groups "$@"
}
script=/home/alice/mqtt-pki/broker/install.sh
install() {
    sh $script "$@"
    echo "== install: $?"
}
publish() {
    at=/home/alice/devices/$1
    timeout 10 mosquitto_pub --cafile $at/ca.crt --cert $at/cert.crt --key $at/key.pem \
        -h 127.0.0.1 -p PORT -q 1 -t "devices/$1/x" -m 1 2>/dev/null
    [ $? = 0 ] && echo "== $1: let in" || echo "== $1: kept out"
}
serial() {
    openssl s_client -connect 127.0.0.1:PORT 2>/dev/null </dev/null |
        openssl x509 -noout -serial
}
take new
as alice sh $script
echo "== alice: $?"
as alice mkdir /home/alice/etc
echo "include_dir /home/alice/etc/conf.d" >/home/alice/etc/mosquitto.conf
as alice env ETC=/home/alice/etc OWNER=alice START=true sh $script
echo "== alice in her folder: $?"
install
publish kitchen
publish cellar
echo "== runs as $(ps -o user:20= -C mosquitto)"
take revoked
install
publish kitchen
publish cellar
take renewed
before=$(pidof mosquitto)
install reload
[ "$before" = "$(pidof mosquitto)" ]
echo "== another process: $?"
[ "$(serial)" = "$(openssl x509 -noout -serial -in /home/alice/mqtt-pki/broker/broker.crt)" ]
echo "== another certificate: $?"
publish cellar
as mosquitto sh -c '
cat /etc/mosquitto/mqttls/broker.key >/dev/null || exit 3
cd /etc/mosquitto
for each in mqttls/* conf.d/mqttls.conf mosquitto.conf; do
    ! echo x >>$each && ! rm -f $each && ! mv $each y || exit 4
done
! touch x mqttls/x conf.d/x || exit 5
cd /var/lib/mosquitto && rm -f mosquitto.db && ln -s /etc/shadow mosquitto.db
' 2>/dev/null
echo "== mosquitto: $?"
sum=$(sha256sum /etc/shadow)
install
publish cellar
[ "$sum" = "$(sha256sum /etc/shadow)" ]
echo "== shadow: $?"
rm /var/lib/mosquitto/mosquitto.db
echo "nonsense 1" >/etc/mosquitto/conf.d/zz.conf
install
"""

SAID = """
alice: 1
alice in her folder: 0
install: 0
kitchen: let in
cellar: let in
runs as mosquitto
install: 0
kitchen: kept out
cellar: let in
install: 0
another process: 0
another certificate: 0
cellar: let in
mosquitto: 0
install: 0
cellar: let in
shadow: 0
install: 1
"""


def test_it_is_installed_and_holds_under_systemd():
    with open_folder() as base:
        pki = base / "new"
        port = init(pki, run=in_here)
        in_here(pki, "device", "add", "kitchen", "cellar")
        for name, command in (
            ("revoked", ["revoke", "kitchen"]),
            ("renewed", ["renew", "--broker"]),
        ):
            shutil.copytree(pki, base / name)
            pki = base / name
            in_here(pki, *command)
        (base / "job").write_text(JOB.replace("PORT", str(port)))
        done = subprocess.run(
            [*"unshare -m -p -f --kill-child -u -i -n -C sh -c".split(), BOOT, "sh", str(base)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=patience.stretched(30),
        )
        if done.returncode == _CANNOT:
            pytest.skip(f"no such namespaces here: {done.stdout[-300:]}")
        if not (base / "said").exists():
            pytest.skip(f"systemd starts nothing here: {done.stdout[-300:]}")
        said = (base / "said").read_text()
    found = re.findall(r"^== (.*)", said, re.M)
    assert found == SAID.split("\n")[1:-1], said + done.stdout
    assert said.count(f"mosquitto listens on port {port}\n") == 4
    assert "/etc/mosquitto is not for alice alone to write" in said
    assert "mosquitto did not start; its log says why:" in said
