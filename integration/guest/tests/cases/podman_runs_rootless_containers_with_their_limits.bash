# An ordinary user's Podman: the user's own systemd makes the unit and the limits.
# managers: user
# seconds: 1200
manage=(as-user podman --runtime "$RUNTIME" --cgroup-manager systemd --log-level error)
at_exit '"${manage[@]}" rm --all --force --time 0 >/dev/null 2>&1'
is "limits and identity inside" "$("${manage[@]}" run --rm --network none --memory 64m --pids-limit 50 localhost/busybox \
    sh -c 'cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/pids.max; id -u')" "67108864
50
0"
"${manage[@]}" run --detach --name box --network none localhost/busybox sleep 1000 >/dev/null
path=$(sed -n 's/^0:://p' "/proc/$("${manage[@]}" inspect --format '{{.State.Pid}}' box)/cgroup")
matches "its cgroup" "$path" "/user.slice/user-1000.slice/user@1000.service/*libpod-*.scope*"
is "exec" "$("${manage[@]}" exec box echo hello)" hello
"${manage[@]}" rm --force --time 0 box >/dev/null
