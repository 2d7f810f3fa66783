//! Network devices of the host that move into a container (runtime-spec, config-linux.md "Network Devices").
//!
//! It owns the way of a device from the runtime's network namespace to the container's: with its name or a new one, its
//! hardware address and MTU, its permanent global addresses, and up. It promises that a device that can't be moved is
//! told by its name and the kernel's reason, and that when making the container fails, what was moved comes back
//! with its name and addresses; its routes are lost. Once the container stands, the devices are its namespace's: the specification forbids taking them out of it, and
//! the kernel gives physical ones back when the namespace ends.

mod netlink;

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use self::netlink::{
    Answer, NLM_F_CREATE, NLM_F_DUMP, RTM_GETADDR, RTM_GETLINK, RTM_NEWADDR, RTM_NEWLINK, Request, Socket,
};
use crate::error::{Doing, Error, Kind, Result};
use crate::plan::network::{LONGEST_NAME, NetDevice, TEMPLATE};
use crate::sys::process::is_same_namespace;

/// Attributes of a device: rtnetlink(7).
const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_FD: u16 = 28;
/// `struct ifinfomsg`.
const LINK_FIXED: usize = 16;
const IFF_UP: u32 = 1;

/// Attributes of an address.
const IFA_LABEL: u16 = 3;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
/// `struct ifaddrmsg`: family, prefix length, flags, scope, and the device's index.
const ADDRESS_FIXED: usize = 8;
const IFA_F_PERMANENT: u32 = 0x80;
/// What may be asked of an address that is added: no duplicate detection, home address, parent of temporary addresses,
/// no route for its prefix, joining of its multicast group. The rest is the kernel's to set.
const IFA_F_SETTABLE: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;
const RT_SCOPE_UNIVERSE: u8 = 0;

/// Devices that were moved, until the container stands.
#[derive(Debug)]
pub struct Moves {
    host: Place,
    container: Place,
    moved: Vec<Moved>,
}

/// A network namespace: itself, and a socket to it.
#[derive(Debug)]
struct Place {
    namespace: OwnedFd,
    socket: Socket,
}

#[derive(Debug)]
struct Moved {
    on_host: String,
    inside: String,
    link: Link,
}

/// What is to be kept of a device.
#[derive(Debug, Clone)]
struct Link {
    index: i32,
    is_up: bool,
    addresses: Vec<Address>,
}

#[derive(Debug, Clone)]
struct Address {
    fixed: [u8; ADDRESS_FIXED],
    attributes: Vec<(u16, Vec<u8>)>,
}

impl Moves {
    /// Moves devices from the calling thread's network namespace, which is `host`, to `container`. When one can't be
    /// moved, those before it come back.
    pub fn of(devices: &[NetDevice], host: OwnedFd, container: OwnedFd) -> Result<Self> {
        refuse_same(&host, &container)?;
        let socket = Socket::new()?;
        enter(&container).doing(|| "enter the container's network namespace")?;
        let there = Socket::new();
        enter(&host).doing(|| "go back to the runtime's network namespace")?;
        let container = Place { namespace: container, socket: there? };
        let mut moves = Self { host: Place { namespace: host, socket }, container, moved: Vec::new() };
        for device in devices {
            if let Err(error) = moves.add(device) {
                moves.undo();
                return Err(error.at(device.place.clone()));
            }
        }
        Ok(moves)
    }

    fn add(&mut self, device: &NetDevice) -> Result<()> {
        let name = &device.on_host;
        let link = self.host.link(name)?.ok_or_else(|| {
            Error::config(
                device.place.clone(),
                format!("there is no network device {name:?} in the runtime's network namespace"),
            )
            .hint("`ip link` lists them")
        })?;
        let link = Link { addresses: self.host.addresses(link.index)?, ..link };
        let inside = self.container.free_name(&device.inside)?;
        self.host.send_away(link.index, &inside, &self.container)?;
        self.moved.push(Moved { on_host: name.clone(), inside: inside.clone(), link: link.clone() });
        self.container.set_up(&inside, &link.addresses, name, true)
    }

    /// Brings everything back, with the addresses that it had; routes and other settings are lost, as when it moved. What goes wrong here is only logged: there is an error to tell already.
    pub fn undo(mut self) {
        while let Some(Moved { on_host, inside, link }) = self.moved.pop() {
            let back = match self.container.link(&inside) {
                Ok(Some(now)) => self
                    .container
                    .send_away(now.index, &on_host, &self.host)
                    .and_then(|()| self.host.set_up(&on_host, &link.addresses, &on_host, link.is_up)),
                Ok(None) => continue,
                Err(error) => Err(error),
            };
            if let Err(error) = back {
                log::warn!("bring the network device {on_host} back: {error}");
            }
        }
    }
}

/// A device would only be renamed in its place.
fn refuse_same(host: &OwnedFd, container: &OwnedFd) -> Result<()> {
    if !is_same_namespace(host.as_fd(), container.as_fd()).doing(|| "look at the network namespaces")? {
        return Ok(());
    }
    Err(Error::config(
        "linux.netDevices",
        "the container's network namespace is the runtime's own, so that there is nowhere to move a device to",
    ))
}

fn enter(namespace: &OwnedFd) -> Result<(), Errno> {
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
}

impl Place {
    /// The device of this name, without its addresses.
    fn link(&self, name: &str) -> Result<Option<Link>> {
        let request = Request::new(RTM_GETLINK, 0, &[0; LINK_FIXED]).with_text(IFLA_IFNAME, name);
        match self.socket.ask(request, || format!("look for the network device {name}")) {
            Ok(answers) => Ok(answers.iter().find_map(link_of)),
            Err(error) if error.errno() == Some(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The addresses of a device that move with it.
    fn addresses(&self, index: i32) -> Result<Vec<Address>> {
        let request = Request::new(RTM_GETADDR, NLM_F_DUMP, &[0; ADDRESS_FIXED]);
        let answers = self.socket.ask(request, || "list the addresses of network devices".to_owned())?;
        Ok(answers.iter().filter_map(|answer| address_of(answer, index)).collect())
    }

    /// A name that no device here has: the one asked for, or the first that its template allows.
    fn free_name(&self, wanted: &str) -> Result<String> {
        let Some((before, after)) = wanted.split_once(TEMPLATE) else {
            return match self.link(wanted)? {
                None => Ok(wanted.to_owned()),
                Some(_) => Err(Error::new(
                    Kind::Config,
                    format!("the container's network namespace has a device {wanted:?} already"),
                )
                .hint("give another name, or a template such as \"eth%d\"")),
            };
        };
        let request = Request::new(RTM_GETLINK, NLM_F_DUMP, &[0; LINK_FIXED]);
        let taken: Vec<String> = self
            .socket
            .ask(request, || "list the network devices of the container".to_owned())?
            .iter()
            .filter_map(name_of)
            .collect();
        let names = (0..=taken.len()).map(|number| format!("{before}{number}{after}"));
        names.filter(|name| name.len() <= LONGEST_NAME).find(|name| !taken.contains(name)).ok_or_else(|| {
            Error::new(
                Kind::Config,
                format!("no name of at most {LONGEST_NAME} bytes is left for {wanted:?}"),
            )
        })
    }

    /// Moves a device to another namespace, by one request with its new name: nobody can take the name meanwhile.
    fn send_away(&self, index: i32, name: &str, to: &Self) -> Result<()> {
        let fd = to.namespace.as_raw_fd().to_ne_bytes();
        let request = Request::new(RTM_NEWLINK, 0, &link_request(index, 0, 0))
            .with_text(IFLA_IFNAME, name)
            .with(IFLA_NET_NS_FD, &fd);
        self.socket
            .ask(request, || format!("move the network device to the other namespace as {name}"))
            .map(drop)
            .map_err(|error| match error.errno() {
                Some(Errno::PERM) => error
                    .hint("moving a device needs CAP_NET_ADMIN on the host and over the container's network namespace"),
                Some(Errno::INVAL) => {
                    error.hint("devices such as lo belong to their namespace and can't be moved")
                }
                _ => error,
            })
    }

    /// Gives a device that has just come its addresses, and brings it up.
    fn set_up(&self, name: &str, addresses: &[Address], old_name: &str, up: bool) -> Result<()> {
        let link = self.link(name)?.ok_or_else(|| {
            Error::new(Kind::System, format!("the network device {name} is not where it was moved to"))
        })?;
        for address in addresses {
            let request = address.request(link.index, old_name, name);
            let added = self.socket.ask(request, || format!("give the network device {name} its address"));
            match added {
                Err(error) if error.errno() != Some(Errno::EXIST) => return Err(error),
                _ => {}
            }
        }
        if up {
            let request = Request::new(RTM_NEWLINK, 0, &link_request(link.index, IFF_UP, IFF_UP));
            self.socket.ask(request, || format!("bring the network device {name} up"))?;
        }
        Ok(())
    }
}

/// `struct ifinfomsg` for a change.
fn link_request(index: i32, flags: u32, change: u32) -> [u8; LINK_FIXED] {
    let mut fixed = [0; LINK_FIXED];
    for (to, from) in fixed
        .iter_mut()
        .skip(4)
        .zip(index.to_ne_bytes().into_iter().chain(flags.to_ne_bytes()).chain(change.to_ne_bytes()))
    {
        *to = from;
    }
    fixed
}

fn link_of(answer: &Answer) -> Option<Link> {
    let fixed: [u8; LINK_FIXED] = answer.fixed()?;
    let number = |at: usize| Some(u32::from_ne_bytes(fixed.get(at..at + 4)?.try_into().ok()?));
    (answer.kind == RTM_NEWLINK).then_some(())?;
    Some(Link { index: number(4)? as i32, is_up: number(8)? & IFF_UP != 0, addresses: Vec::new() })
}

fn name_of(answer: &Answer) -> Option<String> {
    let (_, name) = answer.attributes(LINK_FIXED).find(|(kind, _)| *kind == IFLA_IFNAME)?;
    Some(String::from_utf8_lossy(name).trim_end_matches('\0').to_owned())
}

/// An address of the device, if it is permanent and global: others mean something only where they are.
fn address_of(answer: &Answer, index: i32) -> Option<Address> {
    let fixed: [u8; ADDRESS_FIXED] = answer.fixed()?;
    let [_, _, flags, scope, ..] = fixed;
    let its_index = i32::from_ne_bytes(fixed.get(4..8)?.try_into().ok()?);
    let attributes: Vec<_> =
        answer.attributes(ADDRESS_FIXED).map(|(kind, value)| (kind, value.to_vec())).collect();
    let long_flags = attributes.iter().find(|(kind, _)| *kind == IFA_FLAGS);
    let long_flags =
        long_flags.and_then(|(_, value)| Some(u32::from_ne_bytes(value.as_slice().try_into().ok()?)));
    let flags = long_flags.unwrap_or(u32::from(flags));
    let moves = answer.kind == RTM_NEWADDR
        && its_index == index
        && scope == RT_SCOPE_UNIVERSE
        && flags & IFA_F_PERMANENT != 0;
    moves.then_some(Address { fixed, attributes })
}

impl Address {
    /// The request that adds it to a device. A label begins with its device's name.
    fn request(&self, index: i32, old_name: &str, name: &str) -> Request {
        let [family, prefix, _, scope, ..] = self.fixed;
        let [a, b, c, d] = index.to_ne_bytes();
        let fixed = [family, prefix, 0, scope, a, b, c, d];
        let mut request = Request::new(RTM_NEWADDR, NLM_F_CREATE, &fixed);
        for (kind, value) in &self.attributes {
            request = match *kind {
                // Its lifetime is without end: it is permanent.
                IFA_CACHEINFO => request,
                IFA_FLAGS => {
                    let flags = value.as_slice().try_into().map_or(0, u32::from_ne_bytes);
                    request.with(IFA_FLAGS, &(flags & IFA_F_SETTABLE).to_ne_bytes())
                }
                IFA_LABEL => {
                    let label = String::from_utf8_lossy(value);
                    let rest = label.trim_end_matches('\0').strip_prefix(old_name).map(str::to_owned);
                    let label = format!("{name}{}", rest.unwrap_or_default());
                    if label.len() <= LONGEST_NAME { request.with_text(IFA_LABEL, &label) } else { request }
                }
                kind => request.with(kind, value),
            };
        }
        request
    }
}
