//! Settings under `/proc/sys/net`, put back when we are done (kernel,
//! Documentation/networking/ip-sysctl.rst).

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};

use super::{Error, Result};

/// Settings that were changed, with their former values, which return when this is dropped: the last
/// change first. [`Sysctls::keep`] lets the new ones stay.
///
/// A setting is that of the network namespace in which it was changed, wherever the drop happens.
#[derive(Debug, Default)]
pub struct Sysctls {
    changed: Vec<Changed>,
}

#[derive(Debug)]
struct Changed {
    key: String,
    /// The open file stands for the namespace.
    file: File,
    former: String,
}

impl Sysctls {
    /// A record without changes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets `key`, a path below `/proc/sys/net` such as `ipv4/ip_forward`, and returns the former
    /// value. Nothing is written or recorded if it has the value already.
    pub fn set(&mut self, key: &str, value: &str) -> Result<String> {
        let failed = |source| Error::io(format!("setting {key} to {value}"), source);
        let mut file = open(key, true)?;
        let former = read_value(&mut file).map_err(failed)?;
        if former != value {
            write_value(&mut file, value).map_err(failed)?;
            self.changed.push(Changed {
                key: key.to_owned(),
                file,
                former: former.clone(),
            });
        }
        Ok(former)
    }

    /// Whether the host forwards IPv4 packets. Changing it resets forwarding on all interfaces.
    pub fn set_ipv4_forwarding(&mut self, on: bool) -> Result<String> {
        self.set("ipv4/ip_forward", flag(on))
    }

    /// Whether the host forwards IPv6 packets; a host that does takes no router's word for routes.
    pub fn set_ipv6_forwarding(&mut self, on: bool) -> Result<String> {
        self.set("ipv6/conf/all/forwarding", flag(on))
    }

    /// How an interface judges the sources of IPv4 packets: 0 not, 1 strictly, 2 loosely. The larger
    /// of this and `all`'s value counts.
    pub fn set_rp_filter(&mut self, interface: &str, mode: u8) -> Result<String> {
        let key = interface_key("ipv4", interface, "rp_filter")?;
        self.set(&key, &mode.to_string())
    }

    /// Whether an interface answers ARP requests for addresses that the host would forward to.
    pub fn set_proxy_arp(&mut self, interface: &str, on: bool) -> Result<String> {
        let key = interface_key("ipv4", interface, "proxy_arp")?;
        self.set(&key, flag(on))
    }

    /// Whether an interface has no IPv6 at all.
    pub fn set_ipv6_disabled(&mut self, interface: &str, disabled: bool) -> Result<String> {
        let key = interface_key("ipv6", interface, "disable_ipv6")?;
        self.set(&key, flag(disabled))
    }

    /// Lets the changes stay.
    pub fn keep(mut self) {
        self.changed.clear();
    }
}

impl Drop for Sysctls {
    fn drop(&mut self) {
        while let Some(mut changed) = self.changed.pop() {
            // The interface may be gone, and its settings with it.
            if let Err(error) = write_value(&mut changed.file, &changed.former) {
                log::debug!(
                    "setting {} back to {}: {error}",
                    changed.key,
                    changed.former
                );
            }
        }
    }
}

/// The value of a setting, by its path below `/proc/sys/net`.
pub fn read(key: &str) -> Result<String> {
    let mut file = open(key, false)?;
    read_value(&mut file).map_err(|source| Error::io(format!("reading {key}"), source))
}

/// The path of an interface's setting: `ipv4/conf/INTERFACE/NAME`. The interface may also be `all` or
/// `default`.
///
/// # Errors
/// If the interface's name would lead elsewhere.
pub fn interface_key(family: &str, interface: &str, name: &str) -> Result<String> {
    if interface.is_empty() || interface.contains('/') || interface.starts_with("..") {
        return Err(Error::Invalid(format!(
            "'{interface}' is no interface's name"
        )));
    }
    Ok(format!("{family}/conf/{interface}/{name}"))
}

fn flag(on: bool) -> &'static str {
    if on { "1" } else { "0" }
}

fn open(key: &str, write: bool) -> Result<File> {
    let path = format!("/proc/sys/net/{key}");
    let file = OpenOptions::new().read(true).write(write).open(&path);
    file.map_err(|source| Error::io(format!("opening {path}"), source))
}

fn read_value(file: &mut File) -> io::Result<String> {
    let mut text = String::new();
    file.rewind()?;
    file.read_to_string(&mut text)?;
    text.truncate(text.trim_end().len());
    Ok(text)
}

/// Writes in one call: the kernel takes each write for a whole value.
fn write_value(file: &mut File, value: &str) -> io::Result<()> {
    file.rewind()?;
    let written = file.write(value.as_bytes())?;
    if written == value.len() {
        return Ok(());
    }
    Err(io::ErrorKind::WriteZero.into())
}
