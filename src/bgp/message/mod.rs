//! Messages on the wire: framing and errors here, formats by `netgauze-bgp-pkt`.
//!
//! ```text
//!  0                   1                   2                   3
//! +---------------------------------------------------------------+
//! |                    marker: 16 times 255                       |
//! +-------------------------------+---------------+---------------+
//! |            length             |     type      |  body …
//! +-------------------------------+---------------+
//! ```
//!
//! The crate gives an UPDATE whole or an error. RFC 7606 wants malformed attributes told apart by what
//! becomes of the routes beside them, so UPDATEs are taken apart here and the crate reads one attribute
//! at a time. NOTIFICATIONs are two bytes and data, and any code must be shown, known or not.

pub(super) mod attribute;
pub(super) mod encode;
pub(super) mod notification;
pub(super) mod open;
pub(super) mod update;

pub(super) use notification::Notification;

/// Marker, length and type.
pub(super) const HEADER: usize = 19;
/// The longest message, and the longest once both have said so (RFC 8654).
pub(super) const LONGEST: usize = 4096;
pub(super) const LONGEST_EXTENDED: usize = 65535;

const SHORTEST_OPEN: usize = 29;
const SHORTEST_UPDATE: usize = 23;
const SHORTEST_NOTIFICATION: usize = 21;

/// An address family, always unicast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Family {
    V4,
    V6,
}

impl Family {
    pub(super) const ALL: [Self; 2] = [Self::V4, Self::V6];

    /// Its number in the registry of address families.
    pub(super) fn afi(self) -> u16 {
        match self {
            Self::V4 => 1,
            Self::V6 => 2,
        }
    }

    /// By the numbers of address family and subsequent address family.
    pub(super) fn of(afi: u16, safi: u8) -> Option<Self> {
        match (afi, safi) {
            (1, 1) => Some(Self::V4),
            (2, 1) => Some(Self::V6),
            _ => None,
        }
    }
}

/// A message's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Open,
    Update,
    Notification,
    Keepalive,
    Refresh,
}

impl Kind {
    fn of(code: u8) -> Option<Self> {
        Some(match code {
            1 => Self::Open,
            2 => Self::Update,
            3 => Self::Notification,
            4 => Self::Keepalive,
            5 => Self::Refresh,
            _ => return None,
        })
    }

    pub(super) fn code(self) -> u8 {
        match self {
            Self::Open => 1,
            Self::Update => 2,
            Self::Notification => 3,
            Self::Keepalive => 4,
            Self::Refresh => 5,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Open => "OPEN",
            Self::Update => "UPDATE",
            Self::Notification => "NOTIFICATION",
            Self::Keepalive => "KEEPALIVE",
            Self::Refresh => "ROUTE-REFRESH",
        }
    }
}

/// The header at the beginning of `bytes`: type and whole length; none while it is not all there. It is
/// judged as soon as it is there, however long the message claims to be (RFC 4271 §6.1).
pub(super) fn header(bytes: &[u8], longest: usize) -> Result<Option<(Kind, usize)>, Notification> {
    let Some(header) = bytes.first_chunk::<HEADER>() else {
        let marker = &bytes[..bytes.len().min(16)];
        return match marker.iter().all(|byte| *byte == 255) {
            true => Ok(None),
            false => Err(Notification::not_synchronized()),
        };
    };
    if header[..16] != [255; 16] {
        return Err(Notification::not_synchronized());
    }
    let length = u16::from_be_bytes([header[16], header[17]]);
    let long = usize::from(length);
    if !(HEADER..=longest).contains(&long) {
        return Err(Notification::bad_length(length));
    }
    let kind = Kind::of(header[18]).ok_or_else(|| Notification::bad_type(header[18]))?;
    let fits = match kind {
        Kind::Open => (SHORTEST_OPEN..=LONGEST).contains(&long),
        Kind::Update => long >= SHORTEST_UPDATE,
        Kind::Notification => long >= SHORTEST_NOTIFICATION,
        Kind::Keepalive => long == HEADER,
        // Its length has an error of its own (RFC 7313 §5).
        Kind::Refresh => true,
    };
    match fits {
        true => Ok(Some((kind, long))),
        false => Err(Notification::bad_length(length)),
    }
}

/// Appends a message.
pub(super) fn write(to: &mut Vec<u8>, kind: Kind, body: &[u8]) {
    let length = u16::try_from(HEADER + body.len()).expect("a body that fits");
    to.extend_from_slice(&[255; 16]);
    to.extend_from_slice(&length.to_be_bytes());
    to.push(kind.code());
    to.extend_from_slice(body);
}

/// A ROUTE-REFRESH (RFC 2918, RFC 7313).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refresh {
    pub(super) family: Option<Family>,
    pub(super) step: Step,
}

/// What a ROUTE-REFRESH says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Send your routes again.
    Request,
    /// All routes follow (BoRR).
    Begin,
    /// All routes have been sent (EoRR).
    End,
    /// To be ignored (RFC 7313 §5).
    Unknown,
}

impl Refresh {
    pub(super) fn read(body: &[u8]) -> Result<Self, Notification> {
        let &[high, low, step, safi] = body else {
            return Err(Notification::refresh_length(body));
        };
        let step = match step {
            0 => Step::Request,
            1 => Step::Begin,
            2 => Step::End,
            _ => Step::Unknown,
        };
        Ok(Self {
            family: Family::of(u16::from_be_bytes([high, low]), safi),
            step,
        })
    }

    pub(super) fn write(to: &mut Vec<u8>, family: Family, step: Step) {
        let step = match step {
            Step::Request | Step::Unknown => 0,
            Step::Begin => 1,
            Step::End => 2,
        };
        let [high, low] = family.afi().to_be_bytes();
        write(to, Kind::Refresh, &[high, low, step, 1]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn raw(length: u16, code: u8) -> Vec<u8> {
        let mut bytes = vec![255; 16];
        bytes.extend(length.to_be_bytes());
        bytes.push(code);
        bytes
    }

    /// RFC 4271 §6.1.
    #[test]
    fn header_errors_by_the_rfc() {
        for (length, code, longest, error) in [
            (18, 4, LONGEST, Some((1, 2, vec![0, 18]))),
            (20, 4, LONGEST, Some((1, 2, vec![0, 20]))),
            (4097, 2, LONGEST, Some((1, 2, vec![16, 1]))),
            (4097, 2, LONGEST_EXTENDED, None),
            (4097, 1, LONGEST_EXTENDED, Some((1, 2, vec![16, 1]))),
            (28, 1, LONGEST, Some((1, 2, vec![0, 28]))),
            (22, 2, LONGEST, Some((1, 2, vec![0, 22]))),
            (20, 3, LONGEST, Some((1, 2, vec![0, 20]))),
            (19, 0, LONGEST, Some((1, 3, vec![0]))),
            (19, 6, LONGEST, Some((1, 3, vec![6]))),
            (19, 4, LONGEST, None),
            (29, 1, LONGEST, None),
        ] {
            let found = header(&raw(length, code), longest).err();
            let found = found.map(|error| (error.code, error.subcode, error.data));
            assert_eq!(found, error, "length {length}, type {code}");
        }
    }

    #[test]
    fn a_wrong_marker_is_seen_at_once() {
        let error = header(&[255, 255, 0], LONGEST).unwrap_err();
        assert_eq!((error.code, error.subcode), (1, 1));
        assert_eq!(header(&[255; 18], LONGEST), Ok(None));
        let mut bytes = raw(19, 4);
        bytes[15] = 254;
        let error = header(&bytes, LONGEST).unwrap_err();
        assert_eq!((error.code, error.subcode), (1, 1));
    }

    #[test]
    fn refreshes() {
        let mut bytes = Vec::new();
        Refresh::write(&mut bytes, Family::V6, Step::Begin);
        assert_eq!(bytes[16..], [0, 23, 5, 0, 2, 1, 1]);
        let read = Refresh::read(&bytes[HEADER..]).unwrap();
        assert_eq!((read.family, read.step), (Some(Family::V6), Step::Begin));
        let error = Refresh::read(&[0, 1, 0]).unwrap_err();
        assert_eq!((error.code, error.subcode), (7, 1));
    }
}
