# (root or a user) × (a user namespace or not) × (bind, tmpfs, proc, sysfs, cgroup, mqueue, overlay): what must work and what
# must be refused, by coracle, runc 1.3 and crun.
# managers: cgroupfs
# seconds: 900
[ "$RUNTIME_NAME" = coracle ] || skip "the guest's $RUNTIME_NAME is compared elsewhere"
peer crun
crun=$peer
peer runc
runc=$peer
all='bind tmpfs proc sysfs cgroup mqueue overlay'
# A user must get there.
folder=/run/gt-matrix
at_exit "rm -rf $folder"
install -d -m 755 "$folder"

# For each mount: its mode, and whether a directory can be made in it.
look='for m in '$all'; do
    test -d /mnt/$m || continue
    mode=$(sed -n "s|.* /mnt/$m \(r[ow]\).*|\1|p" /proc/self/mountinfo | tail -n 1)
    mkdir /mnt/$m/made 2>/dev/null && rmdir /mnt/$m/made && mode="$mode+"
    echo -n "$m $mode, "
done; echo'

# of KIND: the mount as jq has it.
of() {
    local options='[]' from=$1
    case $1 in
        bind) from=$box/source options='["rbind"]' ;;
        tmpfs) options='["mode=777"]' ;;
        overlay) options="[\"lowerdir=$box/lower\", \"upperdir=$box/upper\", \"workdir=$box/work\"]" ;;
    esac
    echo "{destination: \"/mnt/$1\", type: \"$1\", source: \"$from\", options: $options}"
}

# outcome RUNTIME CALLER FILTER KIND...: what the container's process tells, or "refused".
outcome() {
    local by=$1 caller=$2 filter=$3 kind mounts='' owner=0 status=0 command=()
    shift 3
    box=$folder/box
    rm -rf --one-file-system "$box"
    case $caller in
        root-mapped) owner=100000 ;;
        user*) owner=$(id -u user) ;;
    esac
    mkdir -p "$box"/{source,lower,upper,work,state} "$box/rootfs"/{bin,dev,proc,mnt,tmp}
    cp /busybox/bin/busybox "$box/rootfs/bin/"
    for kind in sh sed tail mkdir rmdir test; do ln -s busybox "$box/rootfs/bin/$kind"; done
    for kind in "$@"; do
        mkdir "$box/rootfs/mnt/$kind"
        mounts+=$(of "$kind"),
    done
    case $caller in
        root-mapped) filter+=" | $(mapped $owner)" ;;
        user-mapped) filter+=" | .linux.namespaces += [{type: \"user\"}] | .linux.gidMappings =
            [{containerID: 0, hostID: $owner, size: 1}] | .linux.uidMappings = .linux.gidMappings" ;;
    esac
    jq --arg look "$look" ".process.args = [\"sh\", \"-c\", \$look] | .root = {path: \"rootfs\"} |
        .process.capabilities |= map_values([\"CAP_SYS_ADMIN\"]) | del(.process.rlimits, .linux.resources) |
        .linux.maskedPaths = [] | .linux.readonlyPaths = [] | .linux.namespaces -= [{type: \"cgroup\"}] |
        .mounts = [{destination: \"/proc\", type: \"proc\", source: \"proc\"},
            {destination: \"/dev\", type: \"tmpfs\", source: \"tmpfs\", options: [\"mode=755\"]}, ${mounts%,}] | $filter" \
        "$TESTS/base.json" >"$box/config.json"
    chown -hR "$owner:$owner" "$box"
    command=("$by" --root "$box/state" run --bundle "$box" gt-matrix)
    [[ $caller != user* ]] || command=(undelegated "${command[@]}")
    "${command[@]}" </dev/null >"$WORK/out" 2>"$WORK/err" || status=$?
    if ((status == 0)); then
        sed 's/, $//' "$WORK/out"
    else
        [ -s "$WORK/err" ] || fail "$by refuses $* for $caller without a word"
        echo refused
    fi
}

# Without the container's own cgroup namespace its cgroup is the host's root's, or nobody's.
works='bind rw+, tmpfs rw+, proc rw, sysfs rw, cgroup rw, mqueue rw, overlay rw+'
for caller in root root-mapped user-mapped user; do
    for by in "$RUNTIME" "$runc" "$crun"; do
        expected=$works
        # There is no container of a user's without a user namespace; crun adds one of itself.
        [ $caller != user ] || expected=refused
        [ "$caller $by" != "user $crun" ] || continue
        is "for $caller by $by" "$(outcome "$by" $caller . $all)" "$expected"
    done
done

# Where a new instance is refused, since the namespace that it shows is the host's, coracle shows the host's, read-only.
net='.linux.namespaces -= [{type: "network"}]'
pids='.linux.namespaces -= [{type: "pid"}] | .mounts[0] = {destination: "/proc", type: "bind", source: "/proc", options: ["rbind"]}'
for caller in root-mapped user-mapped; do
    for by in "$RUNTIME" "$runc" "$crun"; do
        for row in "sysfs $net" "proc $pids"; do
            expected=refused
            [ "$by" != "$RUNTIME" ] || expected="${row%% *} ro"
            is "the host's ${row%% *} for $caller by $by" "$(outcome "$by" $caller "${row#* }" "${row%% *}")" "$expected"
        done
    done
done
