# Podman 5 and conmon, as root: limits arrive, exec works, an OOM kill is reported.
# managers: cgroupfs systemd
# seconds: 1200
manage=(podman --runtime "$RUNTIME" --cgroup-manager "$MANAGER" --log-level error)
at_exit '"${manage[@]}" rm --all --force --time 0 >/dev/null 2>&1'
is "limits inside" "$("${manage[@]}" run --rm --network none --memory 64m --pids-limit 50 --cpus 0.5 localhost/busybox \
    sh -c 'cd /sys/fs/cgroup && cat memory.max pids.max cpu.max')" "67108864
50
50000 100000"

"${manage[@]}" run --detach --name box --network none --memory 32m --memory-swap 32m localhost/busybox \
    sh -c 'echo started; until [ -e /go ]; do sleep 0.1; done; dd if=/dev/zero of=/dev/null bs=100M count=1; s=$?
        until [ -e /end ]; do sleep 0.1; done; exit $s' >/dev/null
pid=$("${manage[@]}" inspect --format '{{.State.Pid}}' box)
path=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
case $MANAGER in
    systemd) matches "its cgroup" "$path" "/machine.slice/libpod-*.scope*" ;;
    cgroupfs) matches "its cgroup" "$path" "/libpod_parent/libpod-*" ;;
esac
is "exec" "$("${manage[@]}" exec box sh -c 'grep ^0: /proc/self/cgroup; hostname >/dev/null && touch /go')" "0::/"
soon "the hungry process is killed" grep -q '^oom_kill 1' "/sys/fs/cgroup$path/memory.events"
touch "/proc/$pid/root/end"
is "exit status" "$("${manage[@]}" wait box)" 137
is "logs" "$("${manage[@]}" logs box | head -n 1)" started
# conmon reads of the kill after the last process's end, when systemd may have removed the cgroup.
[ "$MANAGER" = systemd ] || is "OOMKilled" "$("${manage[@]}" inspect --format '{{.State.OOMKilled}}' box)" true
"${manage[@]}" rm box >/dev/null
left=$(find /sys/fs/cgroup -type d -name 'libpod-*' ! -name '*conmon*')
[ -z "$left" ] || fail "cgroups are left: $left"
