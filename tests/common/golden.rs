//! Golden packets that scapy made (tests/golden/make.py).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// One fixture's packets, by their names.
pub struct Golden(BTreeMap<String, Vec<u8>>);

impl Golden {
    pub fn load(name: &str) -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/golden/{name}.txt"));
        let text =
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut packets: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut packet = None;
        for line in text.lines() {
            if let Some(name) = line.strip_suffix(" =") {
                packet = Some(packets.entry(name.to_owned()).or_default());
            } else if let (Some(digits), Some(bytes)) = (line.strip_prefix("  "), &mut packet) {
                bytes.extend((0..digits.len()).step_by(2).map(|at| {
                    u8::from_str_radix(&digits[at..at + 2], 16).expect("hexadecimal digits")
                }));
            }
        }
        Self(packets)
    }

    pub fn packet(&self, name: &str) -> Vec<u8> {
        self.0.get(name).expect("a packet of that name").clone()
    }
}
