#!/bin/sh
# Takes away what deploy/install.sh installed: ends every pod, stops the units, removes the programs.
#
#   uninstall.sh [--purge]
#
# --purge: images, logs and configuration too.
set -eu

purge=no
case ${1-} in
  '') ;;
  --purge) purge=yes ;;
  *)
    echo "uninstall.sh: there is no option \"$1\" (--purge)." >&2
    exit 2 ;;
esac
[ "$(id -u)" = 0 ] || { echo "uninstall.sh: needs root; try it with sudo." >&2; exit 1; }

if [ -d /run/systemd/system ]; then
  systemctl disable --quiet --now cribus.target cribus-gateway.socket 2> /dev/null || true
  # All the others need it. Containers' scopes are named cribus-… too, and are not meant.
  systemctl stop cribus-prepare.service 2> /dev/null || true
fi
# Brings the stack up for a moment where pods are left, removes them, and puts the host back.
[ ! -x /usr/bin/cribus ] || cribus down --pods
# The profile of RuntimeDefault, which the kernel would keep.
apparmor=/sys/kernel/security/apparmor
if grep -qs '^cribus-default ' "$apparmor/profiles"; then
  printf cribus-default > "$apparmor/.remove" || true
fi
rm -rf -- /usr/lib/cribus /usr/bin/cribus /run/cribus
# Stacks with a --root may be on this host too, and have their claims there.
rm -f -- /run/cribus-host/lock
[ ! -d /run/cribus-host ] || rmdir --ignore-fail-on-non-empty /run/cribus-host
rm -f -- /lib/systemd/system/cribus.target /lib/systemd/system/cribus-*
[ ! -d /run/systemd/system ] || systemctl daemon-reload
if [ "$purge" = yes ]; then
  rm -rf -- /var/lib/cribus /var/log/cribus /etc/cribus
  echo "Removed, with everything it kept."
else
  echo "Removed; images, logs and configuration stay (--purge removes them)."
fi
