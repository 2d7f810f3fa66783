# What the tests in cases/ are written with. Sourced with `set -euo pipefail`.
#
#   MANAGER       cgroupfs, systemd, or user (the systemd of an ordinary user)
#   RUNTIME       path of the runtime under test, RUNTIME_NAME its name
#   ROOT, WORK    its state folder; a folder for this test's files
#
# A container NAME has the id gt-NAME and a cgroup, and under systemd a unit, of that
# name. What is left running is deleted after the test, and the test fails when a cgroup,
# a unit, a mount or state remains after that.

exits=()
run_exits() { local i; for ((i = ${#exits[@]} - 1; i >= 0; i--)); do eval "${exits[i]}" || :; done; }
trap run_exits EXIT
trap 'exit 143' TERM
trap 'echo "line $LINENO failed: $BASH_COMMAND" >&2' ERR
set -E

# at_exit COMMAND: runs COMMAND when the test ends, however it ends; the last first.
at_exit() { exits+=("$1"); }

fail() { trap - ERR; echo "$*" >&2; exit 1; }
skip() { trap - ERR; echo "$*" >"$WORK/skipped"; exit 77; }

# only_for RUNTIME WHY: skips under other runtimes.
only_for() { [ "$RUNTIME_NAME" = "$1" ] || skip "$RUNTIME_NAME $2"; }

# peer NAME: the newest release of runc or crun in $peer, which is newer than the guest's own.
peer() {
    peer=${PEERS:-}/bin/$1
    [ -x "$peer" ] || skip "no $1 of the peers here: integration/peers/fetch brings it"
}

# mapped BASE: a filter that gives a bundle a user namespace of 65536 ids from BASE on.
mapped() {
    echo ".linux.namespaces += [{type: \"user\"}] |
        .linux.uidMappings = [{containerID: 0, hostID: $1, size: 65536}] | .linux.gidMappings = .linux.uidMappings"
}

# undelegated PROGRAM [ARGUMENT...]: runs it as the ordinary user, in this test's own cgroup, which is not the user's.
undelegated() { setpriv --reuid=user --regid=user --init-groups env HOME=/home/user XDG_RUNTIME_DIR=/run/user/1000 "$@"; }

# is WHAT ACTUAL EXPECTED, matches WHAT ACTUAL PATTERN (a glob)
is() { [ "$2" = "$3" ] || fail "$1: got '$2', expected '$3'"; }
matches() { [[ $2 == $3 ]] || fail "$1: got '$2', expected it to match '$3'"; }

# soon WHAT COMMAND...: waits until COMMAND succeeds. Emulation is slow: patience, no measure.
soon() {
    local what=$1 end=$((SECONDS + 40))
    shift
    while ((SECONDS < end)); do
        if "$@" >/dev/null 2>&1; then return 0; fi
        sleep 0.1
    done
    fail "it never came to pass that $what ($*)"
}

# The runtime under test, with its root and the manager.
runtime() {
    if [ "$MANAGER" = cgroupfs ]; then "$RUNTIME" --root "$ROOT" "$@"
    else "$RUNTIME" --root "$ROOT" --systemd-cgroup "$@"; fi
}

cgroups_path() { if [ "$MANAGER" = cgroupfs ]; then echo "/gt-$1"; else echo "system.slice:gt:$1"; fi; }

# cgroup NAME: the folder of the container's cgroup.
cgroup() {
    if [ "$MANAGER" = cgroupfs ]; then echo "/sys/fs/cgroup/gt-$1"
    else echo "/sys/fs/cgroup/system.slice/gt-$1.scope"; fi
}

# limit NAME FILE: what a file of the container's cgroup says.
limit() { cat "$(cgroup "$1")/$2"; }

# counter NAME FILE KEY: the number beside KEY in such a file.
counter() { sed -n "s/^$3 //p" "$(cgroup "$1")/$2"; }
counts() { (($(counter "$1" "$2" "$3") > 0)); }

# bundle NAME COMMAND [FILTER]: $WORK/NAME, whose process is a shell that runs COMMAND;
# FILTER is jq's, for the rest of config.json.
bundle() {
    mkdir -p "$WORK/$1"
    jq --arg command "$2" --arg path "$(cgroups_path "$1")" \
        ".process.args = [\"sh\", \"-c\", \$command] | .linux.cgroupsPath = \$path | ${3:-.}" \
        "$TESTS/base.json" >"$WORK/$1/config.json"
}

# start NAME COMMAND [FILTER]: runs such a bundle detached. Its output: $WORK/NAME.out,
# its first process: pid NAME.
start() {
    bundle "$@"
    launch "$1" || fail "the runtime could not run $1: $(cat "$WORK/$1.out")"
}
launch() {
    runtime run --detach --bundle "$WORK/$1" --pid-file "$WORK/$1.pid" "gt-$1" </dev/null >"$WORK/$1.out" 2>&1
}
pid() { cat "$WORK/$1.pid"; }

# refused NAME PATTERN: running the bundle fails, with an error that matches PATTERN.
refused() {
    if launch "$1"; then fail "the runtime ran $1, which it should have refused"; fi
    matches "the error" "$(cat "$WORK/$1.out")" "$2"
}

# says NAME TEXT: whether the container's output has a line TEXT. Use with soon.
says() { grep -qxF -- "$2" "$WORK/$1.out"; }

# inside NAME COMMAND: a shell line in the container.
inside() { runtime exec "gt-$1" sh -c "$2"; }

status_of() { runtime state "gt-$1" | jq -r .status; }
has_status() { [ "$(status_of "$1")" = "$2" ]; }

# unit_anew UNIT: has systemd write all that it knows of a unit to the cgroup's files. A reload alone
# writes nothing in systemd 257; the next change of any property does.
unit_anew() {
    at_exit "rm -rf '/run/systemd/system.control/$1.d'"
    systemctl daemon-reload
    systemctl set-property --runtime "$1" IOAccounting=yes
}

# loop_device: makes one of 16 MiB; its path in $loop, its numbers in $major and $minor.
loop_device() {
    modprobe loop
    truncate --size 16M "$WORK/disk"
    loop=$(losetup --find --show "$WORK/disk")
    at_exit "losetup --detach $loop"
    major=$((0x$(stat -c %t "$loop"))) minor=$((0x$(stat -c %T "$loop")))
}
