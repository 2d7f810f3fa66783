//! What the options of a mount in a request mean. Pure.
//!
//! The names that every mount may have are the runtime's (`coracle::bundle`). containerd adds `loop`, `direct-io`,
//! `uidmap=` and `gidmap=`; what is left is the filesystem's.

use coracle::bundle::{Bind, MountOptions, parse_mount_options};
use coracle::error::{Error, Kind, Result};
use coracle::plan::mounts::filesystem;
use coracle::plan::step::NewFilesystem;
use coracle::plan::user::{IdMaps, IdRange, Writer};
use rustix::mount::MountFlags;

use crate::proto::types::Mount;

/// One mount.
#[derive(Debug)]
pub struct Wanted {
    /// The filesystem's type.
    pub fstype: String,
    /// The source, a path or whatever the filesystem takes.
    pub source: String,
    /// Where below the root filesystem; empty for the root filesystem itself.
    pub target: String,
    /// The typed options.
    pub options: MountOptions,
    /// How ids are mapped.
    pub maps: Option<IdMaps>,
    /// The source is a file to be put behind a loop device; with direct I/O or without.
    pub image: Option<Image>,
    /// The options as they came, for helpers.
    pub raw: Vec<String>,
}

/// A filesystem's image in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Image {
    /// Read and written without the page cache of the file below.
    pub direct_io: bool,
}

/// A layer of an overlay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layer {
    /// It has only data, which others point at (`::` before it).
    pub is_data: bool,
    /// The directory, with colons escaped, as `lowerdir=` has it.
    pub escaped: String,
}

impl Layer {
    /// The directory.
    pub fn path(&self) -> String {
        let mut path = String::new();
        let mut characters = self.escaped.chars();
        while let Some(character) = characters.next() {
            path.extend(if character == '\\' { characters.next() } else { Some(character) });
        }
        path
    }
}

/// Reads one mount of a request; `index` is its place there.
pub fn parse(index: usize, mount: &Mount) -> Result<Wanted> {
    let wrong = |kind, text: String| Err(Error::new(kind, format!("rootfs[{index}]: {text}")));
    let (mut uids, mut gids, mut is_image, mut direct_io) = (None, None, false, false);
    let mut plain = Vec::new();
    for option in &mount.options {
        match option.split_once('=') {
            None if option == "loop" => is_image = true,
            None if option == "direct-io" => direct_io = true,
            Some(("uidmap", text)) => uids = Some(ranges(index, option, text)?),
            Some(("gidmap", text)) => gids = Some(ranges(index, option, text)?),
            _ if option.starts_with("X-containerd.") => {
                return wrong(
                    Kind::Unsupported,
                    format!("the option {option} is for containerd's mount manager, not for a shim"),
                );
            }
            _ => plain.push(option.as_str()),
        }
    }
    if mount.type_.contains('/') {
        let text = format!("the type {} is for containerd's mount manager, not for a shim", mount.type_);
        return wrong(Kind::Unsupported, text);
    }
    if direct_io && !is_image {
        plain.push("direct-io");
    }
    let maps = match (uids, gids) {
        (None, None) => None,
        (Some(uids), Some(gids)) => Some(IdMaps { uids, gids, writer: Writer::Privileged }),
        _ => return wrong(Kind::Config, "uidmap and gidmap must come together".to_owned()),
    };
    Ok(Wanted {
        fstype: mount.type_.clone(),
        source: mount.source.clone(),
        target: mount.target.clone(),
        options: parse_mount_options(&plain),
        maps,
        image: is_image.then_some(Image { direct_io }),
        raw: mount.options.clone(),
    })
}

/// `inside:outside:size`, several of them with commas between.
fn ranges(index: usize, option: &str, text: &str) -> Result<Vec<IdRange>> {
    let range = |text: &str| {
        let mut numbers = text.split(':').map(str::parse);
        match (numbers.next(), numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(inside)), Some(Ok(outside)), Some(Ok(size)), None) => {
                Some(IdRange { inside, outside, size })
            }
            _ => None,
        }
    };
    text.split(',').map(range).collect::<Option<_>>().ok_or_else(|| {
        Error::new(Kind::Config, format!("rootfs[{index}]: {option} is no map of ids"))
            .hint("write the first id inside, the first outside, and how many: 0:100000:65536")
    })
}

impl Wanted {
    /// Whether it is a bind mount.
    pub fn is_bind(&self) -> bool {
        self.options.bind != Bind::No || self.fstype == "bind"
    }

    /// The filesystem to make, with its source.
    pub fn filesystem(&self, source: &str) -> NewFilesystem {
        // The kernel writes nothing to the console anyway.
        let flags = self.options.set - MountFlags::SILENT;
        filesystem(&self.fstype, source.to_owned(), flags, &self.options.data)
    }

    /// The helper for a filesystem in user space, and the type that it is told: `fuse3.fuse-overlayfs`.
    pub fn helper(&self) -> Option<(&'static str, &str)> {
        let types = [("fuse.", "mount.fuse"), ("fuse3.", "mount.fuse3")];
        types.iter().find_map(|(prefix, helper)| Some((*helper, self.fstype.strip_prefix(prefix)?)))
    }
}

/// Takes the layers out of an overlay's options.
pub fn take_layers(new: &mut NewFilesystem) -> Vec<Layer> {
    let mut layers = Vec::new();
    new.options.retain(|(name, value)| match (name.as_str(), value) {
        ("lowerdir", Some(value)) => {
            layers.extend(split(value));
            false
        }
        _ => true,
    });
    layers
}

/// Layers stand with colons between. After two colons come those with data only.
fn split(lowerdir: &str) -> Vec<Layer> {
    let mut layers = Vec::new();
    let mut is_data = false;
    let mut current = String::new();
    let mut is_escaped = false;
    for character in lowerdir.chars().chain([':']) {
        if character == ':' && !is_escaped {
            let escaped = std::mem::take(&mut current);
            if escaped.is_empty() {
                is_data = true;
            } else {
                layers.push(Layer { is_data, escaped });
            }
        } else {
            current.push(character);
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    layers
}

/// The longest directory that all layers are below, and what is left of each. Nothing where they have none in common.
pub fn common_directory(layers: &[Layer]) -> Option<(String, Vec<Layer>)> {
    let (first, rest) = layers.split_first()?;
    let mut end = first.escaped.rfind('/')?;
    for layer in rest {
        let same =
            first.escaped.bytes().zip(layer.escaped.bytes()).take_while(|(one, two)| one == two).count();
        end = first.escaped.get(..end.min(same).saturating_add(1).min(first.escaped.len()))?.rfind('/')?;
    }
    let directory = first.escaped.get(..end).filter(|directory| !directory.is_empty())?;
    let left = layers.iter().map(|layer| {
        let escaped = layer.escaped.get(end + 1..).filter(|left| !left.is_empty())?;
        Some(Layer { escaped: escaped.to_owned(), ..layer.clone() })
    });
    let left = left.collect::<Option<_>>()?;
    Some((Layer { is_data: false, escaped: directory.to_owned() }.path(), left))
}

/// The text of `lowerdir=`.
pub fn join(layers: &[Layer]) -> String {
    let mut text = String::new();
    let mut was_data = false;
    for layer in layers {
        if !text.is_empty() {
            text.push(':');
        }
        if layer.is_data && !was_data {
            text.push(':');
        }
        was_data = layer.is_data;
        text.push_str(&layer.escaped);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mount(fstype: &str, options: &[&str]) -> Mount {
        Mount {
            type_: fstype.to_owned(),
            source: "/source".to_owned(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            ..Mount::default()
        }
    }

    #[test]
    fn containerds_own_options_are_taken_out() {
        let options = ["uidmap=0:100000:65536,70000:0:1", "gidmap=0:5:6", "loop", "direct-io", "ro", "x=y"];
        let wanted = parse(0, &mount("erofs", &options)).unwrap();
        let maps = wanted.maps.as_ref().unwrap();
        assert_eq!(maps.uids[1], IdRange { inside: 70000, outside: 0, size: 1 });
        assert_eq!(maps.gids.len(), 1);
        assert_eq!(wanted.image, Some(Image { direct_io: true }));
        let new = wanted.filesystem("/dev/loop0");
        let names: Vec<_> = new.options.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["ro", "x"]);
    }

    #[test]
    fn what_cannot_be_done_is_refused() {
        for options in
            [&["uidmap=0:1:2"][..], &["uidmap=0:1", "gidmap=0:1:2"], &["uidmap=a:1:2", "gidmap=0:1:2"]]
        {
            assert_eq!(parse(1, &mount("overlay", options)).unwrap_err().kind(), Kind::Config, "{options:?}");
        }
        let error = parse(2, &mount("ext4", &["X-containerd.mkfs.fs=ext4"])).unwrap_err();
        assert!(error.kind() == Kind::Unsupported && error.to_string().contains("rootfs[2]"), "{error}");
        assert_eq!(parse(0, &mount("format/overlay", &[])).unwrap_err().kind(), Kind::Unsupported);
    }

    #[test]
    fn layers_are_split_at_colons_that_are_not_escaped() {
        let mut new = parse(0, &mount("overlay", &[r"lowerdir=/a\:b:/c::/d:/e", "index=off"]))
            .unwrap()
            .filesystem("overlay");
        let layers = take_layers(&mut new);
        let paths: Vec<_> = layers.iter().map(|layer| (layer.path(), layer.is_data)).collect();
        let expected = [("/a:b", false), ("/c", false), ("/d", true), ("/e", true)];
        assert_eq!(paths, expected.map(|(path, is_data)| (path.to_owned(), is_data)));
        assert_eq!(join(&layers), r"/a\:b:/c::/d:/e");
        assert_eq!(new.options, [("index".to_owned(), Some("off".to_owned()))]);
    }

    #[test]
    fn layers_below_one_directory_are_named_from_there() {
        let common = |text: &str| {
            common_directory(&split(text)).map(|(directory, left)| format!("{directory} {}", join(&left)))
        };
        assert_eq!(common("/s/10/fs:/s/1/fs:/s/2/fs").unwrap(), "/s 10/fs:1/fs:2/fs");
        assert_eq!(common("/s/1/fs").unwrap(), "/s/1 fs");
        assert_eq!(common("/s/1:/s/1/fs").unwrap(), "/s 1:1/fs");
        assert_eq!(common("/a:/b"), None);
        assert_eq!(common("a:b"), None);
    }

    #[test]
    fn filesystems_in_user_space_have_helpers() {
        let wanted = parse(0, &mount("fuse3.fuse-overlayfs", &[])).unwrap();
        assert_eq!(wanted.helper(), Some(("mount.fuse3", "fuse-overlayfs")));
        assert_eq!(parse(0, &mount("fuse", &[])).unwrap().helper(), None);
    }
}
