//! The Ethernet address of a node's VXLAN tunnel end point, derived from the node's name.
//!
//! As Calico derives it (felix, `calc/vxlan_resolver.go`): 66 and the first five bytes of SHA-1 over
//! the name; over the name and `-v6` for IPv6. Every node can thus reckon every other's.

use sha1::{Digest, Sha1};

use super::name::NodeName;
use crate::wire::MacAddr;

/// The address for VXLAN over IPv4.
pub fn vtep_mac(node: &NodeName) -> MacAddr {
    derive(node.as_str())
}

/// The address for VXLAN over IPv6.
pub fn vtep_mac_v6(node: &NodeName) -> MacAddr {
    derive(&format!("{node}-v6"))
}

fn derive(text: &str) -> MacAddr {
    let digest = Sha1::digest(text.as_bytes());
    let mut mac = MacAddr([0x66; 6]);
    mac.0[1..].copy_from_slice(&digest[..5]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn derives_what_calico_derives() {
        let name: NodeName = "remotehostname".parse().unwrap();
        assert_eq!(vtep_mac(&name).to_string(), "66:3e:ca:a4:db:65");
        // printf remotehostname-v6 | sha1sum
        assert_eq!(vtep_mac_v6(&name).to_string(), "66:a0:68:c9:4c:79");
        assert!(!vtep_mac(&name).is_multicast());
    }
}
