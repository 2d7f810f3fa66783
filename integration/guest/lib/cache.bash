# Where the guest's files are kept, and how the emulator's programs are called.
#
# Sourced by build-image and run. Two folders stand in the cache, each named after a
# hash of what it was made from, so that an edit here builds anew:
#   tools-HASH   QEMU, virtiofsd, debootstrap … unpacked from Debian, with their own
#                libraries: nothing is installed on this machine
#   image-HASH   the guest's kernel, disk and the snapshot that `run` resumes

guest_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
. "$guest_dir/../cache.bash"
cache=$cache_home/coracle-guest

readonly suite=trixie

# Programs of the host's side. With trixie's QEMU 10.0, 25 guests of 25 answered.
readonly tool_packages=(qemu-system-x86 qemu-utils virtiofsd debootstrap e2fsprogs gpgv wget)

# What the guest has beyond Debian's base system.
readonly guest_packages=(
    systemd systemd-sysv libpam-systemd dbus dbus-user-session udev kmod procps
    iproute2 iptables nftables jq strace bpftool busybox-static
    uidmap fuse-overlayfs slirp4netns passt catatonit
    runc crun conmon podman netavark containerd docker.io docker-cli containernetworking-plugins
)

note() { echo "${0##*/}: $*" >&2; }

# die STATUS MESSAGE
die() { note "$2"; exit "$1"; }

hash_of() { sha256sum | cut -c1-16; }

tools_dir() {
    echo "$cache/tools-$(printf '%s\n' "$suite" "${tool_packages[@]}" | hash_of)"
}

image_dir() {
    local inputs=("$guest_dir"/build-image "$guest_dir"/lib/*.bash "$guest_dir"/inside/*)
    echo "$cache/image-$(cat "${inputs[@]}" | hash_of)"
}

# Puts the unpacked programs before this machine's own in PATH. Each is a wrapper
# that build-image wrote, because they need the loader and libraries beside them.
use_tools() {
    PATH=$(tools_dir)/wrappers:$PATH
}
