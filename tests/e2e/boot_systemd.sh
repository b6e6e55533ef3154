#!/bin/sh
# Boots systemd as process 1 on a temporary overlay of this machine's file system; all changes are discarded.
# Run inside `unshare -m -p -f -C -u -i -n`; arguments: an empty folder, the checkout, site-packages.
set -e
root=$1 checkout=$2 packages=$3
mount -t tmpfs tmpfs "$root"
mkdir -p "$root/up" "$root/work" "$root/new"
mount -t overlay overlay -o "lowerdir=/,upperdir=$root/up,workdir=$root/work" "$root/new"
new=$root/new
mount -t proc proc "$new/proc"
mount -t sysfs -o ro sysfs "$new/sys"
mount -t cgroup2 cgroup2 "$new/sys/fs/cgroup"
mount -t tmpfs -o mode=755 tmpfs "$new/run"
mount -t tmpfs -o mode=1777 tmpfs "$new/tmp"
mount --rbind /dev "$new/dev"
for unit in systemd-networkd systemd-resolved systemd-timesyncd systemd-udevd ssh; do
  ln -sf /dev/null "$new/etc/systemd/system/$unit.service"
done
rm -rf "$new/etc/systemd/system/multi-user.target.wants" # services of this machine that are not ours
# under /opt, because ProtectHome hides checkouts in home folders; installations go to the overlay
mkdir -p "$new/opt/ecgmon" "$new/opt/packages" "$new/old"
mount --bind -o ro "$checkout" "$new/opt/ecgmon"
mount --bind "$packages" "$new/opt/packages"
rm -rf "$new/etc/ecgmon" "$new/var/lib/ecgmon" "$new/var/lib/private/ecgmon"
cd "$new"
pivot_root . old
umount -l /old
mount --make-rshared / # as systemd expects it: it mounts the credentials of a service from another mount namespace
ip link set lo up
export container=ecgmon-test
exec /lib/systemd/systemd --log-target=null --show-status=0 systemd.unit=multi-user.target
