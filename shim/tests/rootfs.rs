//! The mounts of Create, made by the code that the shim's workers run, in a mount namespace of the test's own.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use coracle_shim::proto::types::Mount;
use coracle_shim::rootfs::{Way, mount_here, unmount_here};
use libtest_mimic::{Arguments, Completion, Failed, Trial};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

type Outcome = Result<Completion, Failed>;

const WAYS: [Way; 3] = [Way::Descriptors, Way::Names, Way::Text];

fn main() {
    let mut arguments = Arguments::from_args();
    // The code under test is a forked worker's: one thread.
    arguments.test_threads = Some(1);
    let alone = if rustix::process::geteuid().is_root() { alone() } else { Err("needs root".into()) };
    let test = |name: &str, run: fn(&Place) -> Outcome| {
        let alone = alone.clone();
        Trial::ignorable_test(name, move || match alone {
            Ok(()) => {
                let place = Place::new()?;
                let outcome = run(&place)?;
                let left = mounts_below(&place.rootfs)?;
                expect(left == 0, format!("{left} mounts are left"))?;
                Ok(outcome)
            }
            Err(why) => Ok(Completion::ignored_with(why)),
        })
    };
    let trials = vec![
        test("layers_with_more_names_than_a_page_holds_are_all_there", many_layers),
        test("the_layers_of_an_overlay_can_be_id_mapped", mapped_layers),
        test("a_layer_may_have_a_longer_name_than_an_option_takes", long_name),
        test("a_bind_mount_can_be_read_only", read_only_bind),
        test("a_bind_mount_takes_the_mounts_below_along_when_asked", recursive_bind),
        test("a_bind_mount_can_be_id_mapped", mapped_bind),
        test("mounts_are_made_in_their_order_and_below_their_targets", targets),
        test("a_target_does_not_lead_out_of_the_root_filesystem", no_way_out),
        test("after_a_failure_nothing_stays_mounted", failure),
        test("an_image_is_mounted_through_a_loop_device", image),
        test("what_is_in_use_is_unmounted_too", in_use),
        test("a_helper_that_is_missing_is_named", helper),
    ];
    libtest_mimic::run(&arguments, trials).exit();
}

/// Leaves the host's mount namespace.
fn alone() -> Result<(), String> {
    let left = coracle::sys::process::unshare(libc::CLONE_NEWNS as u64);
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    left.and_then(|()| rustix::mount::mount_change("/", private))
        .map_err(|error| format!("no mount namespace of its own: {error}"))
}

/// A tmpfs to work in.
struct Place {
    directory: tempfile::TempDir,
    rootfs: PathBuf,
}

impl Place {
    fn new() -> Result<Self, Failed> {
        let directory = tempfile::tempdir()?;
        rustix::mount::mount("tmpfs", directory.path(), "tmpfs", MountFlags::empty(), None)?;
        let rootfs = directory.path().join("rootfs");
        Ok(Self { directory, rootfs })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn directory(&self, name: &str) -> Result<String, Failed> {
        let path = self.path(name);
        std::fs::create_dir_all(&path)?;
        Ok(path.display().to_string())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(self.directory.path(), UnmountFlags::DETACH);
    }
}

fn mounts_below(path: &Path) -> Result<usize, Failed> {
    let path = path.display().to_string();
    let table = std::fs::read_to_string("/proc/self/mountinfo")?;
    Ok(table.lines().filter(|line| line.split(' ').nth(4).is_some_and(|at| at.starts_with(&path))).count())
}

fn mount(fstype: &str, source: &str, options: &[&str]) -> Mount {
    Mount {
        type_: fstype.to_owned(),
        source: source.to_owned(),
        options: options.iter().map(|option| (*option).to_owned()).collect(),
        ..Mount::default()
    }
}

fn expect(is_so: bool, otherwise: impl Into<String>) -> Result<(), Failed> {
    if is_so { Ok(()) } else { Err(otherwise.into().into()) }
}

fn many_layers(place: &Place) -> Outcome {
    let layers: Vec<_> = (0..120)
        .map(|index| {
            let layer =
                place.directory(&format!("io.containerd.snapshotter.v1.overlayfs/snapshots/{index}/fs"))?;
            std::fs::write(format!("{layer}/{index}"), b"")?;
            Ok(layer)
        })
        .collect::<Result<_, Failed>>()?;
    let (upper, work) = (place.directory("upper")?, place.directory("work")?);
    let lower = format!("lowerdir={}", layers.join(":"));
    expect(lower.len() > 2 * 4096, "the names are too short for this test")?;
    let options = ["index=off", &format!("workdir={work}"), &format!("upperdir={upper}"), &lower];
    let overlay = [mount("overlay", "overlay", &options)];
    let before = std::env::current_dir()?;
    for way in WAYS {
        mount_here(&overlay, &place.rootfs, way)?;
        expect(
            (0..120).all(|index| place.rootfs.join(index.to_string()).exists()),
            format!("{way:?}: a layer is missing"),
        )?;
        std::fs::write(place.rootfs.join("new"), b"")?;
        expect(Path::new(&upper).join("new").exists(), "it isn't written to the upper layer")?;
        unmount_here(&place.rootfs)?;
    }
    expect(std::env::current_dir()? == before, "the working directory has changed")?;
    Ok(Completion::Completed)
}

fn mapped_layers(place: &Place) -> Outcome {
    let (one, two) = (place.directory("one")?, place.directory("two")?);
    std::fs::write(format!("{one}/file"), b"")?;
    std::fs::write(format!("{two}/other"), b"")?;
    let (upper, work) = (place.directory("upper")?, place.directory("work")?);
    let options = [
        "uidmap=0:100000:65536",
        "gidmap=0:200000:65536",
        &format!("workdir={work}"),
        &format!("upperdir={upper}"),
        &format!("lowerdir={one}:{two}"),
    ];
    let overlay = [mount("overlay", "overlay", &options)];
    for way in WAYS {
        mount_here(&overlay, &place.rootfs, way)?;
        for name in ["file", "other"] {
            let found = std::fs::metadata(place.rootfs.join(name))?;
            let owner = (found.uid(), found.gid());
            expect(owner == (100_000, 200_000), format!("{way:?}: {name} belongs to {owner:?}"))?;
        }
        unmount_here(&place.rootfs)?;
        let left = format!("/run/coracle-layers.{}", std::process::id());
        expect(
            !Path::new(&left).exists() && mounts_below(Path::new(&left))? == 0,
            format!("{left} is left"),
        )?;
    }
    Ok(Completion::Completed)
}

fn long_name(place: &Place) -> Outcome {
    let names = ["x".repeat(150), "y".repeat(150)];
    let layer = place.directory(&names.join("/"))?;
    std::fs::write(format!("{layer}/file"), b"")?;
    let other = place.directory("other")?;
    let overlay = [mount("overlay", "overlay", &[&format!("lowerdir={layer}:{other}")])];
    for way in WAYS {
        mount_here(&overlay, &place.rootfs, way)?;
        expect(place.rootfs.join("file").exists(), format!("{way:?}: the layer is missing"))?;
        unmount_here(&place.rootfs)?;
    }
    Ok(Completion::Completed)
}

fn read_only_bind(place: &Place) -> Outcome {
    let source = place.directory("source")?;
    mount_here(&[mount("bind", &source, &["rbind", "ro"])], &place.rootfs, Way::Descriptors)?;
    let error = std::fs::write(place.rootfs.join("file"), b"").err();
    expect(
        error.is_some_and(|error| error.kind() == std::io::ErrorKind::ReadOnlyFilesystem),
        "it can be written to",
    )?;
    std::fs::write(format!("{source}/file"), b"")?;
    expect(place.rootfs.join("file").exists(), "the source isn't there")?;
    unmount_here(&place.rootfs)?;
    Ok(Completion::Completed)
}

fn recursive_bind(place: &Place) -> Outcome {
    let below = place.directory("source/below")?;
    rustix::mount::mount("tmpfs", below.as_str(), "tmpfs", MountFlags::empty(), None)?;
    std::fs::write(format!("{below}/file"), b"")?;
    let source = place.directory("source")?;
    for (option, is_there) in [("bind", false), ("rbind", true)] {
        mount_here(&[mount("bind", &source, &[option, "rro"])], &place.rootfs, Way::Descriptors)?;
        expect(place.rootfs.join("below/file").exists() == is_there, option)?;
        expect(std::fs::write(place.rootfs.join("below/new"), b"").is_err(), "it can be written to")?;
        unmount_here(&place.rootfs)?;
    }
    Ok(Completion::Completed)
}

fn mapped_bind(place: &Place) -> Outcome {
    let source = place.directory("source")?;
    let options = ["rbind", "uidmap=0:100000:65536", "gidmap=0:100000:65536"];
    mount_here(&[mount("bind", &source, &options)], &place.rootfs, Way::Descriptors)?;
    let owner = std::fs::metadata(&place.rootfs)?.uid();
    expect(owner == 100_000, format!("it belongs to {owner}"))?;
    unmount_here(&place.rootfs)?;
    Ok(Completion::Completed)
}

fn targets(place: &Place) -> Outcome {
    let source = place.directory("source")?;
    place.directory("source/inside")?;
    let inside = Mount { target: "/inside".to_owned(), ..mount("tmpfs", "tmpfs", &["size=64k", "mode=700"]) };
    mount_here(&[mount("bind", &source, &["rbind"]), inside], &place.rootfs, Way::Descriptors)?;
    expect(mounts_below(&place.rootfs)? == 2, "there should be two mounts")?;
    let mode = std::fs::metadata(place.rootfs.join("inside"))?.mode();
    expect(mode & 0o777 == 0o700, format!("{mode:o}"))?;
    unmount_here(&place.rootfs)?;
    Ok(Completion::Completed)
}

fn no_way_out(place: &Place) -> Outcome {
    let source = place.directory("source")?;
    let outside = place.directory("outside")?;
    place.directory(&format!("source{outside}"))?;
    std::os::unix::fs::symlink(&outside, format!("{source}/link"))?;
    let through = Mount { target: "link".to_owned(), ..mount("tmpfs", "tmpfs", &[]) };
    mount_here(&[mount("bind", &source, &["rbind"]), through], &place.rootfs, Way::Descriptors)?;
    expect(mounts_below(Path::new(&outside))? == 0, "it is mounted outside")?;
    expect(mounts_below(&place.rootfs)? == 2, "it isn't mounted inside")?;
    unmount_here(&place.rootfs)?;
    Ok(Completion::Completed)
}

fn failure(place: &Place) -> Outcome {
    let wrong = mount("tmpfs", "tmpfs", &["nonsense=1"]);
    let error = mount_here(&[mount("tmpfs", "tmpfs", &[]), wrong], &place.rootfs, Way::Descriptors);
    let text = error.err().ok_or("it was mounted")?.to_string();
    expect(text.contains("rootfs[1], tmpfs") && text.contains("nonsense"), text)?;
    let error = mount_here(&[mount("bind", "/nowhere", &["rbind"])], &place.rootfs, Way::Descriptors);
    let text = error.err().ok_or("it was mounted")?.to_string();
    expect(text.contains("/nowhere") && text.contains("no such file"), text)?;
    let missing = mount("overlay", "overlay", &["lowerdir=/nowhere"]);
    let text =
        mount_here(&[missing], &place.rootfs, Way::Descriptors).err().ok_or("it was mounted")?.to_string();
    expect(text.contains("/nowhere") && text.contains("no such file"), text)?;
    Ok(Completion::Completed)
}

fn image(place: &Place) -> Outcome {
    let file = place.path("image");
    std::fs::File::create(&file)?.set_len(4 << 20)?;
    if !Path::new("/dev/loop-control").exists() {
        return Ok(Completion::ignored_with("there are no loop devices"));
    }
    let Ok(made) = Command::new("mkfs.ext4").arg("-q").arg(&file).output() else {
        return Ok(Completion::ignored_with("mkfs.ext4 is missing (package e2fsprogs)"));
    };
    expect(made.status.success(), String::from_utf8_lossy(&made.stderr))?;
    let image = [mount("ext4", &file.display().to_string(), &["loop", "ro"])];
    mount_here(&image, &place.rootfs, Way::Descriptors)?;
    expect(place.rootfs.join("lost+found").exists(), "the filesystem isn't there")?;
    unmount_here(&place.rootfs)?;
    Ok(Completion::Completed)
}

fn in_use(place: &Place) -> Outcome {
    mount_here(&[mount("tmpfs", "tmpfs", &[])], &place.rootfs, Way::Descriptors)?;
    std::fs::create_dir(place.rootfs.join("below"))?;
    rustix::mount::mount("tmpfs", place.rootfs.join("below"), "tmpfs", MountFlags::empty(), None)?;
    let file = std::fs::File::create(place.rootfs.join("file"))?;
    unmount_here(&place.rootfs)?;
    drop(file);
    expect(!place.rootfs.join("file").exists(), "it is still mounted")?;
    Ok(Completion::Completed)
}

fn helper(place: &Place) -> Outcome {
    let wanted = mount("fuse3.nonsense", "source", &[]);
    let text =
        mount_here(&[wanted], &place.rootfs, Way::Descriptors).err().ok_or("it was mounted")?.to_string();
    expect(text.contains("mount.fuse3"), text)?;
    Ok(Completion::Completed)
}
