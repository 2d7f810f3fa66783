//! What a container sees of files: mounts, volumes, `docker cp`, `docker commit`.

use std::fs;
use std::path::Path;

use coracle_integration::command::{command, eventually, run};
use coracle_integration::engine::docker::{Docker, Kind};
use nix::mount::{MsFlags, mount};

pub fn a_read_only_root_with_tmpfs(docker: &Docker) {
    let script = "touch /new || echo readonly; echo word > /scratch/file && cat /scratch/file; \
                  grep ' /scratch ' /proc/mounts; stat -c %a /scratch";
    let options = ["--read-only", "--tmpfs", "/scratch:size=1m,mode=1750,noexec"];
    let ran = docker.sh(&options, script).ok();
    assert_eq!(ran.lines().get(..2), Some(&["readonly", "word"][..]), "{ran}");
    assert!(ran.stdout.contains("noexec") && ran.stdout.contains("size=1024k"), "{ran}");
    assert_eq!(ran.lines().last(), Some(&"1750"), "{ran}");
    let mount = ["--mount", "type=tmpfs,destination=/scratch,tmpfs-size=65536,tmpfs-mode=0700"];
    let ran = docker.sh(&mount, "stat -c %a /scratch; grep ' /scratch ' /proc/mounts").ok();
    assert!(ran.stdout.starts_with("700\n") && ran.stdout.contains("size=64k"), "{ran}");
}

pub fn bind_mounts_and_their_options(docker: &Docker) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let from = directory.path().display();
    fs::write(directory.path().join("file"), "of the host\n").expect("writing a file");
    let (folder, file) = (format!("{from}:/data:ro"), format!("{from}/file:/etc/one"));
    let script = "cat /data/file /etc/one; touch /data/new || echo readonly; echo more >> /etc/one";
    let ran = docker.sh(&["--volume", &folder, "--volume", &file], script).ok();
    assert_eq!(ran.lines(), ["of the host", "of the host", "readonly"]);
    let now = fs::read_to_string(directory.path().join("file")).expect("it is there");
    assert_eq!(now, "of the host\nmore\n");
    let missing = format!("type=bind,source={from}/nonesuch,destination=/data");
    docker.run(&["--mount", &missing], &["true"]).exits(125);
}

/// A directory with a tmpfs mounted at `below` in it, unmounted when dropped.
struct WithMount(tempfile::TempDir);

impl WithMount {
    fn new() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory");
        mount_tmpfs(&directory.path().join("below"));
        Self(directory)
    }
}

impl Drop for WithMount {
    fn drop(&mut self) {
        coracle_integration::place::unmount_below(self.0.path());
    }
}

fn mount_tmpfs(at: &Path) {
    fs::create_dir_all(at).expect("making a directory");
    mount(Some("tmpfs"), at, Some("tmpfs"), MsFlags::empty(), Some("size=64k")).expect("mounting a tmpfs");
}

pub fn a_read_only_bind_mount_is_so_below(docker: &Docker) {
    let directory = WithMount::new();
    let from = directory.0.path().display();
    let script = "touch /data/below/new && echo written; grep ' /data/below ' /proc/mounts";
    let forced = format!(
        "type=bind,source={from},destination=/data,readonly,bind-propagation=rprivate,\
                          bind-recursive=readonly"
    );
    let ran = docker.sh(&["--mount", &forced], script);
    if let Kind::Shim { .. } = docker.kind() {
        // Docker 26 asks programs what they can, but of shims it doesn't know it, and refuses.
        ran.fails_with("OCI features struct is not available");
    } else {
        let ran = ran.ok();
        assert!(!ran.stdout.contains("written") && ran.stdout.contains("/data/below"), "{ran}");
    }
    let shallow = format!("type=bind,source={from},destination=/data,readonly,bind-recursive=writable");
    let ran = docker.sh(&["--mount", &shallow], script).ok();
    assert!(ran.stdout.starts_with("written\n"), "{ran}");
}

pub fn propagation_from_the_host(docker: &Docker) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let shared = directory.path();
    mount(Some(shared), shared, None::<&str>, MsFlags::MS_BIND, None::<&str>).expect("a bind mount");
    mount(None::<&str>, shared, None::<&str>, MsFlags::MS_SHARED, None::<&str>).expect("making it shared");
    let volume = format!("{}:/data:rslave", shared.display());
    let one = docker.up(&["--volume", &volume], "sleep 1000");
    mount_tmpfs(&shared.join("late"));
    let seen = one.exec(&[], &["grep", "-c", " /data/late ", "/proc/mounts"]);
    drop(one);
    coracle_integration::place::unmount_below(shared);
    // The daemon's mount namespace is this program's, so what is mounted here it passes on.
    assert_eq!(seen.out(), "1", "{seen}");
}

pub fn a_named_volume_lives_on(docker: &Docker) {
    // Two checks with one daemon never have one name.
    let volume = format!("keep-{}", docker.container().name);
    let option = format!("{volume}:/etc");
    // The image's files are copied into a volume that is new.
    docker.sh(&["--volume", &option], "test -s /etc/passwd && echo first > /etc/note").ok();
    let ran = docker.run(&["--volume", &option], &["cat", "/etc/note"]).ok();
    assert_eq!(ran.out(), "first");
    let ran = docker.sh(&["--volume", &format!("{option}:ro")], "echo x > /etc/note");
    ran.fails_with("Read-only file system");
    docker.call(&["volume", "rm", &volume]).ok();
}

pub fn parts_of_volumes_and_volumes_of_others(docker: &Docker) {
    let volume = format!("parts-{}", docker.container().name);
    let whole = format!("{volume}:/all");
    let one = docker.up(
        &["--volume", &whole, "--volume", "/own"],
        "mkdir -p /all/a/b; echo part > /all/a/b/file; sleep 1000",
    );
    assert!(eventually(|| one.exec(&[], &["cat", "/all/a/b/file"]).out() == "part"));
    let part = format!("type=volume,source={volume},destination=/part,volume-subpath=a/b");
    let ran = docker.sh(&["--mount", &part], "cat /part/file; echo more >> /part/file").ok();
    assert_eq!(ran.out(), "part");
    // A link in the volume leads out of it for nobody.
    one.exec(&[], &["ln", "-s", "/etc", "/all/out"]).ok();
    let out = format!("type=volume,source={volume},destination=/part,volume-subpath=out");
    docker.run(&["--mount", &out], &["true"]).fails();
    let ran = docker.sh(&["--volumes-from", &one.name], "cat /all/a/b/file; test -d /own && echo own").ok();
    assert_eq!(ran.lines(), ["part", "more", "own"]);
    drop(one);
    docker.call(&["volume", "rm", &volume]).ok();
}

pub fn masked_and_read_only_paths(docker: &Docker) {
    let script = "wc -c < /proc/timer_list; ls /sys/firmware | wc -l; echo 1 > /proc/sys/kernel/msgmax";
    let ran = docker.sh(&[], script).fails_with("Read-only file system");
    assert_eq!(ran.lines(), ["0", "0"], "{ran}");
    docker.sh(&["--security-opt", "systempaths=unconfined"], "echo 10001 > /proc/sys/kernel/msgmax").ok();
}

pub fn copy_to_and_from(docker: &Docker) {
    let one = docker.up(&["--tmpfs", "/scratch"], "sleep 1000");
    let directory = tempfile::tempdir().expect("a temporary directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    fs::create_dir(at("folder")).expect("making a directory");
    fs::write(at("folder/file"), "there and back\n").expect("writing a file");
    docker.call(&["cp", &at("folder"), &format!("{}:/tmp/", one.name)]).ok();
    assert_eq!(one.exec(&[], &["cat", "/tmp/folder/file"]).ok().out(), "there and back");
    docker.call(&["cp", &format!("{}:/tmp/folder/file", one.name), &at("back")]).ok();
    assert_eq!(fs::read_to_string(at("back")).expect("it came back"), "there and back\n");
    // By way of the daemon's view of the container's mounts, in a stopped container too.
    one.call("stop", &["--time", "0"], &[]).ok();
    docker.call(&["cp", &at("back"), &format!("{}:/root/later", one.name)]).ok();
    one.call("start", &[], &[]).ok();
    assert_eq!(one.exec(&[], &["cat", "/root/later"]).ok().out(), "there and back");
}

pub fn commit_diff_and_export(docker: &Docker) {
    let one = docker.up(&[], "echo kept > /kept; rm /etc/group; echo done; sleep 1000");
    one.wait_for_log("done");
    let diff = one.call("diff", &[], &[]).ok();
    assert!(diff.lines().contains(&"A /kept") && diff.lines().contains(&"D /etc/group"), "{diff}");
    let image = format!("made-by-{}", one.name);
    one.call("commit", &["--change", "ENV NEW=word"], &[&image]).ok();
    let words = ["run", "--rm", "--network", "none", &image, "sh", "-c", "cat /kept; echo $NEW"];
    let ran = docker.call(&words).ok();
    assert_eq!(ran.lines(), ["kept", "word"]);
    docker.call(&["rmi", &image]).ok();
    let directory = tempfile::tempdir().expect("a temporary directory");
    let archive = directory.path().join("all.tar").display().to_string();
    one.call("export", &["--output", &archive], &[]).ok();
    let list = run(command("tar", &["-tf", &archive])).ok();
    assert!(list.lines().contains(&"kept"), "it is not among {} files", list.lines().len());
}
