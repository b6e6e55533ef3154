#!/bin/sh
# Boots systemd as process 1 over a copy of this machine that forgets all changes, with ecgmon's units in it.
# Run inside `unshare -m -p -f -C -u -i -n`; arguments: an empty folder, the checkout, Python's prefix, its site-packages.
set -e
root=$1 checkout=$2 python=$3 packages=$4
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
# under /opt, because ProtectHome hides checkouts and interpreters in home folders
mkdir -p "$new/opt/ecgmon" "$new/opt/python" "$new/opt/packages" "$new/etc/ecgmon" "$new/old"
mount --bind "$checkout" "$new/opt/ecgmon"
mount --bind "$python" "$new/opt/python"
mount --bind "$packages" "$new/opt/packages"
cat > "$new/usr/local/bin/ecgmon" <<'END'
#!/bin/sh
export PYTHONHOME=/opt/python LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/ecgmon:/opt/packages
cd /opt/ecgmon && exec /opt/python/bin/python3 -m monitor "$@"
END
chmod 755 "$new/usr/local/bin/ecgmon"
mkdir -p "$new/etc/sysusers.d" "$new/etc/tmpfiles.d" "$new/etc/systemd/system/ecgmon-monitor.service.d"
cp "$checkout"/systemd/*.service "$checkout"/systemd/*.target "$new/etc/systemd/system/"
cp "$checkout"/systemd/sysusers.d/* "$new/etc/sysusers.d/"
cp "$checkout"/systemd/tmpfiles.d/* "$new/etc/tmpfiles.d/"
printf '[Service]\nWatchdogSec=4\n' > "$new/etc/systemd/system/ecgmon-monitor.service.d/test.conf"
printf '[delivery]\nheartbeat_seconds = 0.5\ndead_after_seconds = 3.0\n[alerts]\nstalled_seconds = 600.0\n' > "$new/etc/ecgmon/ecgmon.toml"
printf '[[source]]\nrecord = "toy"\nspeed = 12\n' > "$new/etc/ecgmon/toy.toml"
chmod 644 "$new"/etc/ecgmon/*.toml
cd "$new"
pivot_root . old
umount -l /old
ip link set lo up
export container=ecgmon-test
exec /lib/systemd/systemd --log-target=null --show-status=0 systemd.unit=multi-user.target
