#!/bin/sh
# A CPython newer than this machine's, for the tests: Debian's own package, unpacked into a folder of its own with the C library it wants.
# Nothing is installed. Takes some 5 s and 60 MB. Never fails: what cannot be had makes its tests skip, with the reason.
#
#   FOLDER/usr/bin/python3.14          as packaged: runs with FOLDER as its root (chroot), as in a container
#   FOLDER/usr/bin/python3.14-here     the same, told where its loader and libraries lie: runs in place
set -u

version=${1:-3.14}
folder=${MAINSTAY_TEST_PYTHONS:-${XDG_CACHE_HOME:-$HOME/.cache}/mainstay-pythons}/$version
here=$folder/usr/bin/python$version-here
[ -x "$here" ] && "$here" -c '' 2>/dev/null && exit 0

skip() {
    echo "make: no CPython $version for the tests: $1"
    exit 0
}
command -v mmdebstrap >/dev/null || skip "mmdebstrap is not installed"
command -v patchelf >/dev/null || skip "patchelf is not installed"
mirror=$(apt-get indextargets --format '$(ORIGIN) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null | awk '$1 == "Debian" {print $2; exit}')
[ -n "$mirror" ] || skip "this is no Debian with a mirror"

echo "make: unpacking CPython $version for the tests"
mkdir -p "$(dirname "$folder")"
draft=$(mktemp -d "$folder.XXXXXX") || skip "$(dirname "$folder") cannot be written"
log=$draft.log
trap 'rm -rf "$draft" "$log"' EXIT
trap 'exit 1' INT TERM HUP
# A mirror that is a snapshot is past its date by nature; its signature still holds.
timeout 300 mmdebstrap --variant=extract --aptopt='Acquire::Check-Valid-Until "false"' --include="python$version" sid "$draft/root" "$mirror" >"$log" 2>&1 ||
    skip "Debian's package could not be unpacked ($(tail -n 1 "$log"))"
root=$draft/root
for link in bin lib lib64 sbin; do
    [ -e "$root/$link" ] || ln -s "usr/$link" "$root/$link"
done
loader=$(find "$root/usr/lib" -name 'ld-linux-*.so.*' | head -n 1)
libraries=$(dirname "${loader#"$root"}")
patchelf --set-interpreter "$folder$libraries/$(basename "$loader")" --force-rpath --set-rpath "$folder$libraries" \
    --output "$root/usr/bin/python$version-here" "$root/usr/bin/python$version" >"$log" 2>&1 || skip "patchelf could not change its loader"
rm -rf "$folder"
mv "$root" "$folder" || skip "$folder cannot be written"
"$here" -c '' 2>/dev/null || skip "it does not run here"
exit 0
