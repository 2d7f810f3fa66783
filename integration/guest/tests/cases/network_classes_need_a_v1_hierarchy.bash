# cgroup v2 has none, and says so. In a hybrid layout, made here, net_cls and net_prio hold them,
# and devices, which have no hierarchy in it, are denied by the unified one's program.
# managers: cgroupfs
only_for coracle "of the guest ignores them on v2"
bundle box 'exec sleep 1000' '.linux.resources.network = {classID: 1048577}'
refused box "*linux.resources.network.classID*"
grep -qE '^net_(cls|prio)' /proc/cgroups || skip "this kernel has neither net_cls nor net_prio"
mkdir "$WORK/tree"
cat >"$WORK/hybrid" <<'HYBRID'
set -euo pipefail
mount -t tmpfs tmpfs /sys/fs/cgroup
mkdir /sys/fs/cgroup/{unified,net_cls,net_prio}
mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
mount -t cgroup -o net_cls net_cls /sys/fs/cgroup/net_cls
mount -t cgroup -o net_prio net_prio /sys/fs/cgroup/net_prio
"$RUNTIME" --root "$ROOT" run --detach --bundle "$WORK/box" --pid-file "$WORK/box.pid" gt-box </dev/null >"$WORK/box.out" 2>&1
cat /sys/fs/cgroup/net_cls/gt-box/net_cls.classid
grep '^lo ' /sys/fs/cgroup/net_prio/gt-box/net_prio.ifpriomap
tail -n +1 "/proc/$(cat "$WORK/box.pid")/cgroup" | grep -c '/gt-box$'
"$RUNTIME" --root "$ROOT" exec gt-box sh -c 'dd if=/dev/other of=/dev/null count=0 2>&1 | grep -o "Operation not permitted"'
"$RUNTIME" --root "$ROOT" delete --force gt-box
ls -d /sys/fs/cgroup/*/gt-box 2>/dev/null || true
HYBRID
bundle box 'exec sleep 1000' '.linux.resources.network = {classID: 1048577, priorities: [{name: "lo", priority: 5}]} |
    .linux.devices = [{path: "/dev/other", type: "c", major: 10, minor: 229, fileMode: 438}]'
is "what holds in hybrid" "$(unshare --mount --propagation private bash "$WORK/hybrid")" "1048577
lo 5
3
Operation not permitted"
