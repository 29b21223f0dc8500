#!/usr/bin/env bash
# Makes the Debian package, installs it into a fresh Debian 12 that has nothing else, and uses it there. Takes some minutes
# and root (debootstrap, chroot), so the tests leave it out.
#
#     tools/check_package.sh [ROOT]     # ROOT: a minimal Debian 12 made earlier by debootstrap; it is copied
#     PRESET=dev tools/check_package.sh # package another build than release
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${PRESET:-release}
build=build/$preset
work=$(mktemp -d)
# --one-file-system: if /proc stays mounted, it is left alone.
trap 'umount "$work/root/proc" 2>/dev/null || true; rm -rf --one-file-system "$work"' EXIT
say() { printf '== %s\n' "$*"; }

say "the package"
cmake --preset "$preset" >"$work/log"
ninja -C "$build" fovea fovea_manual >>"$work/log"
rm -f "$build"/fovea_*.deb
(cd "$build" && cpack -G DEB >>"$work/log")
package=$(ls "$build"/fovea_*.deb)
dpkg-deb --info "$package"
dpkg-deb --contents "$package" | awk '{print $1, $3, $6}' | grep -v '/$'

say "a fresh Debian 12"
if [ $# -gt 0 ]; then
  cp -a "$1" "$work/root"
else
  # The mirror that this system uses itself.
  mirror=$(apt-get indextargets --format '$(SITE)' 'Created-By: Packages' | grep -m1 debian || true)
  debootstrap --variant=minbase bookworm "$work/root" "${mirror:-http://deb.debian.org/debian}" >>"$work/log"
fi
# This system's way to its packages: proxies, sources, keys.
for path in /etc/apt/sources.list /etc/apt/sources.list.d/debian.sources /etc/apt/apt.conf.d /etc/resolv.conf /etc/hosts; do
  if [ -e "$path" ]; then mkdir -p "$work/root$(dirname "$path")" && cp -rL "$path" "$work/root$(dirname "$path")/"; fi
done
mount -t proc proc "$work/root/proc"
cp "$package" "$work/root/fovea.deb"
cp assets/harbour.png "$work/root/picture.png"
inside() { chroot "$work/root" env DEBIAN_FRONTEND=noninteractive LC_ALL=C.UTF-8 "$@"; }

say "installing"
# Containers' images leave manual pages out; a fresh system doesn't.
rm -f "$work/root/etc/dpkg/dpkg.cfg.d/"*docker* "$work/root/etc/dpkg/dpkg.cfg.d/"*exclude*
inside apt-get update -q >>"$work/log" 2>&1
inside dpkg -i /fovea.deb >>"$work/log" 2>&1 && { say "FAILED: dpkg found nothing missing, so the package names no libraries"; exit 1; }
inside apt-get install -qy -f --no-install-recommends >>"$work/log" 2>&1
inside dpkg-query -W -f '${Package} ${Version} ${db:Status-Status}\n' fovea

say "using"
inside fovea --version
inside fovea caption /picture.png --temperature 0
inside fovea detect /picture.png cloud --json | grep -q '"objects":\[{' || { say "FAILED: no cloud in the picture"; exit 1; }
inside fovea batch /picture.png --skill detect --text boat --out /r.jsonl --coco /r.json
grep -q '"annotations"' "$work/root/r.json"
[ -z "$(inside ldd /usr/bin/fovea | grep 'not found')" ]
inside apt-get install -qy --no-install-recommends man-db >>"$work/log" 2>&1
inside man fovea | grep -q SYNOPSIS
inside man fovea-batch | grep -q -- --coco
inside test -s /usr/share/bash-completion/completions/fovea
inside test -s /usr/share/doc/fovea/THIRD_PARTY.md

say "removing"
inside dpkg -r fovea >>"$work/log"
[ ! -e "$work/root/usr/share/fovea" ] && [ ! -e "$work/root/usr/bin/fovea" ]
say "the package works"
