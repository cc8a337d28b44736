#!/bin/sh
# A current Prometheus and Alertmanager beside the installed ones: the packages of Debian testing, unpacked (never installed) into a cache folder outside the
# tree, so that the tests of rules and alerts run against two generations. Needs no root. Never fails: what is missing makes its tests skip, with the reason.
#
# Prints nothing where all is there; the tests look for the folder in $MAINSTAY_NEWER, else where this script puts it.
set -u

folder=${MAINSTAY_NEWER:-${XDG_CACHE_HOME:-${HOME:-/tmp}/.cache}/mainstay/debian-testing}
skip() { # REASON
    echo "make: the tests with a current Prometheus will skip: $1"
    exit 0
}
[ -x "$folder/usr/bin/prometheus" ] && [ -x "$folder/usr/bin/promtool" ] && [ -x "$folder/usr/bin/prometheus-alertmanager" ] && exit 0
for program in apt-get dpkg-deb dpkg; do
    command -v "$program" >/dev/null 2>&1 || skip "no $program here (they come from Debian's packages)"
done
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
[ -r "$keyring" ] || skip "no $keyring (package debian-archive-keyring)"
# The mirror that this machine uses.
mirror=$(sed -n 's/^URIs: *\([^ ]*\/debian\)\/* *$/\1/p; s/^deb  *\(\[[^]]*\] *\)\{0,1\}\([^ ]*\/debian\)\/* .*/\2/p' /etc/apt/sources.list /etc/apt/sources.list.d/* 2>/dev/null | head -n 1)
[ -n "$mirror" ] || skip "apt names no mirror of Debian here"

work=$(mktemp -d) || skip "no temporary folder"
trap 'rm -rf "$work"' EXIT
trap 'exit 1' INT TERM HUP
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/parts" "$work/debs" "$work/root"
: >"$work/status"
echo "deb [signed-by=$keyring] $mirror testing main" >"$work/sources.list"
cat >"$work/apt.conf" <<END
Dir::State "$work";
Dir::State::lists "$work/lists";
Dir::State::status "$work/status";
Dir::Cache "$work";
Dir::Cache::archives "$work/archives";
Dir::Etc::sourcelist "$work/sources.list";
Dir::Etc::sourceparts "$work/parts";
Dir::Etc::preferencesparts "$work/parts";
APT::Sandbox::User "";
APT::Get::List-Cleanup "false";
Acquire::Languages "none";
Acquire::Retries "3";
Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
END
echo "make: unpacking a current Prometheus and Alertmanager into $folder"
export APT_CONFIG="$work/apt.conf"
timeout 300 apt-get -qq update >"$work/log" 2>&1 || skip "no list of packages from $mirror ($(tail -n 1 "$work/log"))"
(cd "$work/debs" && timeout 600 apt-get -qq download prometheus promtool prometheus-alertmanager) >"$work/log" 2>&1 || skip "a download failed ($(tail -n 1 "$work/log"))"
for deb in "$work"/debs/*.deb; do
    dpkg-deb -x "$deb" "$work/root" >"$work/log" 2>&1 || skip "$(basename "$deb") cannot be unpacked ($(tail -n 1 "$work/log"))"
done
"$work/root/usr/bin/prometheus" --version >"$work/log" 2>&1 || skip "it does not run here ($(tail -n 1 "$work/log"))"
mkdir -p "$(dirname "$folder")" && rm -rf "$folder.new" "$folder.old" && cp -a "$work/root" "$folder.new" || skip "$folder cannot be written"
if [ -e "$folder" ]; then mv "$folder" "$folder.old" && rm -rf "$folder.old"; fi
mv "$folder.new" "$folder" || skip "$folder cannot be written"
exit 0
