//! NOTIFICATION: why a session ends (RFC 4271 §4.5 and §6, RFC 4486, RFC 6608, RFC 9003).

use std::fmt;

use super::{HEADER, Kind, write};

/// Codes (https://www.iana.org/assignments/bgp-parameters).
pub(in crate::bgp) mod code {
    pub const HEADER: u8 = 1;
    pub const OPEN: u8 = 2;
    pub const UPDATE: u8 = 3;
    pub const HOLD_TIMER: u8 = 4;
    pub const FSM: u8 = 5;
    pub const CEASE: u8 = 6;
    pub const REFRESH: u8 = 7;
    pub const SEND_HOLD_TIMER: u8 = 8;
}

/// Subcodes of Cease.
pub(in crate::bgp) mod cease {
    pub const MAX_PREFIXES: u8 = 1;
    pub const SHUTDOWN: u8 = 2;
    pub const DECONFIGURED: u8 = 3;
    pub const RESET: u8 = 4;
    pub const CONFIGURATION: u8 = 6;
    pub const COLLISION: u8 = 7;
    pub const HARD_RESET: u8 = 9;
}

/// Why a session ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::bgp) struct Notification {
    pub(in crate::bgp) code: u8,
    pub(in crate::bgp) subcode: u8,
    pub(in crate::bgp) data: Vec<u8>,
    /// What a person should know besides; never sent.
    pub(in crate::bgp) detail: String,
}

impl Notification {
    pub(in crate::bgp) fn new(code: u8, subcode: u8) -> Self {
        Self {
            code,
            subcode,
            data: Vec::new(),
            detail: String::new(),
        }
    }

    pub(in crate::bgp) fn with_data(self, data: impl Into<Vec<u8>>) -> Self {
        Self {
            data: data.into(),
            ..self
        }
    }

    pub(in crate::bgp) fn detail(self, detail: impl Into<String>) -> Self {
        Self {
            detail: detail.into(),
            ..self
        }
    }

    pub(super) fn not_synchronized() -> Self {
        Self::new(code::HEADER, 1)
    }

    pub(super) fn bad_length(length: u16) -> Self {
        Self::new(code::HEADER, 2)
            .with_data(length.to_be_bytes())
            .detail(format!("{length} bytes"))
    }

    pub(super) fn bad_type(kind: u8) -> Self {
        Self::new(code::HEADER, 3)
            .with_data([kind])
            .detail(format!("{kind}"))
    }

    /// The data is the whole message (RFC 7313 §5).
    pub(super) fn refresh_length(body: &[u8]) -> Self {
        let mut message = Vec::with_capacity(HEADER + body.len());
        write(&mut message, Kind::Refresh, body);
        Self::new(code::REFRESH, 1).with_data(message)
    }

    pub(in crate::bgp) fn hold_timer() -> Self {
        Self::new(code::HOLD_TIMER, 0)
    }

    /// Cease with a text for the peer's operator (RFC 9003), cut at a character's end.
    pub(in crate::bgp) fn cease(subcode: u8, text: &str) -> Self {
        let notification = Self::new(code::CEASE, subcode);
        if !matches!(subcode, cease::SHUTDOWN | cease::RESET) || text.is_empty() {
            return notification.detail(text);
        }
        let mut end = text.len().min(255);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let mut data = vec![end as u8];
        data.extend_from_slice(&text.as_bytes()[..end]);
        notification.with_data(data)
    }

    /// The same as a Hard Reset, which it is for peers that would keep routes otherwise; its data is what
    /// would have been said (RFC 8538 §3.1).
    pub(in crate::bgp) fn hardened(self) -> Self {
        let mut data = vec![self.code, self.subcode];
        data.extend_from_slice(&self.data);
        Self {
            code: code::CEASE,
            subcode: cease::HARD_RESET,
            data,
            detail: self.detail,
        }
    }

    /// What a Hard Reset was made of, if it says that.
    fn within(&self) -> Option<Self> {
        (self.is_hard_reset() && self.data.len() >= 2).then(|| Self::read(&self.data))
    }

    /// Whether routes go even where they are kept after a NOTIFICATION otherwise.
    pub(in crate::bgp) fn is_hard_reset(&self) -> bool {
        (self.code, self.subcode) == (code::CEASE, cease::HARD_RESET)
    }

    /// Reads a body, of which the header's check leaves two bytes at least.
    pub(in crate::bgp) fn read(body: &[u8]) -> Self {
        let byte = |nth: usize| body.get(nth).copied().unwrap_or(0);
        Self::new(byte(0), byte(1)).with_data(body.get(2..).unwrap_or_default())
    }

    /// Appends the message, its data cut to what a message may hold.
    pub(in crate::bgp) fn write(&self, to: &mut Vec<u8>) {
        let mut body = vec![self.code, self.subcode];
        let room = super::LONGEST - HEADER - body.len();
        body.extend_from_slice(&self.data[..self.data.len().min(room)]);
        write(to, Kind::Notification, &body);
    }

    /// The text that came with a shutdown or reset, made safe for a terminal.
    fn communication(&self) -> Option<String> {
        if self.code != code::CEASE || !matches!(self.subcode, cease::SHUTDOWN | cease::RESET) {
            return None;
        }
        let (length, rest) = self.data.split_first()?;
        let text = rest.get(..usize::from(*length))?;
        let text = String::from_utf8_lossy(text);
        let safe = text.chars().map(|c| if c.is_control() { '.' } else { c });
        (!text.is_empty()).then(|| safe.collect())
    }

    fn name(&self) -> &'static str {
        match (self.code, self.subcode) {
            (code::HEADER, 1) => "Connection not synchronized",
            (code::HEADER, 2) => "Bad message length",
            (code::HEADER, 3) => "Bad message type",
            (code::HEADER, _) => "Message header error",
            (code::OPEN, 1) => "Unsupported version number",
            (code::OPEN, 2) => "Bad peer AS",
            (code::OPEN, 3) => "Bad BGP identifier",
            (code::OPEN, 4) => "Unsupported optional parameter",
            (code::OPEN, 6) => "Unacceptable hold time",
            (code::OPEN, 7) => "Required capability missing",
            (code::OPEN, _) => "OPEN message error",
            (code::UPDATE, 1) => "Malformed attribute list",
            (code::UPDATE, 2) => "Unrecognized well-known attribute",
            (code::UPDATE, 3) => "Missing mandatory attribute",
            (code::UPDATE, 4) => "Invalid attribute flags",
            (code::UPDATE, 5) => "Invalid attribute length",
            (code::UPDATE, 6) => "Invalid ORIGIN attribute",
            (code::UPDATE, 8) => "Invalid NEXT_HOP attribute",
            (code::UPDATE, 9) => "Optional attribute error",
            (code::UPDATE, 10) => "Invalid network field",
            (code::UPDATE, 11) => "Malformed AS_PATH",
            (code::UPDATE, _) => "UPDATE message error",
            (code::HOLD_TIMER, _) => "Hold timer expired",
            (code::FSM, 1) => "Unexpected message in OpenSent state",
            (code::FSM, 2) => "Unexpected message in OpenConfirm state",
            (code::FSM, 3) => "Unexpected message in Established state",
            (code::FSM, _) => "Finite state machine error",
            (code::CEASE, cease::MAX_PREFIXES) => "Maximum number of prefixes reached",
            (code::CEASE, cease::SHUTDOWN) => "Administrative shutdown",
            (code::CEASE, cease::DECONFIGURED) => "Peer de-configured",
            (code::CEASE, cease::RESET) => "Administrative reset",
            (code::CEASE, 5) => "Connection rejected",
            (code::CEASE, cease::CONFIGURATION) => "Other configuration change",
            (code::CEASE, cease::COLLISION) => "Connection collision resolution",
            (code::CEASE, 8) => "Out of resources",
            (code::CEASE, 9) => "Hard reset",
            (code::CEASE, 10) => "BFD down",
            (code::CEASE, _) => "Cease",
            (code::SEND_HOLD_TIMER, _) => "Send hold timer expired",
            (code::REFRESH, _) => "Invalid ROUTE-REFRESH length",
            _ => "Unknown error",
        }
    }
}

/// `Bad peer AS: 65001, where 65000 is expected`.
impl fmt::Display for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // One level: a peer could put one within the other without end.
        if let Some(within) = self.within() {
            within.show(f)?;
            return f.write_str(" (hard reset)");
        }
        self.show(f)
    }
}

impl Notification {
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())?;
        if self.name() == "Unknown error" {
            write!(f, " {}/{}", self.code, self.subcode)?;
        }
        if let Some(text) = self.communication() {
            write!(f, ": {text:?}")?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_and_read_and_shown() {
        let sent = Notification::new(code::OPEN, 2).with_data([1, 2]);
        let mut bytes = Vec::new();
        sent.write(&mut bytes);
        assert_eq!(bytes[16..], [0, 23, 3, 2, 2, 1, 2]);
        let read = Notification::read(&bytes[HEADER..]);
        assert_eq!(read, sent);
        let shown = read.detail("65001, where 65000 is expected");
        assert_eq!(
            shown.to_string(),
            "Bad peer AS: 65001, where 65000 is expected"
        );
        assert_eq!(
            Notification::read(&[99, 7]).to_string(),
            "Unknown error 99/7"
        );
        assert_eq!(Notification::hold_timer().to_string(), "Hold timer expired");
    }

    /// RFC 9003 §2.
    #[test]
    fn a_shutdown_carries_a_text() {
        let text = "é".repeat(200);
        let sent = Notification::cease(cease::SHUTDOWN, &text);
        assert_eq!((sent.data[0], sent.data.len()), (254, 255));
        let hostile = Notification::read(&[6, 2, 3, b'a', 27, b'b']);
        assert_eq!(hostile.to_string(), "Administrative shutdown: \"a.b\"");
        let short = Notification::read(&[6, 2, 200, b'a']);
        assert_eq!(short.to_string(), "Administrative shutdown");
    }

    /// RFC 8538 §3.1.
    #[test]
    fn a_hard_reset_carries_what_it_stands_for() {
        let sent = Notification::cease(cease::SHUTDOWN, "bye").hardened();
        assert_eq!(sent.data, [6, 2, 3, b'b', b'y', b'e']);
        assert!(sent.is_hard_reset());
        assert_eq!(
            sent.to_string(),
            "Administrative shutdown: \"bye\" (hard reset)"
        );
        assert_eq!(Notification::read(&[6, 9]).to_string(), "Hard reset");
        let endless = Notification::read(&[6, 9].repeat(2000));
        assert_eq!(endless.to_string(), "Hard reset (hard reset)");
    }
}
