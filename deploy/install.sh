#!/bin/sh
# Installs a built tree: the programs to /usr/lib/cribus, their units, the command, an empty
# configuration; then starts it. deploy/uninstall.sh takes all of it away again.
#
#   deploy/install.sh [--destdir DIR] [--no-start]
#
# --destdir: into another root, as a package is built (starts nothing).
set -eu

self=$(readlink -f -- "$0")
tree=$(dirname -- "$(dirname -- "$self")")
destdir=
start=yes
while [ $# -gt 0 ]; do
  case $1 in
    --destdir)
      [ $# -gt 1 ] || { echo "install.sh: --destdir needs a directory." >&2; exit 2; }
      # The parts are tried from within it.
      destdir=$(realpath -m -- "$2") start=no
      shift ;;
    --no-start) start=no ;;
    *)
      echo "install.sh: there is no option \"$1\" (--destdir DIR, --no-start)." >&2
      exit 2 ;;
  esac
  shift
done

fail() {
  echo "install.sh: $1" >&2
  exit 1
}

case $(uname -m) in
  x86_64) arch=x64 ;;
  aarch64) arch=arm64 ;;
  *) fail "this machine's $(uname -m) is not supported (x86_64 and aarch64 are)." ;;
esac
[ -f "$tree/dist/cribus.mjs" ] || fail "it is not built yet: run npm run setup first (in $tree)."
[ -n "$destdir" ] || [ "$(id -u)" = 0 ] || fail "installing needs root; try it with sudo."

lib=$destdir/usr/lib/cribus
next=$lib.next
# Everything is put beside and moved into place, so that a failure leaves the old one whole.
rm -rf -- "$next"
trap 'rm -rf -- "$next"' EXIT
mkdir -p -- "$next/bin" "$next/deploy" "$next/node_modules/node-linux-$arch/bin"
cp -R -- "$tree/dist" "$next/dist"
cp -- "$tree/package.json" "$next/package.json"
cp -- "$tree/bin/cribus" "$next/bin/cribus"
cp -- "$tree/deploy/uninstall.sh" "$next/deploy/uninstall.sh"
cp -L -- "$tree/node_modules/node-linux-$arch/bin/node" "$next/node_modules/node-linux-$arch/bin/node"
ln -s -- "../node_modules/node-linux-$arch/bin/node" "$next/bin/node"
# The one native module, for this machine alone.
koffi=$(readlink -f -- "$tree/node_modules/koffi")
native=$(readlink -f -- "$koffi/../@koromix/koffi-linux-$arch")
mkdir -p -- "$next/node_modules/@koromix"
cp -RL -- "$koffi" "$next/node_modules/koffi"
cp -RL -- "$native" "$next/node_modules/@koromix/koffi-linux-$arch"
"$next/bin/cribus" version > /dev/null || fail "the installed command does not run."
(cd "$next/dist" && "$next/bin/node" -e 'require("koffi").load("libc.so.6")') ||
  fail "the installed native module does not load."

rm -rf -- "$lib.old"
[ ! -d "$lib" ] || mv -- "$lib" "$lib.old"
mv -- "$next" "$lib"
rm -rf -- "$lib.old"

mkdir -p -- "$destdir/usr/bin" "$destdir/lib/systemd/system" "$destdir/etc/cribus"
ln -sf -- ../lib/cribus/bin/cribus "$destdir/usr/bin/cribus"
for unit in "$tree"/deploy/systemd/cribus*; do
  install -m 0644 -- "$unit" "$destdir/lib/systemd/system/$(basename -- "$unit")"
done
[ -e "$destdir/etc/cribus/cribus.toml" ] ||
  install -m 0644 -- "$tree/deploy/cribus.toml" "$destdir/etc/cribus/cribus.toml"

[ -n "$destdir" ] || echo "Installed to $lib."
if [ "$start" = yes ] && [ -d /run/systemd/system ]; then
  systemctl daemon-reload
  systemctl enable --quiet cribus.target
  # Containers go on; what is new takes over part by part. So it does without us: services wait for the
  # bus, and for given servers, as long as they need.
  timeout --foreground 120 systemctl restart cribus-prepare.service cribus.target || true
  if systemctl is-active --quiet cribus-gateway.service; then
    echo "Started: systemctl status 'cribus*'; cribus status"
  else
    echo "It is not ready: \"cribus doctor\" and \"journalctl -u 'cribus-*'\" say why." >&2
  fi
elif [ -z "$destdir" ]; then
  echo "Start it with: systemctl enable --now cribus.target"
fi
