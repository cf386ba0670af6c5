//! Two nodes with a workload each, in namespaces of their own.
//!
//! ```text
//!   workload A            node A                            node B            workload B
//!  ┌──────────┐      ┌──────────────┐                  ┌──────────────┐      ┌──────────┐
//!  │    eth ──┼──────┼─ cali   up ──┼──────────────────┼─ up   cali ──┼──────┼── eth    │
//!  └──────────┘      └──────────────┘                  └──────────────┘      └──────────┘
//!  192.168.0.10      10.30.0.11                        10.30.0.12      192.168.128.0 and on
//!
//!  encap  generator → [node A] → sink at node B's end of the link
//!  decap  sink ← [node A] ← generator at node B's end of the link
//!  path   generator → [node A] → [node B] → sink
//! ```
//!
//! In `encap` and `decap` one node is measured, and the other end of its uplink is the sink or the
//! generator, which sees and makes the tunnel's packets. Device names are unique on the machine, so
//! that a kernel thread's name tells whose it is.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::cpu;
use super::error::Result;
use super::load::profile::{FrameSize, Profile, Tunnel};
use super::namespace::{Namespace, pin};
use crate::kernel::{Ethtool, Mirror};
use crate::wire::{MacAddr, Vni};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// One node, from its workload to its uplink.
    Encap,
    /// One node, from its uplink to its workload.
    Decap,
    /// Both nodes, from workload to workload.
    Path,
}

impl Direction {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Encap, Self::Decap, Self::Path];

    /// Its name in tables and on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Encap => "encap",
            Self::Decap => "decap",
            Self::Path => "path",
        }
    }
}

/// The tunnel between the nodes, as packets on the uplink show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outer {
    /// None.
    Plain,
    /// IP-in-IP.
    Ipip,
    /// VXLAN.
    Vxlan,
}

/// One node and its workload.
#[derive(Debug)]
pub struct Site {
    /// `a` or `b`, also the node's name.
    pub name: &'static str,
    /// The node's namespace.
    pub node: Namespace,
    /// Its workload's.
    pub workload: Namespace,
    /// The node's device towards its workload.
    pub port: String,
    /// The node's device towards the other node.
    pub uplink: String,
    /// The workload's device.
    pub eth: String,
    /// The node's address on the uplink.
    pub address: Ipv4Addr,
    /// The address of the node's VXLAN device.
    pub tunnel_address: Ipv4Addr,
    /// The first of the workload's addresses.
    pub workload_address: Ipv4Addr,
    number: u8,
}

/// The whole.
#[derive(Debug)]
pub struct Topology {
    /// The node that is measured.
    pub a: Site,
    /// The other one.
    pub b: Site,
}

/// The gateway of every workload, as in Calico.
pub const GATEWAY: Ipv4Addr = Ipv4Addr::new(169, 254, 1, 1);

/// Where workloads' addresses come from.
pub const POOL: &str = "192.168.0.0/16";

/// The MTU of workloads: a 1500-byte link less VXLAN's 50, whatever the mode, so that all modes carry
/// the same packets.
pub const WORKLOAD_MTU: u16 = 1450;

impl Topology {
    /// Builds it.
    pub fn build() -> Result<Self> {
        let tag = std::process::id() % 100_000;
        let site = |name, number: u8| -> Result<Site> {
            Ok(Site {
                name,
                node: Namespace::new(if number == 1 { "node A" } else { "node B" })?,
                workload: Namespace::new(if number == 1 {
                    "workload A"
                } else {
                    "workload B"
                })?,
                port: format!("cali{name}{tag}"),
                uplink: format!("up{name}{tag}"),
                eth: format!("eth{name}{tag}"),
                address: Ipv4Addr::new(10, 30, 0, 10 + number),
                tunnel_address: Ipv4Addr::new(192, 168, 128 * (number - 1), 1),
                workload_address: Ipv4Addr::new(192, 168, 128 * (number - 1) + 64, 0),
                number,
            })
        };
        let topology = Self {
            a: site("a", 1)?,
            b: site("b", 2)?,
        };
        topology.link()?;
        for (own, other) in [(&topology.a, &topology.b), (&topology.b, &topology.a)] {
            own.settle(other)?;
        }
        Ok(topology)
    }

    /// Where packets are sent from: the namespace and its device.
    pub fn generator(&self, direction: Direction) -> (&Namespace, &str) {
        match direction {
            Direction::Encap | Direction::Path => (&self.a.workload, &self.a.eth),
            Direction::Decap => (&self.b.node, &self.b.uplink),
        }
    }

    /// Where packets arrive.
    pub fn sink(&self, direction: Direction) -> (&Namespace, &str) {
        match direction {
            Direction::Encap => (&self.b.node, &self.b.uplink),
            Direction::Decap => (&self.a.workload, &self.a.eth),
            Direction::Path => (&self.b.workload, &self.b.eth),
        }
    }

    /// The device of a node under test that packets come in by first.
    pub fn ingress(&self, direction: Direction) -> (&Namespace, &str) {
        match direction {
            Direction::Encap | Direction::Path => (&self.a.node, &self.a.port),
            Direction::Decap => (&self.a.node, &self.a.uplink),
        }
    }

    /// The nodes under test.
    pub fn nodes(&self, direction: Direction) -> Vec<&Site> {
        match direction {
            Direction::Encap | Direction::Decap => vec![&self.a],
            Direction::Path => vec![&self.a, &self.b],
        }
    }

    /// The packets that the generator makes.
    pub fn profile(
        &self,
        direction: Direction,
        outer: Outer,
        size: FrameSize,
        flows: u32,
        destinations: u32,
    ) -> Profile {
        let (from, to) = match direction {
            Direction::Encap | Direction::Path => (&self.a, &self.b),
            Direction::Decap => (&self.b, &self.a),
        };
        let ethernet = match direction {
            Direction::Encap | Direction::Path => (from.eth_mac(), from.port_mac()),
            Direction::Decap => (from.uplink_mac(), to.uplink_mac()),
        };
        let (source, destination) = (from.address, to.address);
        let tunnel = match (direction, outer) {
            (Direction::Decap, Outer::Ipip) => Some(Tunnel::Ipip {
                source,
                destination,
            }),
            (Direction::Decap, Outer::Vxlan) => Some(Tunnel::Vxlan {
                source,
                destination,
                vni: Vni::CALICO,
                ethernet: (from.vtep_mac(), to.vtep_mac()),
            }),
            _ => None,
        };
        Profile {
            ethernet,
            source: from.workload_address,
            destination: to.workload_address,
            destinations,
            flows,
            size,
            tunnel,
        }
    }

    fn link(&self) -> Result<()> {
        let (a, b) = (&self.a, &self.b);
        for site in [a, b] {
            site.node.ip(&format!(
                "link add {} address {} numrxqueues 1 numtxqueues 1 mtu {WORKLOAD_MTU} type veth \
                 peer name {} address {} numrxqueues 1 numtxqueues 1 mtu {WORKLOAD_MTU} netns {}\n",
                site.port,
                site.port_mac(),
                site.eth,
                site.eth_mac(),
                site.workload.path().display(),
            ))?;
        }
        a.node.ip(&format!(
            "link add {} address {} numrxqueues 1 numtxqueues 1 mtu 1500 type veth \
             peer name {} address {} numrxqueues 1 numtxqueues 1 mtu 1500 netns {}\n",
            a.uplink,
            a.uplink_mac(),
            b.uplink,
            b.uplink_mac(),
            b.node.path().display(),
        ))
    }
}

impl Site {
    /// The node's device towards the workload.
    pub fn port_mac(&self) -> MacAddr {
        self.mac(1)
    }

    /// The workload's device.
    pub fn eth_mac(&self) -> MacAddr {
        self.mac(2)
    }

    /// The node's uplink.
    pub fn uplink_mac(&self) -> MacAddr {
        self.mac(3)
    }

    /// The node's VXLAN tunnel end point.
    pub fn vtep_mac(&self) -> MacAddr {
        self.mac(4)
    }

    fn mac(&self, device: u8) -> MacAddr {
        MacAddr([0x02, 0, 0, 0, self.number, device])
    }

    /// Addresses, neighbours and routes that every system under test finds there.
    fn settle(&self, other: &Self) -> Result<()> {
        for namespace in [&self.node, &self.workload] {
            for setting in ["all", "default"] {
                let conf = format!("/proc/sys/net/ipv4/conf/{setting}");
                namespace.write(&format!("{conf}/rp_filter"), "0")?;
                namespace.write(&format!("{conf}/send_redirects"), "0")?;
                // A kernel without IPv6 has nothing to switch off.
                let ipv6 = format!("/proc/sys/net/ipv6/conf/{setting}/disable_ipv6");
                let _ = namespace.write(&ipv6, "1");
            }
        }
        self.workload.ip(&format!(
            "addr add {address}/32 dev {eth}\n\
             link set {eth} up\n\
             neigh replace {GATEWAY} lladdr {mac} dev {eth} nud permanent\n\
             route add default via {GATEWAY} dev {eth} onlink\n",
            address = self.workload_address,
            eth = self.eth,
            mac = self.port_mac(),
        ))?;
        self.node.ip(&format!(
            "link set {port} up\n\
             addr add {address}/24 dev {uplink}\n\
             link set {uplink} up\n\
             neigh replace {far} lladdr {far_mac} dev {uplink} nud permanent\n\
             neigh replace {workload} lladdr {workload_mac} dev {port} nud permanent\n",
            port = self.port,
            uplink = self.uplink,
            address = self.address,
            far = other.address,
            far_mac = other.uplink_mac(),
            workload = self.workload_address,
            workload_mac = self.eth_mac(),
        ))?;
        self.set_offloads(false)
    }

    /// Switches checksum and segmentation offloads of the node's and the workload's devices; GRO
    /// stays off where nothing needs it.
    pub fn set_offloads(&self, on: bool) -> Result<()> {
        for (namespace, devices) in [
            (&self.node, vec![&self.port, &self.uplink]),
            (&self.workload, vec![&self.eth]),
        ] {
            namespace.run(|| {
                let (mirror, mut ethtool) = tools()?;
                for device in devices {
                    let Some(link) = mirror.link_named(device) else {
                        continue;
                    };
                    if on {
                        let names = ["tx-checksum-ip-generic", "tx-tcp-segmentation"];
                        // What a kernel's veth lacks it lacks for every system alike.
                        let _ = ethtool.set_features(link, &names, true);
                    } else {
                        ethtool.disable_tx_offloads(link).map_err(kernel)?;
                    }
                    ethtool.set_gro(link, on).map_err(kernel)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Switches NAPI on for the node's devices, which a kernel that forwards needs to be sent
    /// redirected frames: veth has it with GRO or an XDP program.
    pub fn enable_napi(&self) -> Result<()> {
        self.node.run(|| {
            let (mirror, mut ethtool) = tools()?;
            for device in [&self.port, &self.uplink] {
                if let Some(link) = mirror.link_named(device) {
                    ethtool.set_gro(link, true).map_err(kernel)?;
                }
            }
            Ok(())
        })
    }

    /// Switches NAPI on for the workload's device as well, to which a fast path redirects.
    pub fn enable_workload_napi(&self) -> Result<()> {
        self.workload.run(|| {
            let (mirror, mut ethtool) = tools()?;
            match mirror.link_named(&self.eth) {
                Some(link) => ethtool.set_gro(link, true).map_err(kernel),
                None => Ok(()),
            }
        })
    }

    /// Has the node's devices receive in kernel threads of their own, tied to one CPU.
    pub fn thread_napi(&self, cpu: usize) -> Result<Vec<nix::unistd::Pid>> {
        let mut threads = Vec::new();
        for device in [&self.port, &self.uplink] {
            self.node
                .write(&format!("/sys/class/net/{device}/threaded"), "1")?;
            let prefix = format!("napi/{device}");
            for pid in cpu::kernel_threads(|name| name.starts_with(&prefix[..prefix.len().min(15)]))
                .into_values()
            {
                pin(pid, cpu)?;
                threads.push(pid);
            }
        }
        Ok(threads)
    }
}

fn tools() -> Result<(Mirror, Ethtool)> {
    Ok((
        Mirror::open().map_err(kernel)?,
        Ethtool::open().map_err(kernel)?,
    ))
}

fn kernel(error: crate::kernel::Error) -> super::error::BenchError {
    super::error::BenchError::Load(error.to_string())
}
