#!/bin/sh
# Started by the machine at each boot: the phases that are left, up to the next reboot or the power-off.
port=/dev/virtio-ports/cribus.said
# Its driver may come after the boot's target.
waited=0
while [ ! -e "$port" ] && [ "$waited" -lt 300 ]; do
  sleep 0.1
  waited=$((waited + 1))
done
[ -e "$port" ] || port=/dev/console
exec > "$port" 2>&1
tree=/srv/cribus
state=/var/lib/cribus-tests
mkdir -p "$state"
# Node leaves compiled code here, which a second start of the same file reads.
export NODE_COMPILE_CACHE="$state/cache" CRIBUS_TESTS_STATE="$state" TMPDIR=/var/tmp
cd "$tree" || exit 1

run_phase() {
  echo "== $1 ($(cut -d. -f1 /proc/uptime) s after boot)"
  node_modules/node-linux-*/bin/node node_modules/mocha/bin/mocha.js --exit --timeout 600000 \
    "tests/vm/inside/$1.test.mjs" && return
  systemctl --no-pager --plain list-units 'cribus*'
  journalctl --no-pager -n 80 -u 'cribus*' -o cat
  dmesg | tail -n 20
}

phases=$(sed -n 's/.*cribus\.phases=\([^ ]*\).*/\1/p' /proc/cmdline | tr , ' ')
ended=$(cat "$state/ended" 2> /dev/null || echo 0)
number=0
for phase in $phases; do
  number=$((number + 1))
  [ "$number" -gt "$ended" ] || continue
  echo "$number" > "$state/ended"
  if [ "$phase" = reboot ]; then
    echo '== reboot'
    sync
    systemctl reboot
    exit
  fi
  run_phase "$phase"
done
echo 'all phases ended'
sync
systemctl poweroff
