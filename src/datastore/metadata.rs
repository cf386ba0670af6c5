//! What a datastore itself writes into a resource's metadata.

use std::fs::File;
use std::io::Read;
use std::time::SystemTime;

use crate::resources::Resource;
use crate::resources::time::rfc3339;

/// Gives a new resource its identity and date, as Calico's client does.
pub(super) fn created(resource: &mut Resource) {
    if resource.kind().is_ipam_record() {
        return;
    }
    let metadata = resource.metadata_mut();
    metadata.resource_version = None;
    metadata.uid = metadata.uid.take().or_else(uuid);
    metadata.creation_timestamp = metadata
        .creation_timestamp
        .take()
        .or_else(|| Some(rfc3339(SystemTime::now())));
}

/// Keeps what a resource was given when it was created.
pub(super) fn updated(resource: &mut Resource, before: &Resource) {
    let before = before.metadata();
    let metadata = resource.metadata_mut();
    metadata.uid = metadata.uid.take().or_else(|| before.uid.clone());
    metadata.creation_timestamp = metadata
        .creation_timestamp
        .take()
        .or_else(|| before.creation_timestamp.clone());
}

/// A random UUID (RFC 9562, version 4); none if the kernel has no random numbers.
fn uuid() -> Option<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")
        .ok()?
        .read_exact(&mut bytes)
        .ok()?;
    let random = u128::from_be_bytes(bytes);
    let versioned = random & !(0xf << 76) | 4 << 76;
    let variant = versioned & !(0b11 << 62) | 0b10 << 62;
    let hex = format!("{variant:032x}");
    let parts = [
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..],
    ];
    Some(parts.join("-"))
}
