# With a private cgroup namespace and a cgroup mount that may be written, the container's user gets the
# files that the kernel names in /sys/kernel/cgroup/delegate, and not those that hold its own limits.
# managers: cgroupfs systemd
[ "$RUNTIME_NAME $MANAGER" != "runc cgroupfs" ] || skip "this runc hands over units only"
start box '
    mkdir /sys/fs/cgroup/inner && echo 1 >/sys/fs/cgroup/inner/cgroup.procs &&
    echo +pids >/sys/fs/cgroup/cgroup.subtree_control && echo delegated
    echo max 2>/dev/null >/sys/fs/cgroup/memory.max || echo "memory.max is kept"
    echo done; exec sleep 1000' '
    .linux.resources.memory = {limit: 67108864} | .linux.namespaces += [{type: "user"}] |
    .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}] | .linux.gidMappings = .linux.uidMappings |
    (.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"]'
soon "it has tried" says box done
is "what it could do" "$(cat "$WORK/box.out")" "delegated
memory.max is kept
done"
is "owner of the cgroup" "$(stat -c %u "$(cgroup box)")" 100000
for file in $(cat /sys/kernel/cgroup/delegate); do
    [ ! -e "$(cgroup box)/$file" ] || is "owner of $file" "$(stat -c %u "$(cgroup box)/$file")" 100000
done
is "owner of memory.max" "$(stat -c %u "$(cgroup box)/memory.max")" 0
is "group of the cgroup" "$(stat -c %g "$(cgroup box)")" 0

user='.linux.namespaces += [{type: "user"}] |
    .linux.uidMappings = [{containerID: 0, hostID: 100000, size: 65536}] | .linux.gidMappings = .linux.uidMappings'
start kept 'exec sleep 1000' "$user"
is "owner of one that is mounted read-only" "$(stat -c %u "$(cgroup kept)")" 0
start other 'exec sleep 1000' '.process.user = {uid: 7, gid: 0} |
    (.mounts[] | select(.destination == "/sys/fs/cgroup")).options -= ["ro"] | '"$user"
is "owner where the process is another user's" "$(stat -c %u "$(cgroup other)")" 100007
