#!/usr/bin/env bash
# Builds midge's own kernel from Debian's source package: no modules, nothing but what a virtual machine with midge
# needs (midge.config), or with --server what rented servers have as well (server.config), or with --microvm without
# what microVMs do not have (microvm.config).
#
#   tools/kernel/build.sh DIR [--server | --microvm]
#
# DIR then has bzImage, for disks, ISOs and PCs, and vmlinux, for microVMs and Firecracker; with --microvm vmlinux
# alone. Needs gcc make flex bison bc libelf-dev libssl-dev lz4 xz-utils and apt-get (with lists); about ten minutes
# on two CPUs, four with --microvm, and 3 GB of disk.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
target=${1:?"usage: $0 DIR [--server | --microvm]"}
fragments=("$here/midge.config")
images="bzImage vmlinux"
case ${2:-} in
"") ;;
--server) fragments+=("$here/server.config") ;;
--microvm)
    fragments+=("$here/microvm.config")
    images=vmlinux
    ;;
*)
    echo "unknown: $2; it is --server or --microvm" >&2
    exit 2
    ;;
esac
package=linux-source-6.12
mkdir -p "$target/build"
target=$(cd "$target" && pwd)
cd "$target/build"
if ! ls -d linux-source-*/ >/dev/null 2>&1; then
    apt-get download "$package"
    dpkg -x "$package"_*.deb .
    rm "$package"_*.deb
    tar -xf usr/src/linux-source-*.tar.xz
    rm -r usr
fi
source=$(echo "$PWD"/linux-source-*/)
# A wish of a later fragment takes the place of an earlier one.
cat "${fragments[@]}" | tac | awk -F= '/^CONFIG_/ && !seen[$1]++' >fragment
# The same source and fragment give the same kernel: neither the time nor the machine's name is part of it.
export KBUILD_BUILD_TIMESTAMP=@0 KBUILD_BUILD_USER=midge KBUILD_BUILD_HOST=midge
make -C "$source" O="$PWD/out" allnoconfig KCONFIG_ALLCONFIG="$PWD/fragment" >/dev/null
# What cannot be had is dropped without a word.
missing=0
while read -r wish; do
    case $wish in
    CONFIG_*=n) found=$(grep -c "^${wish%=n}=" out/.config) || true; [ "$found" = 0 ] || { echo "set in spite of the fragment: $wish"; missing=1; } ;;
    CONFIG_*) grep -qxF -e "$wish" out/.config || { echo "not to be had: $wish"; missing=1; } ;;
    esac
done <fragment
[ $missing = 0 ] || exit 1
# shellcheck disable=SC2086  # several words
make -C "$source" O="$PWD/out" -j"${JOBS:-$(nproc)}" $images
if [ "$images" != vmlinux ]; then cp out/arch/x86/boot/bzImage "$target/bzImage"; fi
# Without what only debuggers read.
objcopy --strip-debug out/vmlinux "$target/vmlinux"
ls -l "$target"/*Image "$target/vmlinux" 2>/dev/null || ls -l "$target/vmlinux"
