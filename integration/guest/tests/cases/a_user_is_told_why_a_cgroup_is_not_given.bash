# A path outside of what was delegated: the error names it and says what to do; nothing is left.
# managers: user-cgroupfs
only_for coracle "says only that permission is denied"
folder=/run/user/1000/gt-refused
at_exit "rm -rf $folder"
install -d -o user -g user "$folder" "$folder/box"
as-user sh -c "cd $folder && $RUNTIME spec --rootless"
jq '.process.terminal = false | .root = {path: "/busybox", readonly: true} | .process.args = ["true"] |
    .linux.cgroupsPath = "/gt-refused" | .linux.resources.pids.limit = 5' "$folder/config.json" >"$folder/box/config.json"
if as-user "$RUNTIME" --root "$folder/root" run --bundle "$folder/box" gt-refused >"$WORK/error" 2>&1; then
    fail "a user made a cgroup at the root"
fi
matches "the error" "$(cat "$WORK/error")" "*/sys/fs/cgroup/gt-refused*ermission denied*delegate*"
is "state that is left" "$(find "$folder/root" -mindepth 1)" ""
