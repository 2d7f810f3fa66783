# With a user namespace and without: what the container sees of a file of 5:6, as whom it writes, and whose that is on the
# host; for bind mounts and for filesystems that are made for the container. Bind mounts as by runc 1.3.
# managers: cgroupfs
# seconds: 600
[ "$RUNTIME_NAME" = coracle ] || skip "the guest's $RUNTIME_NAME is compared elsewhere"
peer runc
source=$WORK/source
fresh() {
    rm -rf "$source"
    mkdir "$source"
    touch "$source/file"
    chown 5:6 "$source/file"
    chmod 777 "$source"
}
ids() { echo "[{containerID: 0, hostID: $1, size: 65536}]"; }
own() { echo "uidMappings: $(ids "$1"), gidMappings: $(ids "$2")"; }

# mount_of FIELDS, with the mount's other fields: the filter.
mount_of() { echo ".mounts += [{destination: \"/mnt\", $1}]"; }
bind() { mount_of "type: \"bind\", source: \"$source\", options: [$1] ${2:+, $2}"; }
made() { mount_of "type: \"$1\", source: \"$1\", options: [$2] ${3:+, $3}"; }

# sees NAME FILTER EXPECTED: in words, the owner that the container sees, and the owners of what it makes inside and outside.
look='stat -c %u:%g /mnt/file; touch /mnt/new && stat -c %u:%g /mnt/new'
sees() {
    local by
    for by in "$RUNTIME" "$peer"; do
        fresh
        bundle "$1" "$look" "$2"
        "$by" --root "$ROOT" run --bundle "$WORK/$1" "gt-$1" </dev/null >"$WORK/seen" 2>&1 || :
        [ ! -e "$source/new" ] || stat -c %u:%g "$source/new" >>"$WORK/seen"
        is "$1 by $by" "$(tr '\n' ' ' <"$WORK/seen")" "$3 "
    done
}
# The host's 0 is 1000 inside, its gid 0 is 3000: what 1005 writes is 5's.
sees bind-own ".process.user = {uid: 1005, gid: 3006} | $(bind '"rbind"' "$(own 1000 3000)")" "1005:3006 1005:3006 5:6"
# The container's own ids, and the same ones below the mount.
sees bind-idmap "$(mapped 100000) | .process.user = {uid: 12, gid: 13} | $(bind '"bind", "idmap"')" "5:6 12:13 12:13"
sees bind-ridmap "$(mapped 100000) | .process.user = {uid: 12, gid: 13} | $(bind '"rbind", "ridmap"')" "5:6 12:13 12:13"
# Ids of its own, beside those of the container: 100000 is the container's root.
sees bind-both "$(mapped 100000) | .process.user = {uid: 9, gid: 9} | $(bind '"bind"' "$(own 100000 100000)")" "5:6 9:9 9:9"
# Without a map nothing of the host's is the container's, and what it writes is the mapped id's.
sees bind-plain "$(mapped 100000) | .process.user = {uid: 12, gid: 13} | $(bind '"bind"')" "65534:65534 12:13 100012:100013"

# Filesystems that are made for the container; runc maps none.
look='touch /mnt/new && stat -c %u:%g /mnt /mnt/new; grep -o idmapped /proc/self/mountinfo'
alone() {
    bundle "$1" "$look" "$2"
    runtime run --bundle "$WORK/$1" "gt-$1" </dev/null >"$WORK/seen" 2>&1 || :
    is "$1" "$(tr '\n' ' ' <"$WORK/seen")" "$3 "
    if "$peer" --root "$ROOT" run --bundle "$WORK/$1" "gt-$1-peer" </dev/null >"$WORK/seen" 2>&1; then
        fail "runc maps $1 now: compare it"
    fi
}
alone tmpfs-own ".process.user = {uid: 1005, gid: 3006} | $(made tmpfs '"mode=777"' "$(own 1000 3000)")" "1000:3000 1005:3006 idmapped"
alone tmpfs-idmap "$(mapped 100000) | .process.user = {uid: 12, gid: 13} | $(made tmpfs '"mode=777", "idmap"')" "0:0 12:13 idmapped"
alone tmpfs-both "$(mapped 100000) | .process.user = {uid: 12, gid: 13} | $(made tmpfs '"mode=777"' "$(own 100007 100008)")" "7:8 12:13 idmapped"

# What has no ids to map is refused, with its place.
bundle sysfs true "$(made sysfs '' "$(own 1000 1000)")"
refused sysfs "*mounts*doesn't support id-mapped mounts*"
