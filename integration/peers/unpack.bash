# Functions for scripts that unpack packages of another Debian release into a private folder, to be sourced.
#
# Nothing of that release is installed, and the host's apt sources, lists and cache are neither changed nor used: apt
# runs on a configuration of its own. The caller's name is in $0, for messages.

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

say() {
    echo "$(basename "$0"): $*" >&2
}

# The mirror that the host's own apt uses for Debian's main archive.
mirror() {
    apt-get indextargets --format '$(REPO_URI) $(ORIGIN) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
        awk '$2 == "Debian" && $3 == "Debian" { print $1; exit }'
}

# The same, read from the sources, for a machine that has never run apt-get update.
mirror_from_sources() {
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2>/dev/null |
        grep -E '^(URIs:|deb )' | grep -Eo 'https?://[^] ]+/debian/?( |$)' | head -n 1 | tr -d ' '
}

# unpack_packages RELEASE TREE PACKAGE...: the packages of a release, with all that they depend on, below TREE.
unpack_packages() {
    local release=$1 tree=$2 uri apt deb
    shift 2
    [[ -r $keyring ]] || fail "$keyring is missing: install the package debian-archive-keyring"
    uri=$(mirror)
    [[ -n $uri ]] || uri=$(mirror_from_sources) || true
    [[ -n $uri ]] || fail "no Debian mirror found in /etc/apt/sources.list or /etc/apt/sources.list.d"
    apt=$(mktemp -d "$tree.apt.XXXXXX")
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/empty" "$tree"
    : >"$apt/status"
    echo "deb [signed-by=$keyring] $uri $release main" >"$apt/sources.list"
    {
        # How the host reaches its mirror (proxies, a clock that is off) holds here too.
        # Its hooks do not: they clean the host's cache.
        apt-config dump | grep -E '^Acquire::(http|https|Retries|Check-)' || true
        cat <<-CONF
			Dir::Etc::main "/dev/null";
			Dir::Etc::parts "$apt/empty";
			Dir::Etc::sourcelist "$apt/sources.list";
			Dir::Etc::sourceparts "$apt/empty";
			Dir::Etc::preferences "/dev/null";
			Dir::Etc::preferencesparts "$apt/empty";
			Dir::State "$apt";
			Dir::State::lists "$apt/lists";
			Dir::State::status "$apt/status";
			Dir::Cache "$apt/cache";
			Dir::Cache::archives "$apt/cache/archives";
			Acquire::Languages "none";
			Acquire::Retries "3";
			APT::Install-Recommends "false";
			APT::Sandbox::User "root";
		CONF
    } >"$apt/apt.conf"

    say "$* of Debian $release from $uri"
    APT_CONFIG=$apt/apt.conf apt-get -qq update >&2 || fail "apt-get update of $release failed"
    # The status file is empty, so that every library they need is downloaded with them.
    APT_CONFIG=$apt/apt.conf apt-get -qq -y --download-only install "$@" >&2 ||
        fail "the download of $* failed"
    for deb in "$apt"/cache/archives/*.deb; do
        dpkg -x "$deb" "$tree"
    done
    rm -rf "$apt"
}

# adopt TREE FINAL SOURCE TARGET: copies the unpacked program SOURCE to TARGET, pointed at the loader and the libraries
# of the unpacked TREE. FINAL is the path that TREE will have in the end.
adopt() {
    local tree=$1 final=$2 source=$3 target=$4 machine interpreter
    cp -- "$source" "$target"
    chmod u+w "$target"
    machine=$(multiarch "$tree")
    # A static program has none, and needs nothing.
    if interpreter=$(patchelf --print-interpreter "$source" 2>/dev/null); then
        patchelf --force-rpath --set-rpath "$final/usr/lib/$machine" \
            --set-interpreter "$final/usr/lib/$machine/$(basename "$interpreter")" "$target" ||
            fail "patchelf of $source failed"
    fi
}

# The multiarch folder that holds the unpacked C library.
multiarch() {
    local libc
    libc=$(find "$1/usr/lib" -maxdepth 2 -name libc.so.6 | head -n 1)
    [[ -n $libc ]] || fail "no libc.so.6 among the unpacked packages"
    basename "$(dirname "$libc")"
}
