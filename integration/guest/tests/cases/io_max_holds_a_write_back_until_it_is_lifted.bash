# A block of 64 KiB at 256 bytes a second would take minutes: another container writes one without
# a limit meanwhile, and the limited one ends when an update takes its limit away.
# managers: cgroupfs systemd
loop_device
write='dd if=/dev/zero of=/dev/disk bs=64k count=1 oflag=direct 2>&1 | grep copied; echo written; exec sleep 1000'
device="{path: \"/dev/disk\", type: \"b\", major: $major, minor: $minor, fileMode: 438}"
rule="{allow: true, type: \"b\", major: $major, minor: $minor, access: \"rw\"}"
limits() { echo "{\"blockIO\": {\"throttleWriteBpsDevice\": [{\"major\": $major, \"minor\": $minor, \"rate\": $1}]}}"; }

start slow "$write" ".linux.devices = [$device] | .linux.resources.devices += [$rule] | .linux.resources += $(limits 256)"
matches "io.max" "$(limit slow io.max)" "$major:$minor *wbps=256*"
start free "$write" ".linux.devices = [$device] | .linux.resources.devices += [$rule]"
soon "the free container has written" says free written
! says slow written || fail "the limit did not hold the write back"
is "writes that came through" "$(limit slow io.stat | grep "^$major:$minor .*wbytes=[1-9]" || :)" ""
runtime update --resources - gt-slow <<<"$(limits 0)"
is "io.max" "$(limit slow io.max)" ""
soon "the container has written" says slow written
