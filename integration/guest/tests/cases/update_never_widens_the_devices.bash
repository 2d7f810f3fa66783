# An update that doesn't speak of devices leaves their program as it was.
# managers: cgroupfs systemd
start box 'while sleep 0.1; do dd if=/dev/other of=/dev/null count=0 2>/dev/null && echo widened; done' '
    .linux.devices = [{path: "/dev/other", type: "c", major: 10, minor: 229, fileMode: 438}]'
runtime update --pids-limit 50 gt-box
runtime update --resources - gt-box <<<'{"memory": {"limit": 67108864}}'
is "opening the device after the updates" \
    "$(inside box 'dd if=/dev/other of=/dev/null count=0 2>&1 | grep -o "Operation not permitted"')" "Operation not permitted"
! says box widened || fail "the device could be opened for a moment during an update"
