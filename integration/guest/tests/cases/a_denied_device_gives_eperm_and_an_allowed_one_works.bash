# Rules apply by type, numbers and access: the disk may be read, not written.
# managers: cgroupfs systemd
loop_device
start box '
    dd if=/dev/disk of=/dev/null bs=512 count=1 2>/dev/null && echo "reading works"
    dd if=/dev/null of=/dev/disk conv=notrunc 2>&1 | grep -o "Operation not permitted" | sed "s/^/writing: /"
    mknod /dev/made b 7 251 && echo "making works"
    dd if=/dev/other of=/dev/null count=0 2>&1 | grep -o "Operation not permitted" | sed "s/^/unnamed: /"
    echo x >/dev/null && echo "null works"
    echo done
    exec sleep 1000' "
    .linux.devices = [
        {path: \"/dev/disk\", type: \"b\", major: $major, minor: $minor, fileMode: 438},
        {path: \"/dev/other\", type: \"c\", major: 10, minor: 229, fileMode: 438}] |
    .linux.resources.devices = [
        {allow: false, access: \"rwm\"},
        {allow: true, type: \"b\", major: $major, minor: $minor, access: \"r\"},
        {allow: true, type: \"b\", major: 7, minor: 251, access: \"m\"}] |
    .process.capabilities[] |= (. + [\"CAP_MKNOD\"])"
soon "the tries end" says box done
is "what the container could do" "$(cat "$WORK/box.out")" "reading works
writing: Operation not permitted
making works
unnamed: Operation not permitted
null works
done"
