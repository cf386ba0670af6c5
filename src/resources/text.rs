//! Types that are written as texts.

/// Reads and writes types by their `FromStr` and `Display`.
macro_rules! by_text {
    ($($type:ty),+ $(,)?) => {$(
        impl serde::Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(
                deserializer: D,
            ) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                text.parse().map_err(<D::Error as serde::de::Error>::custom)
            }
        }
    )+};
}

pub(crate) use by_text;

/// A short name of some bytes: different, as far as anybody will see, for different ones (the first
/// 63 bits of their SHA-1, in decimal).
pub(crate) fn digest(bytes: &[u8]) -> String {
    use sha1::{Digest, Sha1};
    let hash = Sha1::digest(bytes);
    let mut first = [0; 8];
    first.copy_from_slice(&hash[..8]);
    (u64::from_be_bytes(first) >> 1).to_string()
}
