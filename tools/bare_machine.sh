#!/usr/bin/env bash
# Try the project on a machine on which nothing was prepared: a fresh Debian with python3 and git.
#
#     sudo tools/bare_machine.sh SUITE [FOLDER]
#
# SUITE   bookworm, trixie
# FOLDER  where its files are while this runs: /var/tmp/bare-SUITE, which must not be there, unless
#         an earlier run has left it. With KEEP=1 they stay
#
# Clones what is committed here, runs `./dev demo` and `./dev test` there, as root, and shows how
# long they took, what was skipped, and what is left where. FOLDER.log has all that they said. Ends
# with 0 when both did. Takes debootstrap, 6 GB of disk, and as long as the tests, twice.
#
# Processes and mounts of that machine are in namespaces of their own: they end with this script,
# however it ends. The network is the one here, and what it takes goes along: the mirror of apt,
# proxies, the certificate authorities that this computer trusts beside those of everybody.
set -euo pipefail

suite=${1:?SUITE is missing: bookworm or trixie}
folder=${2:-/var/tmp/bare-$suite}
root=$(cd "$(dirname "$0")/.." && pwd)
clone=/root/$(basename "$root")

fail() {
    echo "bare_machine.sh: $*" >&2
    exit 1
}

mark=$folder/.bare_machine
[ ! -e "$folder" ] || [ -e "$mark" ] || [ -n "${BARE_INSIDE-}" ] ||
    fail "$folder is there, and would be deleted: name a folder that is not"
[ "$(id -u)" = 0 ] || fail "namespaces and chroot take root: sudo $0 $*"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
if [ -z "${BARE_INSIDE-}" ]; then
    rm -rf --one-file-system "$folder"
    code=0
    BARE_INSIDE=1 unshare --mount --pid --fork --kill-child "$0" "$suite" "$folder" || code=$?
    [ "${KEEP-}" = 1 ] || rm -rf --one-file-system "$folder"
    exit "$code"
fi

log=$folder.log
: >"$log"
mkdir "$folder"
: >"$mark"
mount --bind "$folder" "$folder" # its root is a mount, as that of every machine

echo "making a Debian $suite in $folder"
mirror=$(apt-get indextargets --format '$(SITE)' | grep -m 1 '/debian/*$') || mirror=
debootstrap --variant=minbase "$suite" "$folder" $mirror >>"$log" 2>&1 || fail "debootstrap failed: see $log"
mount -t proc proc "$folder/proc"
mount -t sysfs sys "$folder/sys"
mount --rbind /dev "$folder/dev"
mount -t tmpfs shm "$folder/dev/shm" # its own, where its tests have their files

# this computer's way to the registries
for file in /etc/resolv.conf /etc/pip.conf /etc/npmrc /usr/etc/npmrc /usr/local/share/ca-certificates; do
    [ ! -e "$file" ] || cp -rL --parents "$file" "$folder"
done
names='(https?|no)_proxy|PIP_(CERT|INDEX_URL|DEFAULT_TIMEOUT)|SSL_CERT_(FILE|DIR)|NODE_EXTRA_CA_CERTS'
mapfile -t passed < <(env | grep -iE "^($names)=")

there() {
    chroot "$folder" env -i "${passed[@]}" HOME=/root CI=true PATH=/usr/sbin:/usr/bin:/sbin:/bin "$@"
}

there apt-get -qq update >>"$log" 2>&1
there DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 install -y python3 git >>"$log" 2>&1
git clone -q "$root" "$folder$clone"
echo "$(there python3 --version), $(du -xsm "$folder" | cut -f 1) MB, $(nproc) processors"
touch "$folder/begin"
sleep 1

status=0
for command in demo test; do
    begin=$SECONDS
    code=0
    there sh -c "cd $clone && ./dev $command" >"$folder.$command" 2>&1 || code=$?
    cat "$folder.$command" >>"$log"
    echo "./dev $command: exit status $code, $((SECONDS - begin)) s"
    grep -E '^  (handshake|lost)|^E:|^(SKIPPED|FAILED|ERROR) |^=+ .* in |^what the failed' "$folder.$command" || true
    rm "$folder.$command"
    [ "$code" = 0 ] || status=1
done

echo "the clone: $(du -sm "$folder$clone" | cut -f 1) MB"
du -sm "$folder$clone"/.??* | sort -rn | head -n 4
echo "left elsewhere, beside Debian's packages:"
(cd "$folder" && find root home tmp var/tmp srv opt usr/local run -newer begin ! -type d \
    ! -path "${clone#/}/*" ! -path 'tmp/mqtt-tests-*' | head -n 40)
echo "processes that are left:"
for exe in "$folder"/proc/[0-9]*/root; do
    [ "$(readlink "$exe")" != "$folder" ] || tr '\0' ' ' <"${exe%root}cmdline"
done
echo "services that would start:"
ls "$folder"/etc/systemd/system/*.wants | grep -E 'mosquitto|ejabberd|epmd' || true
exit $status
