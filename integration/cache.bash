# Where what the tests fetch and build is kept, to be sourced. Root's is not below its home, which is closed to the
# ordinary users that some tests run as.
if [ -n "${XDG_CACHE_HOME:-}" ]; then
    cache_home=$XDG_CACHE_HOME
elif [ "$(id -u)" = 0 ]; then
    cache_home=/var/cache
else
    cache_home=$HOME/.cache
fi
