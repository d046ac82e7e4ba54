# A folder as a machine whose first process is its /init: mounts as a container has them, /proc/sys and /sys read-only,
# so that nothing of this machine is changed. As root:
#
#   unshare --pid --net --mount --fork --kill-child sh tools/first-process.sh ROOT [FOLDER..]
#
# ROOT is what `midge image --format initrd --compress none` makes, unpacked by cpio, or any folder with an /init. The
# FOLDERs (lib, usr) are this machine's, for a program that needs libraries.
set -e
root=$1; shift
mount --make-rprivate /
mount --bind "$root" "$root"
for folder in "$@"; do
    if [ -e "/$folder" ]; then mkdir -p "$root/$folder"; mount --rbind "/$folder" "$root/$folder"; fi
done
mkdir -p "$root/proc" "$root/sys" "$root/dev"
mount -t proc proc "$root/proc"
mount --bind "$root/proc/sys" "$root/proc/sys"
mount -o remount,bind,ro "$root/proc/sys"
mount -t sysfs -o ro sysfs "$root/sys"
mount -t tmpfs tmpfs "$root/dev"
for device in null urandom; do : > "$root/dev/$device"; mount --bind "/dev/$device" "$root/dev/$device"; done
exec chroot "$root" /init
