//! Overlays, whose layers may be many, and may have their ids mapped.
//!
//! Layers that fit into one option are set by it. Others are set one by one (`lowerdir+`, Linux 6.5), so that neither
//! their number nor the length of their names meets a limit; those whose ids are mapped, and those with long names, as
//! descriptors (Linux 6.13). On an older kernel mapped layers are mounted somewhere for the time being, and all options
//! go to mount(2) as one text of a page at the most, in which layers are named from the directory that they have in
//! common.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use coracle::container::id_map_namespace;
use coracle::error::{Doing, Error, Kind, Result};
use coracle::init::filesystem::{Context, LONGEST_VALUE};
use coracle::init::{attach, map_ids};
use coracle::plan::step::NewFilesystem;
use coracle::plan::user::IdMaps;
use rustix::fs::{CWD, Mode, OFlags, openat};
use rustix::io::Errno;
use rustix::mount::{MountFlags, OpenTreeFlags, UnmountFlags, open_tree, unmount};

use super::wanted::{Layer, common_directory, join, take_layers};

/// The most that mount(2) takes of options, in bytes: a page with its NUL.
const PAGE: usize = 4095;

/// Ways to name layers to the kernel, the newest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Way {
    /// One by one, as descriptors where that is needed.
    Descriptors,
    /// One by one, by their names.
    Names,
    /// All in one text.
    Text,
}

/// Mounts an overlay on `target`, trying the ways from `way` on.
pub fn mount(
    mut new: NewFilesystem,
    maps: Option<&IdMaps>,
    flags: MountFlags,
    target: &OwnedFd,
    way: Way,
) -> Result<()> {
    let layers = take_layers(&mut new);
    let mapped = match maps {
        Some(maps) => map(&layers, maps)?,
        None => Vec::new(),
    };
    if way <= Way::Descriptors {
        match one_by_one(&new, &layers, &mapped, true) {
            Attempt::Mounted(tree) => return attach(tree, target),
            Attempt::Failed(error) => return Err(error),
            Attempt::Unable(error) => log::debug!("{error}; trying by names"),
        }
    }
    let places = Places::of(&mapped)?;
    let layers = places.instead_of(layers);
    if way <= Way::Names {
        match one_by_one(&new, &layers, &[], false) {
            Attempt::Mounted(tree) => return attach(tree, target),
            Attempt::Failed(error) => return Err(error),
            Attempt::Unable(error) => log::debug!("{error}; trying mount(2)"),
        }
    }
    as_text(&new, &layers, flags, target)
}

/// Detached mounts of the layers, their ids mapped.
fn map(layers: &[Layer], maps: &IdMaps) -> Result<Vec<OwnedFd>> {
    let namespace = id_map_namespace(maps)?;
    let map = |layer: &Layer| {
        let path = layer.path();
        let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
        let tree = open_tree(CWD, &path, flags).doing(|| format!("open the layer {path}"))?;
        map_ids(&tree, &namespace, false)
            .map_err(|error| error.while_doing(format_args!("use the layer {path}")))?;
        Ok(tree)
    };
    layers.iter().map(map).collect()
}

/// What came of a way.
enum Attempt<T> {
    Mounted(T),
    /// The kernel doesn't know this way.
    Unable(Error),
    /// The kernel knows it, and refuses.
    Failed(Error),
}

fn one_by_one(
    new: &NewFilesystem,
    layers: &[Layer],
    mapped: &[OwnedFd],
    by_descriptor: bool,
) -> Attempt<impl AsFd> {
    let prepare = || {
        let context = Context::open(&new.fstype)?;
        let (long, short): (Vec<_>, Vec<_>) = new.options.iter().partition(|(name, value)| {
            matches!(name.as_str(), "upperdir" | "workdir")
                && value.as_ref().is_some_and(|path| is_long(path))
        });
        let short = NewFilesystem { options: short.into_iter().cloned().collect(), ..new.clone() };
        context.configure(&short)?;
        Ok::<_, Error>((context, long))
    };
    let (context, long) = match prepare() {
        Ok(prepared) => prepared,
        Err(error) => return Attempt::Failed(error),
    };
    let together = join(layers);
    let set = || {
        for (name, value) in long {
            name_layer(&context, name, value.as_deref().unwrap_or_default(), by_descriptor)?;
        }
        // Where they fit, in the form that people and programs know from mount tables.
        if mapped.is_empty() && !is_long(&together) {
            return context.set("lowerdir", Some(&together));
        }
        for (index, layer) in layers.iter().enumerate() {
            let name = if layer.is_data { "datadir+" } else { "lowerdir+" };
            let path = layer.path();
            match mapped.get(index) {
                Some(tree) => context.set_descriptor(name, tree, &path)?,
                None => name_layer(&context, name, &path, by_descriptor)?,
            }
        }
        Ok::<_, Error>(())
    };
    match set() {
        // What isn't known is EINVAL, as is a descriptor where only a name is known.
        Err(error) if error.errno() == Some(Errno::INVAL) => return Attempt::Unable(error),
        Err(error) => return Attempt::Failed(error),
        Ok(()) => {}
    }
    match context.mount(new.attributes) {
        Ok(tree) => Attempt::Mounted(tree),
        Err(error) => Attempt::Failed(error),
    }
}

fn is_long(path: &str) -> bool {
    path.len() > LONGEST_VALUE
}

/// Sets a directory by its name, or, where that is too long, as a descriptor.
fn name_layer(context: &Context, option: &str, path: &str, by_descriptor: bool) -> Result<()> {
    if !is_long(path) {
        return context.set(option, Some(path));
    }
    if !by_descriptor {
        return Err(Error::os(
            Errno::INVAL,
            format!("set the option {option} to a name of {} bytes", path.len()),
        ));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = openat(CWD, path, flags, Mode::empty()).doing(|| format!("open the layer {path}"))?;
    context.set_descriptor(option, directory, path)
}

/// mount(2). Where the text is too long, it is made shorter by a change of the working directory, which is undone.
fn as_text(new: &NewFilesystem, layers: &[Layer], flags: MountFlags, target: &OwnedFd) -> Result<()> {
    let here = openat(CWD, ".", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .doing(|| "open the working directory")?;
    let mut data = text(new, layers);
    if data.len() > PAGE
        && let Some((directory, left)) = common_directory(layers)
    {
        data = text(new, &left);
        rustix::process::chdir(directory.as_str()).doing(|| format!("change to {directory}"))?;
    }
    let mounted = if data.len() > PAGE {
        Err(Error::new(Kind::System, format!("the overlay's options have {} bytes", data.len()))
            .hint("this kernel takes a page of them; Linux 6.5 has no such limit"))
    } else {
        let place = format!("/proc/self/fd/{}", target.as_raw_fd());
        let flags = flags - MountFlags::SILENT;
        let data = std::ffi::CString::new(data)
            .map_err(|_| Error::new(Kind::Config, "an option has a NUL byte in it"))?;
        rustix::mount::mount(new.source.as_str(), place.as_str(), "overlay", flags, Some(data.as_c_str()))
            .doing(|| "mount an overlay")
    };
    rustix::process::fchdir(&here).doing(|| "change the working directory back")?;
    mounted
}

fn text(new: &NewFilesystem, layers: &[Layer]) -> String {
    // Flags of the superblock are among those that mount(2) gets.
    let others = new.options.iter().filter_map(|(name, value)| match value {
        Some(value) => Some(format!("{name}={value}")),
        None if matches!(name.as_str(), "ro" | "sync" | "dirsync" | "lazytime" | "mand") => None,
        None => Some(name.clone()),
    });
    others.chain([format!("lowerdir={}", join(layers))]).collect::<Vec<_>>().join(",")
}

/// Places where mapped layers are mounted for the time being. An overlay that was made of them keeps them.
struct Places {
    directory: Option<PathBuf>,
    places: Vec<PathBuf>,
}

impl Places {
    fn of(trees: &[OwnedFd]) -> Result<Self> {
        let mut places = Self { directory: None, places: Vec::new() };
        if trees.is_empty() {
            return Ok(places);
        }
        let directory = PathBuf::from(format!("/run/coracle-layers.{}", std::process::id()));
        make_directory(&directory)?;
        places.directory = Some(directory.clone());
        for (index, tree) in trees.iter().enumerate() {
            let place = directory.join(index.to_string());
            make_directory(&place)?;
            places.places.push(place.clone());
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let target = openat(CWD, &place, flags, Mode::empty()).doing(|| "open a place for a layer")?;
            attach(tree, target)?;
        }
        Ok(places)
    }

    fn instead_of(&self, layers: Vec<Layer>) -> Vec<Layer> {
        if self.places.is_empty() {
            return layers;
        }
        let moved = layers.iter().zip(&self.places);
        moved.map(|(layer, place)| Layer { escaped: place.display().to_string(), ..layer.clone() }).collect()
    }
}

impl Drop for Places {
    fn drop(&mut self) {
        for place in &self.places {
            // Where nothing was mounted yet, there is nothing to unmount.
            let _ = unmount(place, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW);
            remove_directory(place);
        }
        if let Some(directory) = &self.directory {
            remove_directory(directory);
        }
    }
}

fn make_directory(path: &Path) -> Result<()> {
    rustix::fs::mkdirat(CWD, path, Mode::RWXU).doing(|| format!("make the directory {}", path.display()))
}

fn remove_directory(path: &Path) {
    if let Err(error) = std::fs::remove_dir(path) {
        log::warn!("remove the directory {}: {error}", path.display());
    }
}
