#!/usr/bin/env bash
# Unpacks Debian's kernel for clouds and its modules into a folder: no root, nothing is installed.
#
#   tools/kernel/debian.sh DIR [PACKAGE]
#
# DIR then has boot/vmlinuz-VERSION, for `midge image --kernel`, and lib/modules/VERSION beside it, which is found
# from there. Needs apt-get (with lists: apt-get update) and dpkg.
set -euo pipefail
target=${1:?"usage: $0 DIR [PACKAGE]"}
package=${2:-linux-image-6.12-cloud-amd64}
# The package of the newest version is one that depends on it.
if found=$(apt-cache depends "$package" | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1) && [ -n "$found" ]; then
    package=$found
fi
mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
(cd "$work" && apt-get download "$package")
dpkg -x "$work"/*.deb "$target"
ls "$target"/boot/vmlinuz-*
