# create or delete dies of SIGKILL somewhere on its way, CRASH_CYCLES times; delete --force
# then clears up whatever is there. How long each may live is drawn from what one takes.
# managers: cgroupfs systemd
# seconds: 1800
mkfifo "$WORK/never"
exec {never}<>"$WORK/never"
wait_ms() { read -r -t "$(printf '0.%03d' "$1")" -u "$never" || :; } # without a process, which would cost more
processes() { ps --ppid 2 -N --no-headers -o pid | wc -l; } # of the kernel's own none
no_more_processes() { (($(processes) <= processes_before)); }
programs() { bpftool --json prog show | jq '[.[] | select(.type == "cgroup_device" or .type == "cgroup_skb")] | length'; }
create() { runtime create --bundle "$WORK/box" gt-box </dev/null >"$WORK/box.out" 2>&1; }
bundle box 'exec sleep 1000' '.linux.resources += {memory: {limit: 67108864}, pids: {limit: 77}}'
began=$EPOCHREALTIME
create
span=$(((${EPOCHREALTIME/./} - ${began/./}) / 1000))
runtime delete --force gt-box
programs_before=$(programs)
processes_before=$(processes)

RANDOM=1
for ((cycle = 0; cycle < CRASH_CYCLES; cycle++)); do
    victim=create
    if ((cycle % 3 == 2)); then create; victim=delete; fi
    # In the background the runtime itself, not a shell around it: the signal must hit it.
    case $victim in
        create) command=("$RUNTIME" --root "$ROOT" create --bundle "$WORK/box" gt-box) ;;
        delete) command=("$RUNTIME" --root "$ROOT" delete --force gt-box) ;;
    esac
    [ "$MANAGER" = cgroupfs ] || command=("$RUNTIME" --root "$ROOT" --systemd-cgroup "${command[@]:3}")
    "${command[@]}" </dev/null >"$WORK/victim.out" 2>&1 &
    victim_pid=$!
    wait_ms $((RANDOM * (span > 999 ? 999 : span) / 32768))
    kill -KILL $victim_pid 2>/dev/null || :
    wait $victim_pid 2>/dev/null || :
    runtime delete --force gt-box >"$WORK/delete.out" 2>&1 || fail "cycle $cycle: delete --force after a killed $victim: $(cat "$WORK/delete.out")"
    [ ! -e "$(cgroup box)" ] || fail "cycle $cycle: the cgroup is there after a killed $victim"
    [ ! -e "$ROOT/gt-box" ] || fail "cycle $cycle: the state is there after a killed $victim"
done
if [ "$MANAGER" = systemd ]; then
    soon "no unit is left" sh -c '[ -z "$(systemctl list-units --all --no-legend "gt-*")" ]'
fi
soon "no process is left" no_more_processes
after=$(programs)
((after <= programs_before)) || fail "$after BPF programs in cgroups, $programs_before before"
