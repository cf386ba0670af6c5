//! Whether packets get through to another node as they are, in IP-in-IP and in VXLAN, whichever of them
//! is in use: the far node takes each of them at any time. The answer comes back the way that the far node
//! has for it.

use std::net::IpAddr;

use super::{LEAST, Outcome, Prober, Target};
use crate::control::apply::Forwarding;
use crate::forward::{Egress, Encapsulation, Snapshot, TunnelHeader};
use crate::observe::report::{Way, WayOutcome, WaysReport};

impl Prober {
    /// Sends an echo request in each encapsulation, beginning with the one in use: up to 5 s.
    pub fn try_ways(&self, target: &Target) -> Result<WaysReport, String> {
        let mut ways = Vec::new();
        for egress in std::iter::once(&target.egress).chain(&target.others) {
            let way = Target {
                egress: egress.clone(),
                ..target.clone()
            };
            ways.push(Way {
                encapsulation: name(egress.encapsulation).to_owned(),
                outcome: match self.try_once(&way)? {
                    Outcome::Answered | Outcome::TooBig(..) | Outcome::TooBigBehind(..) => {
                        WayOutcome::Answered
                    }
                    Outcome::Refused(by, code) => WayOutcome::Refused { by, code },
                    Outcome::Lost => WayOutcome::Lost,
                },
            });
        }
        Ok(WaysReport {
            destination: target.destination,
            node: target.node.clone(),
            far_end: target.far_end,
            ways,
        })
    }

    fn try_once(&self, target: &Target) -> Result<Outcome, String> {
        let mut frame = self.frame.lock().map_err(|error| error.to_string())?;
        let capture = self.attach(target)?;
        self.probe_of(target, &capture, &mut frame).try_size(LEAST)
    }
}

/// The other ways to the far end of `egress`, which is the one in use. Over IPv6 there is no other that
/// both ends know of.
pub(super) fn others(
    forwarding: &Forwarding,
    snapshot: &Snapshot,
    egress: &Egress,
    far_end: IpAddr,
) -> Vec<Egress> {
    let (IpAddr::V4(far_end), Some(source)) = (far_end, snapshot.tunnels.node_address) else {
        return Vec::new();
    };
    let Some(router) = egress.link_destination() else {
        return Vec::new();
    };
    let fixed = forwarding.fixed();
    let (port, own) = fixed.uplink;
    let tunnel = |vxlan| {
        let header = TunnelHeader {
            source,
            far_end,
            vxlan,
        };
        Egress::tunnel(port, egress.mtu, own, router, &header).marking(fixed.ttl, fixed.dscp)
    };
    let peer = forwarding.wanted().peers.get(&IpAddr::V4(far_end));
    let vxlan = peer.map(|peer| {
        let own = snapshot.tunnels.vtep_mac;
        tunnel(Some((fixed.vni, fixed.vxlan_port, own, peer.vtep_mac)))
    });
    let all = [
        Some(Egress::ethernet(port, egress.mtu, own, router)),
        Some(tunnel(None)),
        vxlan,
    ];
    let all = all.into_iter().flatten();
    all.filter(|other| other.encapsulation != egress.encapsulation)
        .collect()
}

fn name(encapsulation: Encapsulation) -> &'static str {
    match encapsulation {
        Encapsulation::None => "direct",
        Encapsulation::Ipip => "ipip",
        Encapsulation::Vxlan | Encapsulation::VxlanOverIpv6 => "vxlan",
    }
}
