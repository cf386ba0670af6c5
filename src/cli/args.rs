//! What can be written on the command line.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use super::bench::{BenchArguments, EnterArguments, IoName};
use super::bgp::BgpVerb;
use super::ipam::IpamArguments;
use super::resource::ResourceVerb;
use crate::bench::namespace::ENTER;
use crate::bench::systems::wire;

/// A virtual router between VMs, containers and hosts, on AF_XDP and TUN/TAP.
#[derive(Debug, Parser)]
#[command(name = "underpass", version, max_term_width = 100)]
pub struct Arguments {
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Run a node until it is told to stop (SIGTERM or Ctrl-C)
    Run {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Let the uplink be the machine's default route, though a fault may cut it off
        #[arg(long)]
        allow_default_route: bool,
        /// Messages to print: off, error, warn, info, debug or trace [default: as configured]
        #[arg(long, value_name = "LEVEL")]
        log: Option<log::LevelFilter>,
    },
    /// Say what is wrong with a node's configuration and resources
    Check {
        /// The node's configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Say what keeps this machine from carrying packets, or from doing it well, and what to do
    Doctor(DoctorArguments),
    /// Addresses in use, what is wrong with their records, and their settings
    Ipam(IpamArguments),
    /// Show a running node's route table
    Routes {
        #[command(flatten)]
        node: NodeArguments,
        /// How to show it; wide has the Ethernet address, next hop and pool as well
        #[arg(short, long, value_enum, default_value = "table")]
        output: RouteFormat,
        /// Show it again whenever it changes, until Ctrl-C
        #[arg(short, long)]
        watch: bool,
        /// Seconds between looks, with --watch
        #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = interval)]
        interval: f64,
    },
    /// Show what a running node has counted
    Counters {
        #[command(flatten)]
        node: NodeArguments,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
        /// Show reasons to drop that have not occurred, too
        #[arg(long)]
        all: bool,
    },
    /// Show where the stations of a running node's bridges are
    Fdb {
        #[command(flatten)]
        node: NodeArguments,
        /// Only those of the bridge of this name
        #[arg(short, long, value_name = "NAME")]
        bridge: Option<String>,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Show how a running node and its parts are
    Status {
        #[command(flatten)]
        node: NodeArguments,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Give a workload an address and an interface, and take both back
    #[command(subcommand)]
    Workload(WorkloadVerb),
    /// Be a container runtime's network plugin (CNI); also what `underpass` is when CNI_COMMAND is set
    Cni,
    /// Look at the node that runs on this machine
    #[command(subcommand)]
    Node(NodeVerb),
    /// Show the sessions and tables of a running node's BGP speaker
    #[command(subcommand)]
    Bgp(BgpVerb),
    /// Ask a running node whether it is well; the exit code says so, for probes
    Health(HealthArguments),
    /// Find out how large a packet gets through to another node
    ProbeMtu {
        #[command(flatten)]
        node: NodeArguments,
        /// The other node's name, or any address behind it that answers a ping
        #[arg(value_name = "NODE|ADDRESS")]
        far: String,
        #[arg(short, long, value_enum, default_value = "table")]
        output: Format,
    },
    /// Have a running node forward by its fast path, or by its workers alone
    FastPath {
        #[command(flatten)]
        node: NodeArguments,
        /// Which of the two
        #[arg(value_enum)]
        switch: Switch,
    },
    /// Copy what crosses a running node's ports into a pcapng file, or print a line a packet
    Capture {
        #[command(flatten)]
        node: NodeArguments,
        #[command(flatten)]
        capture: CaptureArguments,
    },
    #[command(flatten)]
    Resource(ResourceVerb),
    /// Print what a shell needs to complete underpass's command lines
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
    /// Write a manual page for each verb
    Man {
        /// The directory for them
        #[arg(value_name = "DIRECTORY")]
        directory: PathBuf,
    },
    /// Measure what each mode costs on this machine, against the kernel's routing and others
    Bench(BenchArguments),
    /// Start a program in one of the bench's namespaces
    #[command(name = ENTER, hide = true)]
    BenchEnter(EnterArguments),
    /// Pass frames between two interfaces unchanged
    #[command(name = wire::VERB, hide = true)]
    BenchWire {
        /// The interfaces
        #[arg(num_args = 2)]
        interfaces: Vec<String>,
        /// How they move frames
        #[arg(long, value_enum, default_value = "auto")]
        io: IoName,
    },
    /// Print the version
    Version,
}

#[derive(Debug, Subcommand)]
pub enum WorkloadVerb {
    /// Assign an address, make the interface in the workload's network namespace, store the endpoint
    Add(WorkloadAddArguments),
    /// Undo that, or what there is of it
    Del {
        #[command(flatten)]
        which: WorkloadNameArguments,
        /// The node's end of its link, if not the usual name
        #[arg(long, value_name = "IF")]
        interface: Option<String>,
    },
    /// Show this node's workloads
    List {
        #[command(flatten)]
        on: WorkloadNodeArguments,
    },
    /// Show a workload's endpoint
    Show {
        #[command(flatten)]
        which: WorkloadNameArguments,
    },
}

/// Which workload is meant.
#[derive(Debug, Clone, Args)]
pub struct WorkloadNameArguments {
    /// The workload's name
    #[arg(value_name = "NAME")]
    pub name: String,
    /// Its namespace in the datastore
    #[arg(long, value_name = "NAMESPACE", default_value = "default")]
    pub namespace: String,
    /// Its interface's name inside
    #[arg(long, value_name = "IF", default_value = "eth0")]
    pub endpoint: String,
    #[command(flatten)]
    pub on: WorkloadNodeArguments,
}

/// The node that a workload is on.
#[derive(Debug, Clone, Args)]
pub struct WorkloadNodeArguments {
    /// The configuration of the node that it is on
    #[arg(long, value_name = "FILE", default_value = CONFIG)]
    pub config: PathBuf,
    /// The running node that it is on, by its name; its configuration is asked of it
    #[arg(long, value_name = "NAME", conflicts_with = "config")]
    pub node: Option<String>,
}

#[derive(Debug, Clone, Args)]
pub struct WorkloadAddArguments {
    #[command(flatten)]
    pub which: WorkloadNameArguments,
    /// The node's end of its link [default: cali and a hash of the name]
    #[arg(long, value_name = "IF")]
    pub interface: Option<String>,
    /// Its network namespace, by name or path [default: its name]
    #[arg(long, value_name = "NETNS")]
    pub netns: Option<String>,
    /// A pool to take the address from; may be given several times [default: any that fits]
    #[arg(long, value_name = "POOL")]
    pub pool: Vec<String>,
    /// The address that it is to have; one of each family at most [default: any free one]
    #[arg(long, value_name = "ADDRESS")]
    pub ip: Vec<IpAddr>,
    /// A label, KEY=VALUE; may be given several times
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
}

/// Where a node's configuration is by default.
const CONFIG: &str = "/etc/underpass/node.yaml";

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[derive(Debug, Subcommand)]
pub enum NodeVerb {
    /// Show whether it runs, its BGP sessions and what is odd about it
    Status {
        #[command(flatten)]
        node: NodeArguments,
    },
}

#[derive(Debug, Clone, Args)]
pub struct DoctorArguments {
    /// The node's configuration [default: /etc/underpass/node.yaml if it is there; else only the machine
    /// and its hardware are looked at]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Do not try XDP on devices, which takes some drivers' links down for a moment
    #[arg(long)]
    pub no_try: bool,
    /// Show what is in order, too
    #[arg(long)]
    pub all: bool,
    #[arg(short, long, value_enum, default_value = "table")]
    pub output: Format,
}

/// What to ask a node, and where. Without any question: whether it is live and ready.
#[derive(Debug, Clone, Args)]
pub struct HealthArguments {
    /// Whether every part of it runs, else it should be restarted
    #[arg(long)]
    pub live: bool,
    /// Whether every part of it does its work
    #[arg(long)]
    pub ready: bool,
    /// Whether its BGP sessions are established; a node without BGP has none to wait for
    #[arg(long)]
    pub bgp_ready: bool,
    /// The node that runs with this configuration
    #[arg(long, value_name = "FILE", conflicts_with = "address")]
    pub config: Option<PathBuf>,
    /// Where the node serves its health
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:9099")]
    pub address: SocketAddr,
}

/// Which running node is meant. Without any of these: the only one that runs here.
#[derive(Debug, Clone, Default, Args)]
#[group(multiple = false)]
pub struct NodeArguments {
    /// The node that runs with this configuration
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The node of this name
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// The node with this control socket
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Clone, Default, Args)]
pub struct CaptureArguments {
    /// A port to capture from; may be given several times [default: all]
    #[arg(short, long, value_name = "NAME", value_delimiter = ',')]
    pub port: Vec<String>,
    /// Write pcapng to this file, - for standard output
    #[arg(short, long, value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Print a line a packet, outer and inner header side by side, times in UTC [default without
    /// --write]
    #[arg(long)]
    pub print: bool,
    /// End after so many packets
    #[arg(short, long, value_name = "PACKETS", value_parser = clap::value_parser!(u64).range(1..))]
    pub count: Option<u64>,
    /// Copy at most so many bytes of each packet; 0 copies all
    #[arg(short, long, value_name = "BYTES", default_value = "0")]
    pub snaplen: usize,
    /// A UDP port on which VXLAN is spoken, beside 4789 and 8472
    #[arg(long, value_name = "PORT")]
    pub vxlan_port: Option<u16>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    On,
    Off,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RouteFormat {
    Table,
    Wide,
    Json,
}

fn interval(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (0.05..=3600.0).contains(&seconds) => Ok(seconds),
        _ => Err("write a number of seconds from 0.05 to 3600".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        use clap::CommandFactory;
        Arguments::command().debug_assert();
    }
}
