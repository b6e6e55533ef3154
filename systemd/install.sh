#!/usr/bin/env bash
# Installs ecgmon as services of this machine, upgrades it, or removes it; docs/operations.md explains it.
#
#   install.sh install | uninstall | wheels
#
# From the environment: DESTDIR (put before every path), PREFIX (/usr/local), PYTHON (/usr/bin/python3), WHEELS (a
# folder of wheels to install from, without a network), COMPILE (no: leave compiling to the first start of the services),
# PACKAGES (a folder of installed packages to use instead of installing them, for tests of the installation).
#
# All steps that may fail run in a separate folder, before any running service or installed file is changed.
set -euo pipefail
umask 022

prefix=${PREFIX:-/usr/local}
root=${DESTDIR:-}
library=$prefix/lib/ecgmon
source=$(cd "$(dirname "$0")/.." && pwd)
case $prefix in
  /usr | /usr/local) share=$prefix/lib ;; # where systemd looks for units
  *) share=/etc ;;
esac
units=$share/systemd/system

fail() {
  echo "ecgmon: $*" >&2
  exit 1
}

say() { echo "ecgmon: $*"; }

# Whether to manage the services of this machine: not for packaging, and not without systemd.
live() { [[ -z $root && -d /run/systemd/system ]]; }

python() {
  local found=${PYTHON:-}
  [[ -n $found ]] || for found in /usr/bin/python3 /usr/bin/python3.1[1-9] python3; do
    command -v "$found" > /dev/null && "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' && break
  done
  "$found" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || fail "needs Python 3.11 or newer: make install PYTHON=..."
  case $("$found" -c 'import os, sys; print(os.path.realpath(sys.base_prefix))')/ in
    /home/* | /root/* | /run/user/*)
      fail "$found lies in a home folder, which services cannot see; use another: make install PYTHON=/usr/bin/python3"
      ;;
  esac
  echo "$found"
}

install_files() {
  local unit
  install -d "$root$units" "$root$share/sysusers.d" "$root$share/tmpfiles.d" "$root$prefix/bin" "$root/etc/ecgmon"
  for unit in "$source"/systemd/*.service "$source"/systemd/*.target; do
    sed "s|/usr/local/bin/ecgmon|$prefix/bin/ecgmon|g" "$unit" > "$root$units/.${unit##*/}.new"
    chmod 644 "$root$units/.${unit##*/}.new"
    mv "$root$units/.${unit##*/}.new" "$root$units/${unit##*/}"
  done
  local systemd
  systemd=$(systemctl --version 2> /dev/null | sed -n '1s/^systemd \([0-9]*\).*/\1/p')
  for unit in "$source"/systemd/*.service; do
    [[ ${systemd:-0} -lt 254 ]] || install -D -m 644 "$source/systemd/backoff.conf" "$root$units/${unit##*/}.d/backoff.conf"
  done
  install -m 644 "$source"/systemd/sysusers.d/ecgmon.conf "$root$share/sysusers.d/"
  install -m 644 "$source"/systemd/tmpfiles.d/ecgmon.conf "$root$share/tmpfiles.d/"
  printf '#!/bin/sh\n# the current release: a supervisor keeps using it after another is installed\nexec "$(readlink -f %s)/bin/python" -I -m ecgmon "$@"\n' \
    "$library/current" > "$root$prefix/bin/.ecgmon.new"
  chmod 755 "$root$prefix/bin/.ecgmon.new"
  mv "$root$prefix/bin/.ecgmon.new" "$root$prefix/bin/ecgmon"
  if [[ -e $root/etc/ecgmon/ecgmon.toml ]]; then
    install -m 640 "$source/systemd/ecgmon.toml" "$root/etc/ecgmon/ecgmon.toml.example"
  else
    install -m 640 "$source/systemd/ecgmon.toml" "$root/etc/ecgmon/ecgmon.toml"
  fi
}

# Make a release the current one, atomically.
make_current() {
  ln -s "releases/${1##*/}" "$root$library/.current.new"
  mv -T "$root$library/.current.new" "$root$library/current"
}

# The running units, the monitor first.
running() {
  systemctl list-units --plain --no-legend --state=active,activating,reloading 'ecgmon-monitor.service' 'ecgmon-worker@*' 'ecgmon-producer@*' |
    awk '{print $1}' | sort
}

restart() {
  local unit
  for unit in $(running); do
    say "restarting $unit"
    systemctl restart "$unit" || return 1
  done
}

# Compile the loops of a release into the services' cache, so that a service starts within seconds.
compile_loops() {
  [[ ${COMPILE:-} != no ]] || return 0
  say "compiling numeric loops (about a minute)"
  systemd-run --quiet --wait --collect --property=DynamicUser=yes --property=User=ecgmon --property=CacheDirectory=ecgmon \
    --property=CacheDirectoryMode=0700 --setenv=NUMBA_CACHE_DIR=/var/cache/ecgmon \
    "$1/bin/python" -I -m ecgmon.pipelines.roles.warm_up ||
    say "the loops could not be compiled now; every service compiles them at its first start" >&2
}

do_install() {
  local interpreter version release previous="" file
  interpreter=$(python)
  version=$(sed -n 's/^version = "\(.*\)"/\1/p' "$source/pyproject.toml")
  install -d "$root$library/releases" 2> /dev/null || fail "cannot write $root$library: run as root, or set DESTDIR"
  exec 9> "$root$library/lock"
  flock -n 9 || fail "another installation is in progress"
  [[ -L $root$library/current ]] && previous=$(readlink -f "$root$library/current")
  release=$(mktemp -d "$root$library/releases/$version-XXXXXX")
  draft=$(mktemp -d)
  # shellcheck disable=SC2064 # expand the names now
  trap "rm -rf '$release' '$draft'; rm -f '$root$library/.current.new'; echo 'ecgmon: not installed; nothing was changed' >&2" EXIT
  chmod 755 "$release"

  say "preparing $version for $prefix (a few minutes)"
  "$interpreter" -m venv "$release"
  local pip=("$release/bin/python" -m pip --disable-pip-version-check --quiet install)
  if [[ -n ${WHEELS:-} ]]; then
    [[ -d $WHEELS ]] || fail "there is no folder $WHEELS; run make wheels to create it"
    pip+=(--no-index --find-links "$WHEELS")
  fi
  # a copy, because the build would leave files that belong to root in the checkout
  cp -r "$source"/{pyproject.toml,README.md,LICENSE*,ecgmon,monitor,models,pipelines} "$draft"
  if [[ -n ${PACKAGES:-} ]]; then
    [[ -d $PACKAGES ]] || fail "there is no folder $PACKAGES"
    "$release/bin/python" -m pip --disable-pip-version-check --quiet uninstall --yes setuptools # an old version that would take precedence
    echo "$PACKAGES" > "$("$release/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/packages.pth"
  else
    "${pip[@]}" --requirement "$source/requirements.txt"
  fi
  "${pip[@]}" --no-deps --no-build-isolation "$draft"
  "$release/bin/python" -I -m ecgmon --version > /dev/null
  "$release/bin/python" -I -c 'import ecgmon.monitor.process.monitor, ecgmon.monitor.web.exporter, ecgmon.pipelines.roles.producer, ecgmon.models.inference.reconstruction'
  for file in "$root"/etc/ecgmon/*.toml; do
    [[ ! -e $file ]] || "$release/bin/python" -I -m ecgmon check-config --config "$file" > /dev/null ||
      fail "this version cannot use $file as it is"
  done

  install_files
  make_current "$release"
  trap 'rm -rf "$draft"' EXIT
  if live; then
    systemd-sysusers
    systemd-tmpfiles --create ecgmon.conf
    chgrp ecgmon /etc/ecgmon/ecgmon.toml*
    systemctl daemon-reload
    compile_loops "$release"
    if ! restart; then
      if [[ -n $previous ]]; then
        say "the new version does not run; going back to ${previous##*/}" >&2
        make_current "$previous"
        restart || say "the old version does not run either: see journalctl -u 'ecgmon-*'" >&2
        rm -rf "$release"
      fi
      exit 1
    fi
  fi
  for file in "$root$library"/releases/*; do # the previous release is kept for a rollback
    [[ $file -ef $release || (-n $previous && $file -ef $previous) ]] || rm -rf "$file"
  done
  say "installed ${release##*/}"
  [[ -n $previous ]] || say "next: edit /etc/ecgmon/ecgmon.toml, then run systemctl enable --now ecgmon.target"
}

do_uninstall() {
  local unit
  if live; then
    systemctl disable --now ecgmon.target 2> /dev/null || true
    for unit in $(running); do systemctl disable --now "$unit"; done
    systemctl disable 'ecgmon-worker@1' 2> /dev/null || true
  fi
  rm -f "$root$units"/ecgmon-{monitor,worker@,producer@}.service "$root$units/ecgmon.target" \
    "$root$share"/{sysusers,tmpfiles}.d/ecgmon.conf "$root$prefix/bin/ecgmon" "$root/etc/ecgmon/ecgmon.toml.example"
  rm -f "$root$units"/ecgmon-{monitor,worker@,producer@}.service.d/backoff.conf
  rmdir --ignore-fail-on-non-empty "$root$units"/ecgmon-*.service.d 2> /dev/null || true
  rm -rf "$root$library" "$root/etc/systemd/system/ecgmon.target.wants"
  ! live || systemctl daemon-reload
  say "removed; configuration and keys in /etc/ecgmon and the store in /var/lib/ecgmon are kept"
}

do_wheels() {
  local folder=${WHEELS:-wheels}
  "$(python)" -m pip --disable-pip-version-check wheel --quiet --wheel-dir "$folder" --requirement "$source/requirements.txt"
  say "copy the folder $folder and this source to the other machine, and run there: sudo make install WHEELS=$folder"
}

case ${1:-} in
  install) do_install ;;
  uninstall) do_uninstall ;;
  wheels) do_wheels ;;
  *) fail "usage: install.sh install | uninstall | wheels" ;;
esac
