//! underpass itself: the same binary, a process for each node, on resources written for the bench.

use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::{Place, Process, Running, System, documents};
use crate::bench::error::{BenchError, Result};
use crate::bench::topology::{Direction, Site, Topology};
use crate::observe::protocol::{Reply, Request};
use crate::observe::report::{Encapsulation, RouteKind, RouteState};
use crate::resources::Io;

/// How long a node may take until it forwards.
const PATIENCE: Duration = Duration::from_secs(10);

/// Starts the nodes under test.
pub(super) fn start(
    system: System,
    topology: &Topology,
    direction: Direction,
    place: &Place,
) -> Result<Running> {
    let directory = place.directory.join(system.name());
    let datastore = directory.join("datastore");
    fs::create_dir_all(&datastore)
        .map_err(BenchError::io(format!("making {}", datastore.display())))?;
    let pool = documents::pool(modes(system), place.routes.length());
    write(&datastore.join("pool.yaml"), &pool)?;
    let sites = [&topology.a, &topology.b];
    // Which nodes share a node's subnet: all of the link's, or none.
    let length = if system == System::CrossFar { 32 } else { 24 };
    let each = |resource: &dyn Fn(&Site) -> String| -> String {
        sites.iter().map(|site| resource(site)).collect()
    };
    write(
        &datastore.join("nodes.yaml"),
        &each(&|site| documents::node(site, length)),
    )?;
    write(
        &datastore.join("blocks.yaml"),
        &each(&|site| documents::blocks(site, place.prefixes(site))),
    )?;
    write(
        &datastore.join("workloads.yaml"),
        &each(&|site| documents::workload(site, place.addresses(site))),
    )?;

    // What a veth without an XDP program of its own does not have by itself.
    if system.has_fast_path() || place.io == Io::Generic {
        for site in sites {
            site.enable_napi()?;
            site.enable_workload_napi()?;
        }
    }
    let mut running = Running::default();
    for site in topology.nodes(direction) {
        running.add(site.name, start_node(system, site, place, &directory)?);
    }
    for (site, process) in &mut running.processes {
        let other = if *site == "a" { "b" } else { "a" };
        let socket = directory.join(format!("{site}.sock"));
        process.wait_for(system, PATIENCE, || is_ready(&socket, other, system))?;
        running.sockets.push(socket);
    }
    Ok(running)
}

fn start_node(system: System, site: &Site, place: &Place, directory: &Path) -> Result<Process> {
    let config = directory.join(format!("{}.yaml", site.name));
    write(&config, &configuration(system, site, place, directory))?;
    let own = std::env::current_exe().map_err(BenchError::io("finding this program's file"))?;
    let mut command = site.node.command(Some(place.cpu), own)?;
    command.arg("run").arg("--config").arg(&config);
    let log = directory.join(format!("{}.log", site.name));
    let process = Process::spawn(command, &log)?;
    log::debug!("{system}: node {} is process {}", site.name, process.pid());
    Ok(process)
}

/// Whether a node is ready, knows the way to the other node, and goes it as the mode demands.
fn is_ready(socket: &Path, other: &str, system: System) -> bool {
    let Some(Reply::Status(status)) = ask(socket, &Request::Status) else {
        return false;
    };
    let Some(Reply::Routes(routes)) = ask(socket, &Request::Routes) else {
        return false;
    };
    let wanted = match system {
        System::Ipip | System::FastIpip => Encapsulation::Ipip,
        System::Vxlan | System::CrossFar | System::FastVxlan => Encapsulation::Vxlan,
        _ => Encapsulation::None,
    };
    let mut remote = routes
        .iter()
        .filter(|route| route.kind == RouteKind::Unicast && route.node.as_deref() == Some(other))
        .peekable();
    remote.peek().is_some()
        && remote
            .all(|route| route.encapsulation == Some(wanted) && route.state == RouteState::Resolved)
        && status.is_ready()
}

/// What a node has received, sent and dropped, in a line.
pub(super) fn drops(socket: &Path) -> String {
    let Some(Reply::Counters(counters)) = ask(socket, &Request::Counters) else {
        return "a node does not answer".to_owned();
    };
    let ports = counters.ports.iter().map(|port| {
        let (received, sent) = (port.rx_packets, port.tx_packets);
        format!("{}: {received} received, {sent} sent", port.name)
    });
    let drops = counters.drops.iter().filter(|drop| drop.packets > 0);
    let drops = drops.map(|drop| format!("{} dropped: {}", drop.packets, drop.reason));
    ports.chain(drops).collect::<Vec<_>>().join(", ")
}

fn ask(socket: &Path, request: &Request) -> Option<Reply> {
    let mut stream = UnixStream::connect(socket).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut line = serde_json::to_vec(request).ok()?;
    line.push(b'\n');
    stream.write_all(&line).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    serde_json::from_str(&answer).ok()
}

fn configuration(system: System, site: &Site, place: &Place, directory: &Path) -> String {
    format!(
        "node: {name}\n\
         uplink: {{ interface: {uplink}, io: {io} }}\n\
         workloads:\n- {{ interface: {port}, io: {io} }}\n\
         workers: {{ count: 1, cpus: [{cpu}] }}\n\
         datastore: {{ directory: {datastore} }}\n\
         control: {socket}\n\
         fastPath: {fast_path}\n",
        fast_path = if system.has_fast_path() { "on" } else { "off" },
        name = site.name,
        uplink = site.uplink,
        io = place.io.name(),
        port = site.port,
        cpu = place.cpu,
        datastore = directory.join("datastore").display(),
        socket = directory.join(format!("{}.sock", site.name)).display(),
    )
}

/// The modes of the pool: ipipMode, vxlanMode.
fn modes(system: System) -> (&'static str, &'static str) {
    match system {
        System::Ipip | System::FastIpip => ("Always", "Never"),
        System::Vxlan | System::FastVxlan => ("Never", "Always"),
        System::Cross | System::CrossFar => ("Never", "CrossSubnet"),
        _ => ("Never", "Never"),
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(BenchError::io(format!("writing {}", path.display())))
}
