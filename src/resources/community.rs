//! BGP communities: standard ones (RFC 1997) and large ones (RFC 8092), as texts.

use std::fmt;
use std::str::FromStr;

use super::text::by_text;

/// A community's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CommunityValue {
    /// `aa:nn`, of 16 bits each.
    Standard(u16, u16),
    /// `aa:nn:mm`, of 32 bits each.
    Large(u32, u32, u32),
}

/// A text that is no community. Calico's words.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommunityError {
    /// A part that does not fit its bits.
    #[error("'{0}': invalid community value, expected {1} bit value; write numbers that fit")]
    TooLarge(String, u8),
    /// Neither two nor three numbers.
    #[error("'{0}': invalid community value or format used.; write one as aa:nn or aa:nn:mm")]
    Format(String),
}

by_text!(CommunityValue);

impl FromStr for CommunityValue {
    type Err = CommunityError;

    fn from_str(text: &str) -> Result<Self, CommunityError> {
        let parts: Vec<&str> = text.split(':').collect();
        let digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if !parts.iter().all(digits) {
            return Err(CommunityError::Format(text.to_owned()));
        }
        let large = |part: &str| {
            let too_large = |_| CommunityError::TooLarge(text.to_owned(), 32);
            part.parse::<u32>().map_err(too_large)
        };
        let standard = |part: &str| {
            let too_large = |_| CommunityError::TooLarge(text.to_owned(), 16);
            part.parse::<u16>().map_err(too_large)
        };
        match parts[..] {
            [a, n] => Ok(Self::Standard(standard(a)?, standard(n)?)),
            [a, n, m] => Ok(Self::Large(large(a)?, large(n)?, large(m)?)),
            _ => Err(CommunityError::Format(text.to_owned())),
        }
    }
}

impl fmt::Display for CommunityValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Standard(a, n) => write!(f, "{a}:{n}"),
            Self::Large(a, n, m) => write!(f, "{a}:{n}:{m}"),
        }
    }
}
