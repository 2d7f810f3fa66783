# Hierarchies of version 1 with the unified one beside them: a scope has a cgroup in each.
# managers: hybrid
in_v1() { cat "/sys/fs/cgroup/$1/system.slice/gt-box.scope/$2"; }
is "the root of the hierarchies" "$(stat -f -c %T /sys/fs/cgroup)" tmpfs
start box 'echo >/dev/zero && echo allowed; exec sleep 1000' '.linux.resources += {
    pids: {limit: 77}, cpu: {shares: 512, quota: 50000, period: 100000}} |
    .linux.namespaces += [{type: "cgroup"}]'
while IFS=: read -r _ controllers path; do
    is "the cgroup of ${controllers:-the unified hierarchy}" "$path" /system.slice/gt-box.scope
done <"/proc/$(pid box)/cgroup"
is pids.max "$(in_v1 pids pids.max)" 77
is cpu.shares "$(in_v1 cpu cpu.shares)" 512
is cpu.cfs_quota_us "$(in_v1 cpu cpu.cfs_quota_us)" 50000
is TasksMax "$(systemctl show gt-box.scope -p TasksMax --value)" 77
is CPUShares "$(systemctl show gt-box.scope -p CPUShares --value)" 512
soon "an allowed device works" says box allowed
grep -qx 'c 1:3 rwm' <(in_v1 devices devices.list) || fail "the rules: $(in_v1 devices devices.list)"
! grep -qx 'a \*:\* rwm' <(in_v1 devices devices.list) || fail "all devices are allowed"

runtime update --pids-limit 33 --cpu-share 256 gt-box
unit_anew gt-box.scope
is pids.max "$(in_v1 pids pids.max)" 33
is cpu.shares "$(in_v1 cpu cpu.shares)" 256
is "cgroups of an exec" "$(inside box 'cut -d: -f3 /proc/self/cgroup | sort -u')" /
runtime pause gt-box
is "state when frozen" "$(in_v1 freezer freezer.state)" FROZEN
has_status box paused || fail "it is $(status_of box)"
runtime resume gt-box
runtime delete --force gt-box
is "what is left" "$(find /sys/fs/cgroup -name '*gt-box*')" ""

# What no hierarchy of version 1 has, the unified one has.
start memory 'exec sleep 1000' '.linux.resources += {memory: {limit: 67108864}}'
is memory.max "$(cat /sys/fs/cgroup/unified/system.slice/gt-memory.scope/memory.max)" 67108864
