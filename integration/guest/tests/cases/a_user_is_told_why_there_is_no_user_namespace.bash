# The switches by which systems keep user namespaces from users, and users without ids of their own: each error says what
# to do, and leaves nothing.
# managers: user-cgroupfs
only_for coracle "says only what the kernel said"
folder=/run/user/1000/gt-told
at_exit "rm -rf $folder"
install -d -o user -g user "$folder" "$folder/box"
undelegated sh -c "cd $folder && $RUNTIME spec --rootless"
jq '.process.terminal = false | .root = {path: "/busybox", readonly: true} | .process.args = ["true"]' "$folder/config.json" >"$folder/box/one.json"
jq '.linux.uidMappings += [{containerID: 1, hostID: 100000, size: 10}] | .linux.gidMappings += [{containerID: 1, hostID: 100000, size: 10}]' \
    "$folder/box/one.json" >"$folder/box/more.json"

# told FILE PATTERN [PATH]
told() {
    install -o user -g user "$folder/box/$1.json" "$folder/box/config.json"
    if undelegated env PATH="${3:-$PATH}" "$RUNTIME" --root "$folder/root" run --bundle "$folder/box" gt-told </dev/null >"$WORK/out" 2>&1; then
        fail "it ran"
    fi
    matches "the error" "$(cat "$WORK/out")" "$2"
    is "state that is left" "$(find "$folder/root" -mindepth 1)" ""
}
with() {
    local before
    before=$(sysctl -n "$1")
    at_exit "sysctl -q -w $1=$before"
    sysctl -q -w "$1=$2"
}
more_ids=$(grep ^user: /etc/subuid)
sed -i '/^user:/d' /etc/subuid
at_exit "echo $more_ids >>/etc/subuid"
told more "*newuidmap refused the map*linux.uidMappings*/etc/subuid must give every range to this user*"
told more "*newuidmap*linux.uidMappings*package uidmap*" /nowhere
with kernel.unprivileged_userns_clone 0
told one "*linux.namespaces*sysctl kernel.unprivileged_userns_clone=1*"
sysctl -q -w kernel.unprivileged_userns_clone=1
with user.max_user_namespaces 0
told one "*no space left on device*linux.namespaces*sysctl user.max_user_namespaces=*"
