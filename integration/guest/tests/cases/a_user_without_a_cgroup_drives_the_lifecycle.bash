# A user to whom no cgroup was delegated: what needs none works, what needs one says what to do. With runc 1.3's exit
# statuses.
# managers: user-cgroupfs
# seconds: 300
[ "$RUNTIME_NAME" = coracle ] || skip "the guest's $RUNTIME_NAME is compared elsewhere"
peer runc
folder=/run/user/1000/gt-none
at_exit "rm -rf $folder"
install -d -o user -g user "$folder" "$folder/box"
undelegated sh -c "cd $folder && $RUNTIME spec --rootless"
jq '.process.terminal = false | .root = {path: "/busybox", readonly: true} | .process.args = ["sleep", "1000"]' \
    "$folder/config.json" >"$folder/box/config.json"

# lifecycle RUNTIME: a line for each command, with its status; what it says goes to $WORK/said.
lifecycle() {
    local by=$1 status
    : >"$WORK/said"
    step() {
        status=0
        undelegated "$by" --root "$folder/root" "$@" </dev/null >"$WORK/out" 2>&1 || status=$?
        sed "s/^/$1: /" "$WORK/out" >>"$WORK/said"
        echo "$1 $status"
    }
    step run --detach --bundle "$folder/box" gt-none
    step exec gt-none id -u
    step state gt-none
    step list --quiet
    step pause gt-none
    step resume gt-none
    step ps gt-none
    step update --pids-limit 5 gt-none
    step kill gt-none KILL
    until [ "$(undelegated "$by" --root "$folder/root" state gt-none | jq -r .status)" = stopped ]; do sleep 0.1; done
    step delete gt-none
    step delete gt-none
}
at_exit "undelegated $RUNTIME --root $folder/root delete --force gt-none"
theirs=$(lifecycle "$peer")
ours=$(lifecycle "$RUNTIME")
is "statuses of coracle and runc" "$ours" "$theirs"
is "what works" "$(grep ' 0$' <<<"$ours" | tr '\n' ' ')" "run 0 exec 0 state 0 list 0 kill 0 delete 0 "
matches "what exec runs" "$(grep ^exec "$WORK/said")" "exec: 0"
for command in pause ps update; do
    matches "what $command says" "$(grep "^$command" "$WORK/said")" "*no cgroup of its own*systemd-run --user --scope -p Delegate=yes*"
done
is "state that is left" "$(find "$folder/root" -mindepth 1)" ""

# --rootless=false takes nothing for granted, and --rootless=true tolerates what root would be told.
status=0
undelegated "$RUNTIME" --root "$folder/root" --rootless false run --bundle "$folder/box" gt-none </dev/null >"$WORK/out" 2>&1 || status=$?
is "status with --rootless=false" "$status" 1
matches "the error" "$(cat "$WORK/out")" "*unable to apply cgroup configuration*ermission denied*delegate*"

# A container in a delegated cgroup, and an exec from outside of that: as with runc it goes on where it is, and says so.
rm -f "$folder/out"
as-user sh -c "$RUNTIME --root $folder/root --systemd-cgroup run --detach --bundle $folder/box gt-none </dev/null >$folder/out 2>&1" ||
    fail "$(cat "$folder/out")"
undelegated "$RUNTIME" --root "$folder/root" --systemd-cgroup exec gt-none sh -c 'id -u' >"$WORK/out" 2>"$WORK/err" || fail "$(cat "$WORK/err")"
is "what the exec runs" "$(cat "$WORK/out")" 0
matches "what it warns of" "$(cat "$WORK/err")" "*stays in the caller's cgroup*systemd-run --user --scope*"
