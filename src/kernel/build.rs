//! Which kernel runs, and what it was built with.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;

use flate2::read::GzDecoder;

/// The release, as `uname -r` says it; empty if it is not known.
pub fn release() -> String {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    text.trim().to_owned()
}

/// The first two numbers of a release.
pub fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.');
    let major = numbers.next()?.parse().ok()?;
    let minor = numbers.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit());
    let minor = minor[..digits.unwrap_or(minor.len())].parse().ok()?;
    Some((major, minor))
}

/// The options that are set to y or m, if the kernel says (`/proc/config.gz`) or its package does
/// (`/boot/config-RELEASE`).
pub fn options(release: &str) -> Option<BTreeMap<String, String>> {
    let compressed = fs::File::open("/proc/config.gz").ok().and_then(|file| {
        let mut text = String::new();
        GzDecoder::new(file).read_to_string(&mut text).ok()?;
        Some(text)
    });
    let text = compressed.or_else(|| fs::read_to_string(format!("/boot/config-{release}")).ok())?;
    let options = text.lines().filter_map(|line| line.split_once('='));
    let set = options.filter(|(_, value)| matches!(*value, "y" | "m"));
    Some(
        set.map(|(option, value)| (option.to_owned(), value.to_owned()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_begins_with_its_version() {
        assert_eq!(version("6.12.117+deb12-cloud-amd64"), Some((6, 12)));
        assert_eq!(version("5.4-custom"), Some((5, 4)));
        assert_eq!(version(""), None);
    }
}
