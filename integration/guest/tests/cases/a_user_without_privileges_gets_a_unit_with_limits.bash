# Through `systemd --user`, which owns the controllers that its manager was delegated.
# managers: user
user() { as-user "$RUNTIME" --root /run/user/1000/gt-root --systemd-cgroup "$@"; }
at_exit 'user delete --force gt-box >/dev/null 2>&1; rm -rf /run/user/1000/gt-root'
chmod 755 /var/tmp/guest-tests "$WORK"
mkdir "$WORK/box"
cd "$WORK/box"
as-user sh -c 'cd "$(mktemp -d)" && runc spec --rootless && cat config.json' | jq '.process.terminal = false |
    .root = {path: "/busybox", readonly: true} | .process.args = ["sleep", "1000"] |
    .linux.cgroupsPath = "user.slice:gt:box" | .linux.resources = {memory: {limit: 67108864}, pids: {limit: 77}}' >config.json
# A file, not this test's pipe: the container outlives the command.
as-user sh -c "$RUNTIME --root /run/user/1000/gt-root --systemd-cgroup run --detach --bundle $WORK/box \
    --pid-file /run/user/1000/gt-box.pid gt-box </dev/null >/run/user/1000/gt-box.out 2>&1" ||
    fail "run: $(cat /run/user/1000/gt-box.out)"
path=$(cut -d: -f3 "/proc/$(cat /run/user/1000/gt-box.pid)/cgroup")
matches "its cgroup" "$path" "/user.slice/user-1000.slice/user@1000.service/*/gt-box.scope"
is memory.max "$(cat "/sys/fs/cgroup$path/memory.max")" 67108864
is pids.max "$(cat "/sys/fs/cgroup$path/pids.max")" 77
is "MemoryMax of the unit" "$(as-user systemctl --user show gt-box.scope -p MemoryMax --value)" 67108864
user update --pids-limit 33 gt-box
is pids.max "$(cat "/sys/fs/cgroup$path/pids.max")" 33
user delete --force gt-box
[ ! -e "/sys/fs/cgroup$path" ] || fail "$path is still there"
