//! XDP and AF_XDP on a device, by trying, or as the running node has it.

use super::{Report, Scene, Severity};
use crate::kernel::Link;
use crate::observe::protocol::{Reply, Request};
use crate::packet::{FramePool, HEADROOM};
use crate::port::xdp::{
    Role, Steering, Transfer, UmemOptions, WorkerUmem, XdpModeWanted, XdpOptions, XdpPort,
    describe_program, is_own_program,
};
use crate::port::{PortError, PortId, receive_queues};

/// There are programs on a device: the running node's, or somebody else's.
pub(super) fn attached(report: &mut Report, scene: &Scene<'_>, interface: &str, programs: &[u32]) {
    let foreign = programs.iter().find(|id| !is_own_program(**id));
    if let Some(id) = foreign {
        report.add(
            Severity::Fault,
            "foreign_xdp",
            interface,
            format!("it has an XDP program of somebody else: {}", describe_program(*id)),
            format!("ip link set {interface} xdp off, or end the program that holds it; a device has one"),
        );
        return;
    }
    let counters = scene.options.node.map(|ask| ask(&Request::Counters));
    let io = match counters {
        Some(Ok(Reply::Counters(counters))) => counters
            .ports
            .iter()
            .find(|port| port.name == interface)
            .map(|port| port.io.clone()),
        _ => None,
    };
    match io {
        Some(io) if io.contains("generic") => report.add(
            Severity::Warning,
            "xdp",
            interface,
            format!("the running node serves it by {io}: slower than by the driver"),
            GENERIC_REMEDY,
        ),
        Some(io) => report.ok(
            "xdp",
            interface,
            format!("the running node serves it by {io}"),
        ),
        None => report.add(
            Severity::Warning,
            "xdp",
            interface,
            "an underpass that does not answer here holds it",
            "end that process, or name its configuration",
        ),
    }
}

const GENERIC_REMEDY: &str = "use a driver with native XDP; `dmesg` may say why this one refuses \
                              (an MTU above 3498, too many queues, an offload)";

/// Attaches a program and opens a socket on each queue; both are gone again afterwards.
pub(super) fn tried(report: &mut Report, link: &Link) {
    let name = &link.name;
    let attached = Steering::attach(name, Role::Uplink, XdpModeWanted::Native);
    let native = attached.is_ok();
    let attached = attached.or_else(|native| {
        let generic = Steering::attach(name, Role::Uplink, XdpModeWanted::Generic);
        generic.map_err(|generic| (native, generic))
    });
    let _held = match attached {
        Ok(held) => held,
        Err((native, generic)) => {
            let found = format!("no XDP: native: {native}; generic: {generic}");
            let remedy =
                "the device cannot be an AF_XDP port: use a TUN or TAP port, or another kernel";
            report.add(Severity::Fault, "xdp", name, found, remedy);
            return;
        }
    };
    let queues = receive_queues(name).unwrap_or(1);
    let copy = working(name, queues, Transfer::Copy);
    let zero_copy = working(name, queues, Transfer::ZeroCopy);
    let mode = if native { "native" } else { "generic" };
    let found = format!(
        "{mode} XDP; AF_XDP by copying on {} of {queues} queue(s), zero-copy on {}",
        copy.count, zero_copy.count
    );
    if let Some(error) = copy.refused {
        let remedy = "end what holds the queue, or leave it out by uplink.queues";
        report.add(
            Severity::Fault,
            "xdp",
            name,
            format!("{found}: {error}"),
            remedy,
        );
    } else if native {
        report.ok("xdp", name, found);
    } else {
        report.add(
            Severity::Warning,
            "xdp",
            name,
            format!("{found}: slower"),
            GENERIC_REMEDY,
        );
    }
}

/// How many queues take a socket, and why the first does not that does not.
struct Working {
    count: u32,
    refused: Option<PortError>,
}

fn working(interface: &str, queues: u32, transfer: Transfer) -> Working {
    let mut working = Working {
        count: 0,
        refused: None,
    };
    for queue in 0..queues {
        match open(interface, queue, transfer) {
            Ok(()) => working.count += 1,
            Err(error) => {
                working.refused.get_or_insert(error);
            }
        }
    }
    working
}

/// A queue's entries while it is tried.
const RING: u32 = 64;

fn open(interface: &str, queue: u32, transfer: Transfer) -> Result<(), PortError> {
    let options = UmemOptions {
        frames: 4 * RING + 256,
        frame_size: 4096,
        ring_size: RING,
        transfer,
    };
    let (umem, frames) = WorkerUmem::new(&options)?;
    let mut pool = FramePool::new(frames, HEADROOM);
    let options = XdpOptions {
        interface: interface.to_owned(),
        queues: queue..queue + 1,
        ring_size: RING,
    };
    // Dropped, not closed: a closed port's socket would stay bound for the next one.
    XdpPort::open(PortId(0), &options, &umem, &mut pool).map(drop)
}
