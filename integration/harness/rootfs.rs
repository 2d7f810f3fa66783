//! Root filesystems: busybox, an OCI image of it unpacked by umoci, and a full Debian by debootstrap.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::command::{command, run, run_within};
use crate::{Bundle, host, place};

/// Fills `rootfs` with Debian's static busybox, a link for each of its programs, and the usual directories.
pub fn busybox(rootfs: &Path) {
    for directory in ["bin", "dev", "etc", "proc", "root", "sys", "tmp", "usr/bin", "var"] {
        fs::create_dir_all(rootfs.join(directory)).expect("making a directory of the rootfs");
    }
    let source = host::program("busybox").expect("busybox-static is installed (install-test-needs)");
    fs::copy(source, rootfs.join("bin/busybox")).expect("copying busybox");
    for program in busybox_programs() {
        // busybox lists itself; a link of that name would be a link to itself.
        if program != "busybox" {
            symlink("busybox", rootfs.join("bin").join(program)).expect("linking a program of busybox");
        }
    }
    let users = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home/user:/bin/sh\n";
    fs::write(rootfs.join("etc/passwd"), users).expect("writing /etc/passwd");
    fs::write(rootfs.join("etc/group"), "root:x:0:\nuser:x:1000:\n").expect("writing /etc/group");
}

fn busybox_programs() -> &'static [String] {
    static PROGRAMS: OnceLock<Vec<String>> = OnceLock::new();
    PROGRAMS.get_or_init(|| {
        let list = run(command("busybox", &["--list"])).ok();
        list.stdout.lines().map(str::to_owned).collect()
    })
}

/// A bundle that umoci unpacks from an OCI image with a busybox root filesystem. `directory` must not exist.
pub fn umoci_bundle(directory: &Path) -> Bundle {
    fs::create_dir_all(directory).expect("making a directory for the image");
    let layout = directory.join("layout");
    let image = format!("{}:busybox", layout.display());
    let rootfs = directory.join("layer");
    busybox(&rootfs);
    let umoci = |arguments: &[&str]| run(command("umoci", arguments)).ok();
    umoci(&["init", "--layout", &layout.to_string_lossy()]);
    umoci(&["new", "--image", &image]);
    umoci(&["insert", "--image", &image, &rootfs.to_string_lossy(), "/"]);
    umoci(&[
        "config",
        "--image",
        &image,
        "--config.cmd",
        "/bin/sh",
        "--config.env",
        "FROM=image",
        "--config.workingdir",
        "/tmp",
    ]);
    let bundle = directory.join("bundle");
    umoci(&["unpack", "--image", &image, &bundle.to_string_lossy()]);
    Bundle::open(bundle)
}

/// A docker archive (`docker save` format) of a busybox image whose command is a shell, as engines import it.
pub fn docker_archive(file: &Path, name: &str) {
    docker_archive_of(file, name, &["/bin/sh"], |_| ());
}

/// The same with another command, and with what `fill` puts into the root filesystem.
pub fn docker_archive_of(file: &Path, name: &str, command_of_image: &[&str], fill: impl FnOnce(&Path)) {
    let directory = file.with_extension("d");
    let rootfs = directory.join("rootfs");
    busybox(&rootfs);
    fill(&rootfs);
    let layer = directory.join("layer.tar");
    let tar = |into: &Path, from: &Path, what: &[&str]| {
        let mut tar = command("tar", &["--numeric-owner", "-cf"]);
        run({
            tar.arg(into).arg("-C").arg(from).args(what);
            tar
        })
        .ok();
    };
    tar(&layer, &rootfs, &["."]);
    let sum = run(command("sha256sum", &[&layer.to_string_lossy()])).ok();
    let digest = sum.out().split(' ').next().unwrap_or_default().to_owned();
    let config = serde_json::json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
        "os": "linux",
        "config": { "Cmd": command_of_image, "Env": ["PATH=/bin:/usr/bin", "FROM=image"], "WorkingDir": "/tmp" },
        "rootfs": { "type": "layers", "diff_ids": [format!("sha256:{digest}")] },
    });
    fs::write(directory.join("config.json"), config.to_string()).expect("writing the image's config");
    let manifest =
        serde_json::json!([{ "Config": "config.json", "RepoTags": [name], "Layers": ["layer.tar"] }]);
    fs::write(directory.join("manifest.json"), manifest.to_string()).expect("writing the image's manifest");
    tar(file, &directory, &["manifest.json", "config.json", "layer.tar"]);
    place::remove_tree(&directory).expect("removing what the archive was made of");
}

/// A Debian root filesystem by debootstrap, made once and kept in `coracle-tests` of the cache. It is shared: whoever
/// writes to it lays an overlay over it.
pub fn debian(suite: &str) -> Result<PathBuf, String> {
    let cache = host::cache_home().join("coracle-tests");
    fs::create_dir_all(&cache).map_err(|error| format!("making {}: {error}", cache.display()))?;
    let lock = fs::File::create(cache.join("lock")).map_err(|error| format!("locking the cache: {error}"))?;
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockExclusive).map_err(|error| error.to_string())?;

    let ready = cache.join(suite);
    if ready.is_dir() {
        return Ok(ready);
    }
    let new = cache.join(format!("{suite}.new"));
    place::remove_tree(&new).map_err(|error| format!("removing {}: {error}", new.display()))?;
    let debootstrap =
        command("debootstrap", &["--variant=minbase", suite, &new.to_string_lossy(), &mirror()]);
    let made = run_within(Duration::from_secs(420), debootstrap);
    if !made.status.success() {
        return Err(format!("debootstrap failed: {made}"));
    }
    place::unmount_below(&new);
    fs::rename(&new, &ready).map_err(|error| format!("renaming {}: {error}", new.display()))?;
    Ok(ready)
}

/// The mirror that this machine's apt uses for Debian itself.
fn mirror() -> String {
    let sources = run(command("apt-get", &["indextargets", "--format", "$(SITE)", "Created-By: Packages"]));
    let usual = "http://deb.debian.org/debian";
    let site = sources.stdout.lines().find(|site| site.trim_end_matches('/').ends_with("/debian"));
    site.unwrap_or(usual).to_owned()
}
