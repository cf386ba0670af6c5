//! The far end of a veth pair, which may live in another network namespace.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread;

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::nsid::{NsidAttribute, NsidMessage};
use nix::sched::{CloneFlags, setns};

use super::links::link_by_index;
use super::state::{Link, Parent};
use super::{Error, Ethtool, Netlink, Result};

/// Where network namespaces have names: iproute2 and CNI, then Docker.
const NAMED: [&str; 2] = ["/run/netns", "/run/docker/netns"];

/// Makes a veth's far end finish its packets: switches its transmit offloads off, wherever it lives,
/// and returns the names of those that were on.
///
/// Nothing is returned if the link is no veth, or its far end is in a namespace that has no name and
/// no process: then packets arrive with unfinished checksums, to be completed by who receives them.
pub fn disable_peer_tx_offloads(link: &Link) -> Result<Option<Vec<String>>> {
    on_peer(link, |peer| Ethtool::open()?.disable_tx_offloads(peer))
}

/// Switches GRO of a veth's far end ([`Ethtool::set_gro`]); nothing as in
/// [`disable_peer_tx_offloads`].
pub fn set_peer_gro(link: &Link, on: bool) -> Result<Option<()>> {
    on_peer(link, |peer| Ethtool::open()?.set_gro(peer, on))
}

/// Runs `work` on a veth's far end, in a thread inside its namespace if that is another one; nothing
/// as in [`disable_peer_tx_offloads`].
pub fn on_peer<T: Send>(
    link: &Link,
    work: impl FnOnce(&Link) -> Result<T> + Send,
) -> Result<Option<T>> {
    let Some(Parent { index, netns_id }) = link.parent else {
        return Ok(None);
    };
    if !link.is_veth() {
        return Ok(None);
    }
    let on_it = || work(&link_by_index(&mut Netlink::open()?, index)?);
    match netns_id {
        None => on_it().map(Some),
        Some(id) => match find_namespace(id)? {
            Some(netns) => inside(&netns, on_it)?.map(Some),
            None => Ok(None),
        },
    }
}

/// Runs `work` in a thread of its own inside a network namespace; the calling thread stays where it
/// is.
pub fn inside<T: Send>(netns: &File, work: impl FnOnce() -> T + Send) -> Result<T> {
    let enter = || setns(netns.as_fd(), CloneFlags::CLONE_NEWNET);
    let entered = thread::scope(|scope| {
        let worker = scope.spawn(move || enter().map(|()| work()));
        worker.join()
    });
    match entered {
        Ok(result) => result.map_err(|errno| Error::io("entering a network namespace", errno)),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// The namespace that ours knows by a number (`ip netns list-id`), searched among the named ones and
/// those of running processes.
fn find_namespace(id: i32) -> Result<Option<File>> {
    let mut netlink = Netlink::open()?;
    let named = NAMED
        .iter()
        .flat_map(|directory| entries(Path::new(directory)));
    let processes = entries(Path::new("/proc")).filter(|path| is_process(path));
    for path in named.chain(processes.map(|path| path.join("ns/net"))) {
        // A namespace or a process may be gone by now, or not be ours to open.
        let Ok(file) = File::open(&path) else {
            continue;
        };
        if namespace_id(&mut netlink, &file)? == Some(id) {
            return Ok(Some(file));
        }
    }
    Ok(None)
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    entries.filter_map(|entry: io::Result<_>| Some(entry.ok()?.path()))
}

fn is_process(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().as_encoded_bytes();
    !name.is_empty() && name.iter().all(u8::is_ascii_digit)
}

/// Our namespace's number for another; nothing if it has none, or the file is no namespace.
fn namespace_id(netlink: &mut Netlink, netns: &File) -> Result<Option<i32>> {
    use std::os::fd::AsRawFd;
    let mut message = NsidMessage::default();
    let descriptor = netns.as_raw_fd().cast_unsigned();
    message.attributes.push(NsidAttribute::Fd(descriptor));
    let answers = netlink.get(
        "numbering namespaces",
        RouteNetlinkMessage::GetNsId(message),
    );
    let answers = match answers {
        Err(error) if error.errno() == Some(libc::EINVAL) => return Ok(None),
        other => other?,
    };
    let attributes = answers.into_iter().flat_map(|answer| match answer {
        RouteNetlinkMessage::NewNsId(message) => message.attributes,
        _ => Vec::new(),
    });
    let mut ids = attributes.filter_map(|attribute| match attribute {
        NsidAttribute::Id(id) if id >= 0 => Some(id),
        _ => None,
    });
    Ok(ids.next())
}
