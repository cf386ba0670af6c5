//! Who listens at a TCP port, as far as the rights go to know it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The state of a socket that listens (`TCP_LISTEN`, include/net/tcp_states.h), as `/proc/net/tcp` has it.
const LISTEN: &str = "0A";

/// The process that listens at a TCP port in the calling thread's network namespace: `bird (process 123)`.
/// Without the right to look into other users' processes only one's own are found.
pub fn holder(port: u16) -> Option<String> {
    let mut inodes = BTreeSet::new();
    for table in ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().filter_map(|line| listener(line, port)));
    }
    if inodes.is_empty() {
        return None;
    }
    let processes = fs::read_dir("/proc").ok()?.flatten();
    let is_number = |name: &std::ffi::OsStr| name.as_encoded_bytes()[0].is_ascii_digit();
    processes
        .filter(|process| is_number(&process.file_name()))
        .map(|process| process.path())
        .find(|process| has_socket(process, &inodes))
        .map(|process| describe(&process))
}

/// A line's inode, if it is a socket that listens at the port.
fn listener(line: &str, port: u16) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == LISTEN && u16::from_str_radix(local, 16) == Ok(port);
    fields.get(9).filter(|_| listens)?.parse().ok()
}

fn has_socket(process: &Path, inodes: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = fs::read_dir(process.join("fd")) else {
        return false;
    };
    descriptors.flatten().any(|descriptor| {
        let target = fs::read_link(descriptor.path()).unwrap_or_default();
        let inode = target.to_str().and_then(|text| {
            text.strip_prefix("socket:[")?
                .strip_suffix(']')?
                .parse()
                .ok()
        });
        inode.is_some_and(|inode: u64| inodes.contains(&inode))
    })
}

fn describe(process: &Path) -> String {
    let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
    let number = process.file_name().unwrap_or_default().to_string_lossy();
    format!("{} (process {number})", name.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listener_is_found_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let own = format!("(process {})", std::process::id());
        assert!(holder(port).is_some_and(|holder| holder.ends_with(&own)));
        drop(listener);
        assert_eq!(holder(port), None);
    }

    #[test]
    fn lines_of_the_kernels_table() {
        let listens = "   0: 00000000:00B3 00000000:0000 0A 00000000:00000000 00:00000000 00000000 \
                       0 0 4711 1 0000 100 0 0 10 0";
        assert_eq!(super::listener(listens, 179), Some(4711));
        assert_eq!(super::listener(listens, 180), None);
        assert_eq!(super::listener(&listens.replace(" 0A ", " 01 "), 179), None);
        assert_eq!(
            super::listener("  sl  local_address rem_address   st", 179),
            None
        );
    }
}
