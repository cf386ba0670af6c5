//! Names: of resources, nodes and interfaces.

use std::fmt;
use std::str::FromStr;

use super::problem::Fault;
use super::text::by_text;

/// A resource's name: a DNS subdomain (RFC 1123) in lower case, at most 253 characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A node's name: the name of its Node resource.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Name);

/// A network device's name: what Linux allows (`dev_valid_name`), at most 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InterfaceName(String);

/// A text that is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Not a DNS subdomain.
    #[error(
        "'{0}' is not a name; write at most 253 lower-case letters, digits, '-' and '.', \
         with a letter or digit at the start and end of each part"
    )]
    Subdomain(String),
    /// Not a device's name.
    #[error(
        "'{0}' is not an interface's name; write 1 to 15 bytes without '/', ':' and spaces, \
         such as eth0"
    )]
    Interface(String),
}

by_text!(Name, NodeName, InterfaceName);

impl Name {
    /// The name of what is there without being made: a namespace, a tier, a configuration.
    pub fn default_name() -> Self {
        Self("default".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl NodeName {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl InterfaceName {
    /// The name of the kernel's own IP-in-IP device, which operators look for.
    pub(crate) fn tunl0() -> Self {
        Self("tunl0".to_owned())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What Calico does not take though the kernel would; `*` stands for all, where that is allowed.
    pub(super) fn check(&self, faults: &mut Vec<Fault>, field: &str, all: bool) {
        let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if !(all && self.0 == "*" || self.0.chars().all(inner)) {
            faults.push(Fault::new(
                field,
                format!("'{self}' is not an interface's name"),
                "write 1 to 15 letters, digits, '_', '.' and '-'",
            ));
        }
    }
}

impl From<Name> for NodeName {
    fn from(name: Name) -> Self {
        Self(name)
    }
}

impl From<NodeName> for Name {
    fn from(name: NodeName) -> Self {
        name.0
    }
}

impl FromStr for Name {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let valid = |part: &str| {
            !part.is_empty()
                && !part.starts_with('-')
                && !part.ends_with('-')
                && part.bytes().all(inner)
        };
        if text.len() <= 253 && text.split('.').all(valid) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Subdomain(text.to_owned()))
        }
    }
}

impl FromStr for NodeName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        text.parse().map(Self)
    }
}

impl FromStr for InterfaceName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let refused = |c: char| c == '/' || c == ':' || c == '\0' || c.is_whitespace();
        let valid = (1..=15).contains(&text.len())
            && text != "."
            && text != ".."
            && !text.contains(refused);
        if valid {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Interface(text.to_owned()))
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for InterfaceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_subdomains() {
        for good in [
            "a",
            "node-1",
            "my.ippool-1",
            "10-65-0-0-26",
            "node1-k8s-my--nginx-eth0",
        ] {
            assert_eq!(good.parse::<Name>().unwrap().as_str(), good);
        }
        let long = "a".repeat(254);
        for bad in [
            "", "Node1", "-a", "a-", "a..b", "a_b", ".", "a/b", "é", &long,
        ] {
            assert!(bad.parse::<NodeName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn interfaces_are_named_as_the_kernel_allows() {
        for good in ["eth0", "cali0ef24ba", "a.b", "fifteen-bytes-x"] {
            assert_eq!(good.parse::<InterfaceName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "a/b", "a:1", "a b", "sixteen-bytes-xx"] {
            assert!(bad.parse::<InterfaceName>().is_err(), "{bad}");
        }
    }
}
