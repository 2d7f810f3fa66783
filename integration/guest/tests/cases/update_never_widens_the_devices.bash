# An update that doesn't speak of devices leaves their program as it was.
# managers: cgroupfs systemd
start box 'while sleep 0.1; do dd if=/dev/other of=/dev/null count=0 2>/dev/null && echo widened; done' '
    .linux.devices = [{path: "/dev/other", type: "c", major: 10, minor: 229, fileMode: 438}]'
runtime update --pids-limit 50 gt-box
runtime update --resources - gt-box <<<'{"memory": {"limit": 67108864}}'
is "opening the device after the updates" \
    "$(inside box 'dd if=/dev/other of=/dev/null count=0 2>&1 | grep -o "Operation not permitted"')" "Operation not permitted"
! says box widened || fail "the device could be opened for a moment during an update"

# One that repeats them changes nothing; one that names others does, and in one step.
start shown 'while :; do dd if=/dev/null of=/dev/null count=0 2>/dev/null || echo refused; done' '
    .linux.devices = [{path: "/dev/other", type: "c", major: 10, minor: 229, fileMode: 438}]'
# systemd loads its own anew with each change of the unit.
programs() { bpftool -j cgroup list "$(cgroup shown)" | jq -c 'map(select(.name == "coracle_device").id)'; }
[ "$RUNTIME_NAME" = coracle ] || exit 0 # others never update devices
before=$(programs)
matches "the programs" "$before" "[[]*[0-9]*"
runtime update --resources - gt-shown <<<"$(jq '.linux.resources + {pids: {limit: 60}}' "$WORK/shown/config.json")"
is "pids.max" "$(limit shown pids.max)" 60
is "the programs after an update that repeats the devices" "$(programs)" "$before"
runtime update --resources - gt-shown <<<'{"devices": [{"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rwm"}]}'
[ "$(programs)" != "$before" ] || fail "an update that names other devices left the program"
! says shown refused || fail "a device that is always allowed was refused during an update"
