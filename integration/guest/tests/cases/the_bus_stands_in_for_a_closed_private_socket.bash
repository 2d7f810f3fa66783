# systemd's own socket is not open to everybody, nor everywhere: then its message bus takes the calls.
# managers: systemd
only_for coracle "always uses the bus"
: >"$WORK/closed"
# closed SOCKET... -- COMMAND...: runs it where plain files stand in the sockets' places, which refuse a connection.
closed() {
    local sockets=()
    while [ "$1" != -- ]; do sockets+=("$1"); shift; done
    shift
    unshare --mount bash -euc 'for socket in $2; do mount --bind "$1" "$socket"; done; shift 2; exec "$@"' \
        closed "$WORK/closed" "${sockets[*]}" "$@"
}
private=/run/systemd/private bus=/run/dbus/system_bus_socket
bundle box 'exec sleep 1000' '.linux.resources += {pids: {limit: 77}}'
run=("$RUNTIME" --root "$ROOT" --systemd-cgroup run --detach --bundle "$WORK/box" gt-box)
if closed $private $bus -- "${run[@]}" </dev/null >"$WORK/box.out" 2>&1; then
    fail "it ran without any way to systemd"
fi
matches "the error" "$(cat "$WORK/box.out")" "*connect to systemd at $private or $bus: *is systemd running here?*"
[ ! -e "$ROOT/gt-box" ] || fail "the state of a container that could not be made is there"

closed $private -- "${run[@]}" </dev/null >"$WORK/box.out" 2>&1 || fail "by the bus alone: $(cat "$WORK/box.out")"
is pids.max "$(limit box pids.max)" 77
closed $private -- "$RUNTIME" --root "$ROOT" update --pids-limit 33 gt-box
is TasksMax "$(systemctl show gt-box.scope -p TasksMax --value)" 33
closed $private -- "$RUNTIME" --root "$ROOT" delete --force gt-box
[ ! -e "$(cgroup box)" ] || fail "the cgroup is there after delete"
