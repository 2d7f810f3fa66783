# containerd 1.7 with the shim, which has the runtime in it.
# managers: cgroupfs systemd
# seconds: 1200
only_for coracle "is not what this shim runs"
at_exit 'ctr task delete --force gt-box; ctr container delete gt-box' # as far as they exist
config=$WORK/coracle.toml
if [ "$MANAGER" = systemd ]; then echo 'SystemdCgroup = true' >"$config"; else : >"$config"; fi
options=(--runtime io.containerd.coracle.v2 --runtime-config-path "$config" --cgroup "$(cgroups_path box)")

# The shim is the container's, and goes with it.
no_shim() { ! pgrep -f 'containerd-shim-coracle-v2 .*-id gt-box'; }
# end STATUS: waits for the task's end, and takes the container away.
end() {
    soon "the task is stopped" sh -c "ctr task ls | grep -q STOPPED"
    is "delete" "$(ctr task delete gt-box 2>&1 | grep -o 'exit code [0-9]*')" "exit code $1"
    ctr container delete gt-box
    soon "its cgroup is gone" test ! -e "$(cgroup box)"
    soon "its unit is gone" sh -c "! systemctl list-units --all --no-legend 'gt-box*' | grep -q ."
    soon "its shim is gone" no_shim
}

is "output and status" "$(ctr run --rm "${options[@]}" localhost/busybox:latest gt-box \
    sh -c 'echo hello; exit 5' || echo "status $?")" "hello
status 5"

ctr run --detach --memory-limit 67108864 "${options[@]}" localhost/busybox:latest gt-box sleep 1000 >/dev/null
soon "the shim runs" pgrep -f 'containerd-shim-coracle-v2 .*-id gt-box'
is memory.max "$(limit box memory.max)" 67108864
is "exec" "$(ctr task exec --exec-id one gt-box echo hello)" hello
is "status of an exec" "$(ctr task exec --exec-id two gt-box sh -c 'exit 4' || echo "status $?")" "status 4"
ctr task pause gt-box
is "frozen" "$(counter box cgroup.events frozen)" 1
matches "list of a paused task" "$(ctr task ls)" "*gt-box*PAUSED*"
ctr task resume gt-box
is "frozen" "$(counter box cgroup.events frozen)" 0
matches "ps" "$(ctr task ps gt-box)" "*PID*"
# What only version 2 of the statistics has.
matches "metrics" "$(ctr task metrics gt-box)" "*cpu.usage_usec*memory.usage_limit*67108864*"
ctr task kill --signal KILL gt-box
end 137

# An OOM kill is told by memory.events, before the end.
ctr events >"$WORK/events" &
at_exit "kill $!"
ctr run --detach --memory-limit 33554432 "${options[@]}" localhost/busybox:latest gt-box \
    sh -c 'sleep 1; tail /dev/zero; exit 3' >/dev/null
end 3
soon "the OOM kill is told" grep -q '/tasks/oom .*gt-box' "$WORK/events"
matches "order of events" "$(grep -o '/tasks/[a-z]* ' "$WORK/events" | tr -d '\n')" \
    "*/tasks/create */tasks/start */tasks/oom */tasks/exit */tasks/delete *"
