//! The node that benchmarks of the control plane are for.

use underpass::control::apply::Fixed;
use underpass::forward::{
    Dscp, FromWorkloads, OuterTtl, PortConfig, PortRole, TunnelMtus, WorkloadSources,
};
use underpass::packet::{Link, PortId};
use underpass::wire::{MacAddr, Vni};

/// An uplink and 300 workload ports, `cali0` and so on.
pub fn fixed() -> Fixed {
    let port = |id, role| PortConfig {
        id: PortId(id),
        role,
        link: Link::Ethernet(MacAddr([2, 0, 0, 0, 0, id as u8])),
        sources: WorkloadSources::default(),
        partial_checksums: false,
    };
    let workloads = 1..=300;
    let interfaces = workloads
        .clone()
        .map(|id| (format!("cali{}", id - 1), PortId(id)));
    let mut ports = vec![port(0, PortRole::Uplink)];
    ports.extend(workloads.map(|id| port(id, PortRole::Workload)));
    Fixed {
        ports,
        workload_ports: interfaces.collect(),
        uplink: (PortId(0), MacAddr([2, 0, 0, 0, 0, 0])),
        host: None,
        vxlan_port: 4789,
        vni: Vni::CALICO,
        also: (4789, Vni::CALICO),
        strict_reserved_bits: false,
        ttl: OuterTtl::Fixed(64),
        dscp: Dscp::Inherit,
        tunnel_mtus: TunnelMtus::default(),
        from_workloads: FromWorkloads::default(),
        udp_zero_checksum_v6: false,
        fence: Default::default(),
    }
}
