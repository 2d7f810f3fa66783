# Neither the files nor the unit, though the limits before the refused one were fine.
# managers: cgroupfs systemd
only_for coracle "keeps what it wrote before the failure"
start box 'exec sleep 1000' '.linux.resources += {
    memory: {limit: 67108864}, pids: {limit: 77}, cpu: {quota: 50000, period: 100000, shares: 2048}}'
files() { for file in memory.max memory.high pids.max cpu.max cpu.weight cpuset.cpus; do echo "$file $(limit box $file)"; done; }
before=$(files)
if runtime update --resources - gt-box >"$WORK/error" 2>&1 <<<'{"memory": {"limit": 134217728}, "pids": {"limit": 33},
    "cpu": {"quota": 20000, "shares": 512, "cpus": "4095"}, "unified": {"memory.high": "50331648"}}'
then fail "a CPU that the machine has not was taken"; fi
matches "the error" "$(cat "$WORK/error")" "*cpu*"
is "the files" "$(files)" "$before"
if [ "$MANAGER" = systemd ]; then
    unit_anew gt-box.scope
    is "the files after a reload" "$(files)" "$before"
    is "MemoryMax" "$(systemctl show gt-box.scope -p MemoryMax --value)" 67108864
    is "TasksMax" "$(systemctl show gt-box.scope -p TasksMax --value)" 77
fi

# Files without a property, those with a line for each device, and the devices themselves.
loop_device
update() { runtime update --resources - gt-box >"$WORK/error" 2>&1 <<<"$1"; }
update "{\"unified\": {\"io.max\": \"$major:$minor rbps=1048576\", \"cgroup.max.depth\": \"9\"}}" || fail "$(cat "$WORK/error")"
files() { for file in memory.oom.group cgroup.max.depth io.max io.weight; do echo "$file $(limit box $file)"; done; }
unit() { [ "$MANAGER" = cgroupfs ] || systemctl show gt-box.scope -p DeviceAllow -p DevicePolicy -p IOReadBandwidthMax | sort; }
before=$(files; unit)
if update "{\"unified\": {\"memory.oom.group\": \"1\", \"cgroup.max.depth\": \"5\", \"io.weight\": \"default 300\",
    \"io.max\": \"$major:$minor rbps=9999999 wiops=5\", \"memory.zzz\": \"1\"}, \"devices\": [{\"allow\": false, \"access\": \"rwm\"}]}"
then fail "a file that the kernel has not was taken"; fi
matches "the error" "$(cat "$WORK/error")" "*memory.zzz*"
is "files and unit" "$(files; unit)" "$before"
