# Otherwise systemd would write its own view over the files at the next reload.
# managers: systemd
start box 'exec sleep 1000' '.linux.resources += {
    memory: {limit: 67108864, reservation: 33554432},
    cpu: {quota: 50000, period: 200000, cpus: "1"},
    pids: {limit: 77}}'
properties=$(systemctl show gt-box.scope -p MemoryMax -p MemoryLow -p CPUQuotaPerSecUSec -p AllowedCPUs \
    -p TasksMax -p Delegate -p DevicePolicy -p ActiveState -p Slice | sort)
is "the unit's properties" "$properties" "ActiveState=active
AllowedCPUs=1
CPUQuotaPerSecUSec=250ms
Delegate=yes
DevicePolicy=strict
MemoryLow=33554432
MemoryMax=67108864
Slice=system.slice
TasksMax=77"
devices=$(systemctl show gt-box.scope -p DeviceAllow)
[[ $devices == *"/dev/null rw"* || $devices == *"/dev/char/1:3 rw"* ]] || fail "no /dev/null in the unit's $devices"
