# containerd 1.7 with Debian's runc shim, which calls the runtime under test.
# managers: cgroupfs systemd
# seconds: 1200
at_exit 'ctr task delete --force gt-box; ctr container delete gt-box' # as far as they exist
options=(--runc-binary "$RUNTIME" --cgroup "$(cgroups_path box)" --memory-limit 67108864)
[ "$MANAGER" = cgroupfs ] || options+=(--runc-systemd-cgroup)

is "output and status" "$(ctr run --rm "${options[@]}" localhost/busybox:latest gt-box \
    sh -c 'echo hello; exit 5' || echo "status $?")" "hello
status 5"
ctr run --detach "${options[@]}" localhost/busybox:latest gt-box sleep 1000 >/dev/null
is memory.max "$(limit box memory.max)" 67108864
is "exec" "$(ctr task exec --exec-id one gt-box echo hello)" hello
ctr task pause gt-box
is "frozen" "$(counter box cgroup.events frozen)" 1
ctr task resume gt-box
matches "ps" "$(ctr task ps gt-box)" "*PID*"
matches "metrics" "$(ctr task metrics gt-box)" "*memory*"
ctr task kill --signal KILL gt-box
soon "the task is stopped" sh -c "ctr task ls | grep -q STOPPED"
ctr task delete gt-box >/dev/null 2>&1 || : # its exit status is the task's
ctr container delete gt-box
[ ! -e "$(cgroup box)" ] || fail "its cgroup is still there"
