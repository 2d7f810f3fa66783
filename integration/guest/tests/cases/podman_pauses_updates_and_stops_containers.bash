# managers: systemd
# seconds: 1200
manage=(podman --runtime "$RUNTIME" --cgroup-manager "$MANAGER" --log-level error)
at_exit '"${manage[@]}" rm --all --force --time 0 >/dev/null 2>&1'
"${manage[@]}" run --detach --name box --network none --memory 64m localhost/busybox sleep 1000 >/dev/null
folder=/sys/fs/cgroup$(sed -n 's/^0:://p' "/proc/$("${manage[@]}" inspect --format '{{.State.Pid}}' box)/cgroup")
"${manage[@]}" pause box >/dev/null
is "status" "$("${manage[@]}" inspect --format '{{.State.Status}}' box)" paused
"${manage[@]}" unpause box >/dev/null
"${manage[@]}" update --memory 128m --pids-limit 40 box >/dev/null
is memory.max "$(cat "$folder/memory.max")" 134217728
is pids.max "$(cat "$folder/pids.max")" 40
unit_anew "${folder##*/}"
is "memory.max after a daemon-reload" "$(cat "$folder/memory.max")" 134217728
matches "top" "$("${manage[@]}" top box args)" "*sleep 1000*"
"${manage[@]}" stop --time 1 box >/dev/null
is "status" "$("${manage[@]}" inspect --format '{{.State.Status}}' box)" exited
