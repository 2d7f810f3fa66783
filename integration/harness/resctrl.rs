//! A filesystem that behaves as the kernel's resctrl, for machines without Intel RDT (resctrl.rst of the kernel).
//!
//! It is served by the test over FUSE, since in resctrl a directory is born with its files. The runtime finds resctrl by
//! its type in `/proc/self/mountinfo`, which no other filesystem can have: so the runtime is executed in a mount
//! namespace of its own, where its mountinfo has one line more. Nothing in the runtime knows of this.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty, ReplyEntry, ReplyOpen,
    ReplyWrite, Request, TimeOrNow, WriteFlags,
};

use crate::Runtime;

/// How many classes there may be, with the default one.
const CLASSES: usize = 4;
/// The widest mask of the one cache.
const WIDEST: u64 = 0xfff;
/// Nothing is remembered by the kernel: the test looks at what is there now.
const NOT_CACHED: Duration = Duration::ZERO;
const ROOT: u64 = 1;

/// A mounted resctrl. It is unmounted when it is dropped.
pub struct Resctrl {
    mount: PathBuf,
    forged: PathBuf,
    _session: BackgroundSession,
}

impl Resctrl {
    /// Mounts one for a test; `None` where FUSE can't be used.
    pub fn mount(runtime: &Runtime) -> Option<Self> {
        let mount = runtime.own("resctrl");
        fs::create_dir_all(&mount).expect("making a directory");
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("resctrl".to_owned()), MountOption::RW];
        let session = fuser::spawn_mount(Fake::new(), &mount, &config).ok()?;
        let forged = runtime.scratch("mountinfo");
        let table = fs::read_to_string("/proc/self/mountinfo").expect("reading /proc/self/mountinfo");
        let line = format!("9999 1 0:999 / {} rw,relatime - resctrl resctrl rw\n", mount.display());
        fs::write(&forged, table + &line).expect("writing a file");
        Some(Self { mount, forged, _session: session })
    }

    /// A path in it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.mount.join(name)
    }

    /// A file's text, trimmed.
    pub fn read(&self, name: &str) -> String {
        let path = self.path(name);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        text.trim().to_owned()
    }

    /// Whether a group is there.
    pub fn has(&self, group: &str) -> bool {
        self.path(group).is_dir()
    }

    /// The processes of a group; of the default class for an empty name.
    pub fn tasks(&self, group: &str) -> Vec<i32> {
        let text = self.read(format!("{group}/tasks").trim_start_matches('/'));
        text.lines().map(|line| line.parse().expect("a process id")).collect()
    }

    /// A command of the runtime, to which the filesystem is a resctrl.
    pub fn shown_to(&self, command: &Command) -> Command {
        let mut shown = Command::new("unshare");
        shown.args(["--mount", "--propagation", "private", "sh", "-c"]);
        shown.arg("mount --bind \"$0\" /proc/$$/mountinfo && exec \"$@\"").arg(&self.forged);
        shown.arg(command.get_program()).args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => shown.env(name, value),
                None => shown.env_remove(name),
            };
        }
        shown.stdin(Stdio::null());
        shown
    }
}

enum Node {
    Directory(BTreeMap<String, u64>),
    File(String),
}

struct Fake(Arc<Mutex<Tree>>);

struct Tree {
    nodes: BTreeMap<u64, Node>,
    next: u64,
}

impl Tree {
    fn add(&mut self, parent: u64, name: &str, node: Node) -> u64 {
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, node);
        if let Some(Node::Directory(names)) = self.nodes.get_mut(&parent) {
            names.insert(name.to_owned(), number);
        }
        number
    }

    fn file(&mut self, parent: u64, name: &str, text: &str) {
        self.add(parent, name, Node::File(text.to_owned()));
    }

    fn child(&self, parent: u64, name: &str) -> Option<u64> {
        match self.nodes.get(&parent)? {
            Node::Directory(names) => names.get(name).copied(),
            Node::File(_) => None,
        }
    }

    /// The directory that holds a node, and the node's name in it.
    fn parent(&self, number: u64) -> Option<(u64, String)> {
        self.nodes.iter().find_map(|(parent, node)| match node {
            Node::Directory(names) => {
                names.iter().find(|(_, child)| **child == number).map(|(name, _)| (*parent, name.clone()))
            }
            Node::File(_) => None,
        })
    }

    fn set(&mut self, directory: u64, name: &str, text: String) {
        if let Some(Node::File(old)) =
            self.child(directory, name).and_then(|child| self.nodes.get_mut(&child))
        {
            *old = text;
        }
    }

    fn text(&self, directory: u64, name: &str) -> String {
        match self.child(directory, name).and_then(|child| self.nodes.get(&child)) {
            Some(Node::File(text)) => text.clone(),
            _ => String::new(),
        }
    }

    /// What `last_cmd_status` has to say.
    fn say(&mut self, words: &str) {
        if let Some(info) = self.child(ROOT, "info") {
            self.set(info, "last_cmd_status", format!("{words}\n"));
        }
    }

    /// The classes but the default one.
    fn classes(&self) -> Vec<u64> {
        let Some(Node::Directory(names)) = self.nodes.get(&ROOT) else { return Vec::new() };
        names.values().copied().filter(|class| self.child(*class, "schemata").is_some()).collect()
    }

    /// A group is born with its files.
    fn fill(&mut self, group: u64, is_class: bool) {
        self.file(group, "tasks", "");
        if is_class {
            self.file(group, "schemata", "    MB:0=100\n    L3:0=fff\n");
            self.add(group, "mon_groups", Node::Directory(BTreeMap::new()));
        }
    }

    fn make(&mut self, parent: u64, name: &str) -> Result<u64, Errno> {
        let is_class = parent == ROOT;
        if self.child(parent, name).is_some() {
            return Err(Errno::EEXIST);
        }
        if !is_class && self.parent(parent).is_none_or(|(_, name)| name != "mon_groups") {
            return Err(Errno::EPERM);
        }
        if is_class && self.classes().len() + 1 >= CLASSES {
            self.say("Out of CLOSIDs");
            return Err(Errno::ENOSPC);
        }
        let group = self.add(parent, name, Node::Directory(BTreeMap::new()));
        self.fill(group, is_class);
        self.say("ok");
        Ok(group)
    }

    /// Removes a group; its processes go to the default class.
    fn remove(&mut self, parent: u64, name: &str) -> Result<(), Errno> {
        let group = self.child(parent, name).ok_or(Errno::ENOENT)?;
        let is_monitoring = self.parent(parent).is_some_and(|(_, name)| name == "mon_groups");
        if self.child(group, "schemata").is_none() && !is_monitoring {
            return Err(Errno::EPERM);
        }
        if !is_monitoring {
            let tasks = self.text(ROOT, "tasks") + &self.text(group, "tasks");
            self.set(ROOT, "tasks", tasks);
        }
        if let Some(Node::Directory(names)) = self.nodes.get_mut(&parent) {
            names.remove(name);
        }
        Ok(())
    }

    /// Takes a process into a group, out of every other of its kind.
    fn assign(&mut self, group: u64, task: &str) -> Result<(), Errno> {
        task.parse::<i32>().map_err(|_| Errno::EINVAL)?;
        let line = format!("{task}\n");
        let without = |text: String| {
            text.lines().filter(|have| *have != task).fold(String::new(), |all, line| all + line + "\n")
        };
        let class_of_group =
            self.parent(group).and_then(|(groups, _)| self.parent(groups)).map(|(class, _)| class);
        if self.child(group, "schemata").is_none() {
            let class = class_of_group.ok_or(Errno::EINVAL)?;
            if !self.text(class, "tasks").lines().any(|have| have == task) {
                self.say("Can't move task to different control group");
                return Err(Errno::EINVAL);
            }
        } else {
            for class in self.classes().into_iter().chain([ROOT]) {
                self.set(class, "tasks", without(self.text(class, "tasks")));
            }
        }
        self.set(group, "tasks", without(self.text(group, "tasks")) + &line);
        Ok(())
    }

    /// Changes settings, if every line is a good one.
    fn configure(&mut self, class: u64, text: &str) -> Result<(), Errno> {
        if !text.ends_with('\n') {
            return Err(Errno::EINVAL);
        }
        for line in text.lines() {
            let words = match setting(line) {
                Ok((resource, value)) => {
                    let others = self.text(class, "schemata");
                    let others = others.lines().filter(|have| !have.trim_start().starts_with(resource));
                    let changed = others
                        .chain([format!("    {resource}:0={value}").as_str()])
                        .collect::<Vec<_>>()
                        .join("\n");
                    self.set(class, "schemata", changed + "\n");
                    continue;
                }
                Err(words) => words,
            };
            self.say(&words);
            return Err(Errno::EINVAL);
        }
        self.say("ok");
        Ok(())
    }
}

/// The resource and the value of a line, or what the kernel says of it.
fn setting(line: &str) -> Result<(&str, String), String> {
    let (resource, domain) = line.split_once(':').ok_or("Missing ':'")?;
    let value = domain.strip_prefix("0=").ok_or("Unknown domain")?;
    match resource {
        "MB" => match value.parse::<u32>() {
            Ok(percent @ 10..=100) => Ok((resource, percent.to_string())),
            _ => Err(format!("MB value {value} out of range [10,100]")),
        },
        "L3" => match u64::from_str_radix(value, 16) {
            Ok(mask @ 1..=WIDEST) => Ok((resource, format!("{mask:03x}"))),
            _ => Err(format!("Mask out of range: {value}")),
        },
        other => Err(format!("Unknown or unsupported resource name '{other}'")),
    }
}

impl Fake {
    fn new() -> Self {
        let mut tree =
            Tree { nodes: BTreeMap::from([(ROOT, Node::Directory(BTreeMap::new()))]), next: ROOT + 1 };
        tree.fill(ROOT, true);
        let info = tree.add(ROOT, "info", Node::Directory(BTreeMap::new()));
        tree.file(info, "last_cmd_status", "ok\n");
        Self(Arc::new(Mutex::new(tree)))
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().expect("no request panics")
    }

    fn attributes(&self, number: u64) -> Result<FileAttr, Errno> {
        let tree = self.tree();
        let node = tree.nodes.get(&number).ok_or(Errno::ENOENT)?;
        let (kind, perm, size) = match node {
            Node::Directory(_) => (FileType::Directory, 0o755, 0),
            Node::File(text) => (FileType::RegularFile, 0o644, text.len() as u64),
        };
        Ok(FileAttr {
            ino: INodeNo(number),
            size,
            blocks: 0,
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            flags: 0,
            blksize: 4096,
        })
    }

    fn entry(&self, found: Result<u64, Errno>, reply: ReplyEntry) {
        match found.and_then(|number| self.attributes(number)) {
            Ok(attributes) => reply.entry(&NOT_CACHED, &attributes, Generation(0)),
            Err(errno) => reply.error(errno),
        }
    }
}

impl Filesystem for Fake {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.tree().child(parent.into(), &name.to_string_lossy()).ok_or(Errno::ENOENT);
        self.entry(found, reply);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attributes(number.into()) {
            Ok(attributes) => reply.attr(&NOT_CACHED, &attributes),
            Err(errno) => reply.error(errno),
        }
    }

    fn setattr(
        &self,
        request: &Request,
        number: INodeNo,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u32>,
        _: Option<u64>,
        _: Option<TimeOrNow>,
        _: Option<TimeOrNow>,
        _: Option<std::time::SystemTime>,
        handle: Option<FileHandle>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<std::time::SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        self.getattr(request, number, handle, reply);
    }

    fn mkdir(&self, _: &Request, parent: INodeNo, name: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        let made = self.tree().make(parent.into(), &name.to_string_lossy());
        self.entry(made, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let removed = self.tree().remove(parent.into(), &name.to_string_lossy());
        match removed {
            Ok(()) => reply.ok(),
            Err(errno) => reply.error(errno),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_DIRECT_IO);
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        _: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        match self.tree().nodes.get(&number.into()) {
            Some(Node::File(text)) => reply.data(text.as_bytes().get(offset as usize..).unwrap_or_default()),
            _ => reply.error(Errno::ENOENT),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        _: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let text = String::from_utf8_lossy(data);
        let mut tree = self.tree();
        let written = match tree.parent(number.into()) {
            Some((group, name)) if name == "tasks" => tree.assign(group, text.trim()),
            Some((group, name)) if name == "schemata" => tree.configure(group, &text),
            _ => Err(Errno::EPERM),
        };
        match written {
            Ok(()) => reply.written(data.len() as u32),
            Err(errno) => reply.error(errno),
        }
    }
}
