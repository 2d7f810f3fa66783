# A pod: the second container joins the user namespace of the first by its path, and others with it. By coracle, and by
# runc 1.3 on the same bundle.
# managers: systemd
# seconds: 400
[ "$RUNTIME_NAME" = coracle ] || skip "the guest's $RUNTIME_NAME is compared elsewhere"
peer runc
links='user net ipc uts cgroup time'
start donor 'exec sleep 1000' "$(mapped 100000) | .linux.namespaces += [{type: \"time\"}] |
    .linux.timeOffsets = {boottime: {secs: 1000000}} | .hostname = \"donor\""
pid=$(pid donor)
paths=''
for link in $links; do
    kind=${link/net/network}
    paths+="{type: \"$kind\", path: \"/proc/$pid/ns/$link\"},"
done
joins=".linux.namespaces = [{type: \"mount\"}, {type: \"pid\"}, ${paths%,}] | del(.hostname) |
    .process.user = {uid: 7, gid: 8, additionalGids: [9]} | .process.capabilities.ambient = [\"CAP_KILL\"] |
    .process.capabilities.inheritable = .process.capabilities.ambient"
look='for n in user net ipc uts cgroup time; do readlink /proc/self/ns/$n; done; cat /proc/self/uid_map /proc/self/gid_map; id;
    grep -E "^(Groups|Cap)" /proc/self/status; hostname; cat /proc/self/timens_offsets; echo $$; cut -d. -f1 /proc/uptime | cut -c 1-4
    stat -c "%n %u:%g" /proc /sys /dev /dev/null /dev/pts'
seen_by() { "$1" --root "$ROOT" --systemd-cgroup run --bundle "$WORK/second" "gt-second-$2" </dev/null 2>&1 || echo "it ended with $?"; }

bundle second "$look" "$joins"
ours=$(seen_by "$RUNTIME" ours)
is "what is seen by runc and by coracle" "$ours" "$(seen_by "$peer" theirs)"
for link in $links; do
    grep -qxF "$(readlink "/proc/$pid/ns/$link")" <<<"$ours" || fail "another $link than the donor's: $ours"
done
matches "its ids" "$ours" "*100000*uid=7 gid=8 groups=*9*"

# An exec into the second one is in the same namespaces.
start second 'exec sleep 1000' "$joins"
is "the exec's namespaces" "$(inside second 'readlink /proc/self/ns/user; readlink /proc/self/ns/net; id -u')" \
    "$(readlink "/proc/$pid/ns/user" "/proc/$pid/ns/net")
7"
is "owner of its process outside" "$(stat -c %u:%g "/proc/$(pid second)")" 100007:100008

# Mappings that are not the namespace's, and an id that it doesn't have.
bundle other true "$joins | .linux.uidMappings = [{containerID: 0, hostID: 5, size: 1}] | .linux.gidMappings = .linux.uidMappings"
refused other "*linux.uidMappings*non-matching mapping specified*"
bundle other true "$joins | .process.user = {uid: 70000, gid: 0}"
refused other "*process.user*user 70000 is not mapped*"
