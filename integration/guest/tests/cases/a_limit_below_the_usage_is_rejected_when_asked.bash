# memory.checkBeforeUpdate; in config.json it is for all updates.
# managers: cgroupfs systemd
only_for coracle "of the guest may be older"
start box 'exec sleep 1000' '.linux.resources.memory = {limit: 67108864, checkBeforeUpdate: true}'
rejected() { # WORDS ARGUMENT...
    local words=$1
    shift
    if runtime update "$@" gt-box >"$WORK/error" 2>&1; then fail "update $* was taken"; fi
    matches "the error of $*" "$(cat "$WORK/error")" "*$words*"
}
rejected "rejecting memory limit 4096 <= usage " --memory 4096
rejected "rejecting memory+swap limit 4096 <= usage " --memory 4096 --memory-swap 4096
is memory.max "$(limit box memory.max)" 67108864
