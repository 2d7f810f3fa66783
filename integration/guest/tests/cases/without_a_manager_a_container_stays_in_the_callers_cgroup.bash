# --cgroup-manager=disabled makes no cgroup, and refuses with a reason what would need one.
# managers: cgroupfs
only_for coracle "has no --cgroup-manager=disabled"
disabled() { "$RUNTIME" --root "$ROOT" --cgroup-manager=disabled "$@"; }
bundle box 'exec sleep 1000' 'del(.linux.cgroupsPath)'
disabled run --detach --bundle "$WORK/box" --pid-file "$WORK/box.pid" gt-box </dev/null >"$WORK/box.out" 2>&1 ||
    fail "run: $(cat "$WORK/box.out")"
is "its cgroup" "$(cut -d: -f3 "/proc/$(pid box)/cgroup")" "$(cut -d: -f3 /proc/self/cgroup)"
[ -z "$(find /sys/fs/cgroup -name '*gt-box*')" ] || fail "a cgroup was made"
inside box true
for command in "pause gt-box" "ps gt-box" "events --stats gt-box" "update --pids-limit 5 gt-box" "kill --all gt-box TERM"; do
    if runtime $command >"$WORK/error" 2>&1; then fail "$command works without a cgroup"; fi
    matches "the error of $command" "$(cat "$WORK/error")" "*cgroup*"
done
runtime kill --all gt-box KILL # the first process of a pid namespace is one for all
soon "the container is stopped" has_status box stopped
runtime delete gt-box
bundle limited 'exec sleep 1000' '.linux.resources.pids.limit = 5'
if disabled run --bundle "$WORK/limited" gt-limited >"$WORK/error" 2>&1; then fail "limits were taken and not kept"; fi
matches "the error" "$(cat "$WORK/error")" "*linux.resources*"
