# systemd writes a unit's limits anew when a property changes; what it doesn't know of, it takes away.
# managers: systemd
loop_device
start box 'exec sleep 1000' ".linux.devices = [
        {path: \"/dev/disk\", type: \"b\", major: $major, minor: $minor, fileMode: 438},
        {path: \"/dev/other\", type: \"c\", major: 10, minor: 229, fileMode: 438}] |
    .linux.resources += {
        memory: {limit: 67108864, swap: 67108864}, pids: {limit: 77},
        blockIO: {weight: 500}, cpu: {shares: 2048, quota: 50000, period: 100000, cpus: \"0-1\"},
        devices: [{allow: false, access: \"rwm\"},
            {allow: true, type: \"b\", major: $major, minor: $minor, access: \"rw\"}]}"
files=(memory.max memory.swap.max pids.max cpu.max cpu.weight cpuset.cpus)
[ "$RUNTIME_NAME" = runc ] || files+=(io.weight) # this runc gives systemd no IOWeight
limits() { for file in "${files[@]}"; do echo "$file $(limit box $file)"; done; }
devices='dd if=/dev/disk of=/dev/null bs=512 count=1 2>/dev/null && echo "allowed works"
    dd if=/dev/other of=/dev/null count=0 2>&1 | grep -o "Operation not permitted"; echo x >/dev/null && echo "null works"'
before=$(limits)
expected="allowed works
Operation not permitted
null works"
is "devices before" "$(inside box "$devices")" "$expected"
unit_anew gt-box.scope
is "limits after the reload" "$(limits)" "$before"
is "devices after the reload" "$(inside box "$devices")" "$expected"
is "memory.max" "$(limit box memory.max)" 67108864
