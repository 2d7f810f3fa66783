# A user to whom no cgroup was delegated, and a bundle without a cgroup namespace: there is no cgroup
# of the container's to mount, and the directory above stands in, which the user may only read.
# managers: user-cgroupfs
only_for coracle "hides the hierarchy then"
folder=/run/user/1000/gt-undelegated
at_exit "rm -rf $folder"
install -d -o user -g user "$folder" "$folder/box"
as-user sh -c "cd $folder && $RUNTIME spec --rootless"
jq '.process.terminal = false | .root = {path: "/busybox", readonly: true} |
    .process.args = ["sh", "-c", "cat /sys/fs/cgroup/cgroup.controllers; mkdir /sys/fs/cgroup/x || echo kept"] |
    .linux.namespaces -= [{type: "cgroup"}] | .mounts += [{destination: "/sys/fs/cgroup", type: "cgroup",
    source: "cgroup", options: ["nosuid", "noexec", "nodev", "ro"]}]' "$folder/config.json" >"$folder/box/config.json"
setpriv --reuid=user --regid=user --init-groups env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 \
    "$RUNTIME" --root "$folder/root" run --bundle "$folder/box" gt-undelegated >"$WORK/out" 2>"$WORK/error" </dev/null ||
    fail "$(cat "$WORK/error")"
is "what it sees" "$(tail -n 1 "$WORK/out")" kept

# Limits need a cgroup, and are refused in runc's words.
jq '.linux.resources.pids.limit = 5' "$folder/box/config.json" >"$WORK/limited.json"
install -o user -g user "$WORK/limited.json" "$folder/box/config.json"
if setpriv --reuid=user --regid=user --init-groups env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 \
    "$RUNTIME" --root "$folder/root" run --bundle "$folder/box" gt-undelegated >"$WORK/out" 2>"$WORK/error" </dev/null
then fail "a limit was taken without a cgroup"; fi
matches "the error" "$(cat "$WORK/error")" "*unable to apply cgroup configuration: rootless needs no limits + no cgrouppath when no permission is granted for cgroups*ermission denied*"
