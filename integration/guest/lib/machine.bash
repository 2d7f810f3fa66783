# One running guest: start it, talk to its agent, end it.
#
# Sourced by build-image and run. The emulator's own stdin and stdout are the line to
# the agent in the guest (inside/agent has the protocol), so its end is the end of that
# line: nothing needs to be polled. A guest never outlives the script that started it,
# even when the script is killed with SIGKILL (setpriv's parent-death signal).

readonly memory_mib=2048
readonly kernel_arguments='console=ttyS0 quiet panic=-1 mitigations=off audit=0 tsc=reliable no_timer_check systemd.show_status=0'
# systemd 257 does this only for those who insist; 258 no more.
readonly hybrid_arguments='systemd.unified_cgroup_hierarchy=no SYSTEMD_CGROUP_ENABLE_LEGACY_FORCE=1'

machine_pid='' share_pid='' scratch=''

# machine_start IMAGE_DIR DRIVE [QEMU ARGUMENT...]
# Starts the guest on DRIVE (the value of QEMU's -drive). The guest's ports "stdout" and
# "stderr" come out on this script's descriptors. What is not an argument must be the
# same when a snapshot is saved and when it is resumed.
machine_start() {
    local image=$1 drive=$2
    shift 2
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/coracle-guest.XXXXXX") || return
    (cd "$scratch" && mkfifo to-agent from-agent monitor && : >console) || return
    local out err
    # Both ends, so that neither side's open waits for the other.
    exec {monitor}<>"$scratch/monitor"
    # The readers end when the guest does, and then all of its output is through.
    exec {out}> >(exec cat)
    exec {err}> >(exec cat {out}>&- >&2)
    # The guest's disk may be lost at any time: cache=unsafe never waits for this machine's.
    # The CPU lacks what costs emulation extra work: 16-byte compare-and-swap, a fifth level of
    # page tables, protections that the kernel switches at each copy from user space. How much
    # each costs was not measured.
    setpriv --pdeathsig KILL qemu-system-x86_64 \
        -nodefaults -no-user-config -display none -no-reboot \
        -machine pc,memory-backend=ram \
        -object memory-backend-memfd,id=ram,size=${memory_mib}M,share=on -m "$memory_mib" \
        -accel tcg,thread=multi,tb-size=512 -cpu max,-cx16,-la57,-smap,-smep,-umip,-pku -smp 2 \
        -kernel "$image/vmlinuz" -initrd "$image/initrd" \
        -append "$kernel_arguments" \
        -drive "if=none,id=root,cache=unsafe,$drive" -device virtio-blk-pci,drive=root \
        -device virtio-rng-pci -device vmgenid,guid=auto -device virtio-serial-pci \
        -chardev stdio,id=agent,signal=off -device virtserialport,chardev=agent,name=agent \
        -chardev file,id=stdout,path="/dev/fd/$out" -device virtserialport,chardev=stdout,name=stdout \
        -chardev file,id=stderr,path="/dev/fd/$err" -device virtserialport,chardev=stderr,name=stderr \
        -chardev file,id=console,path="$scratch/console" -serial chardev:console \
        -chardev file,id=monitor,path="$scratch/monitor.log",input-path="$scratch/monitor" \
        -mon chardev=monitor,mode=readline \
        "$@" <"$scratch/to-agent" >"$scratch/from-agent" 2>"$scratch/qemu.log" &
    machine_pid=$!
    # In the order in which the emulator's redirections open the other ends.
    exec {to_agent}>"$scratch/to-agent" {from_agent}<"$scratch/from-agent" {out}>&- {err}>&-
}

# machine_monitor COMMAND: one line for QEMU's own command prompt.
machine_monitor() { echo "$1" >&"$monitor"; }

# machine_say LINE: to the agent. A dead guest shows at the next machine_hear.
machine_say() { echo "$1" >&"$to_agent" 2>/dev/null || :; }

# machine_hear SECONDS: the agent's next line, in $heard.
# Returns 124 when the time is up, 125 when the guest is dead (its last words go to stderr).
machine_hear() {
    local status=0
    IFS= read -r -t "$1" -u "$from_agent" heard || status=$?
    ((status == 0)) && return 0
    ((status > 128)) && return 124
    note "the guest died; the end of its console and of QEMU's log:"
    tail -n 40 "$scratch/console" "$scratch/qemu.log" "$scratch/monitor.log" >&2 || :
    return 125
}

# machine_hear_end SECONDS: passes the words "alive" over. Returns as machine_hear does, and 125
# too when the guest has been silent for two minutes.
machine_hear_end() {
    local end=$((SECONDS + $1)) left status
    while left=$((end - SECONDS)) && ((left > 0)); do
        status=0
        machine_hear $((left < 120 ? left : 120)) || status=$?
        if ((status == 124 && left > 120)); then
            note "the guest hangs: it has said nothing for 120 s"
            return 125
        fi
        ((status == 0)) && [ "$heard" = alive ] || return "$status"
    done
    return 124
}

# machine_run yes|no SCRIPT: has the agent run SCRIPT, with or without a shared folder.
# The answer is for machine_hear.
machine_run() {
    machine_say "run $(date +%s.%N) $1 $(base64 -w0 <<<"$2")"
}

# machine_share DIR: plugs in the device behind which DIR can be mounted as "share".
# Later than the start, because a machine that has it can't be resumed.
machine_share() {
    local sandbox=none
    ((EUID == 0)) && sandbox=chroot
    setpriv --pdeathsig KILL virtiofsd --socket-path="$scratch/share" --shared-dir="$1" --sandbox="$sandbox" \
        --cache=auto --rlimit-nofile=0 >"$scratch/virtiofsd.log" 2>&1 &
    share_pid=$!
    until [ -S "$scratch/share" ]; do
        kill -0 "$share_pid" 2>/dev/null || { note "virtiofsd ended: $(cat "$scratch/virtiofsd.log")"; return 125; }
        sleep 0.02
    done
    machine_monitor "chardev-add socket,id=share,path=$scratch/share"
    machine_monitor "device_add vhost-user-fs-pci,chardev=share,tag=share,queue-size=1024"
}

# machine_stop: ends the guest and everything that was started for it. May be called again.
machine_stop() {
    [ -n "$scratch" ] || return 0
    local pid
    for pid in $machine_pid $share_pid; do kill -KILL "$pid" 2>/dev/null || :; done
    wait 2>/dev/null || : # for those two and the readers
    exec {to_agent}>&- {from_agent}<&- {monitor}>&-
    rm -rf "$scratch"
    machine_pid='' share_pid='' scratch=''
}
