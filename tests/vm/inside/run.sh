#!/bin/sh
# Started by the machine at each boot: the next phase of the tests, then a reboot, then the power-off.
port=/dev/virtio-ports/cribus.said
[ -e "$port" ] || port=/dev/console
exec > "$port" 2>&1
tree=/srv/cribus
state=/var/lib/cribus-tests
mkdir -p "$state"
only=$(sed -n 's/.*cribus\.only=\([^ ]*\).*/\1/p' /proc/cmdline)

phase=$(cat "$state/phase" 2> /dev/null || echo 1)
echo $((phase + 1)) > "$state/phase"
# Node leaves compiled code here, which a second start of the same file reads.
export NODE_COMPILE_CACHE="$state/cache" CRIBUS_TESTS_STATE="$state" TMPDIR=/var/tmp
found=no
for file in "$tree"/tests/vm/inside/"$phase"-*.test.mjs; do
  [ -e "$file" ] || continue
  found=yes
  name=$(basename "$file" .test.mjs)
  case ",$only," in
    ,, | *,"$name",*) ;;
    *) continue ;;
  esac
  echo "== $name ($(cut -d. -f1 /proc/uptime) s after boot)"
  (cd "$tree" && node_modules/node-linux-*/bin/node node_modules/mocha/bin/mocha.js --exit --timeout 600000 "$file") ||
    { systemctl --no-pager --plain list-units 'cribus*'; journalctl --no-pager -n 80 -u 'cribus*' -o cat; }
done
if [ "$found" = yes ] && [ -n "$(ls "$tree"/tests/vm/inside/$((phase + 1))-*.test.mjs 2> /dev/null)" ]; then
  sync
  systemctl reboot
else
  echo 'all phases ended'
  sync
  systemctl poweroff
fi
