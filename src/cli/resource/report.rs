//! What became of many resources, in calicoctl's words.

use crate::cli::{Failure, print};
use crate::resources::load::Refusal;
use crate::resources::{Kind, Problem};

/// What a verb does, in the two forms in which messages say it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Verb {
    /// `apply`.
    pub infinitive: &'static str,
    /// `applied`.
    pub past: &'static str,
}

/// What became of each of many resources.
pub(super) struct Report {
    verb: Verb,
    kinds: Vec<Option<Kind>>,
    done: usize,
    errors: Vec<String>,
}

impl Report {
    pub(super) fn new(verb: Verb) -> Self {
        Self {
            verb,
            kinds: Vec::new(),
            done: 0,
            errors: Vec::new(),
        }
    }

    /// Takes in what became of one resource.
    pub(super) fn add(&mut self, kind: Option<Kind>, outcome: Result<(), String>) {
        self.kinds.push(kind);
        match outcome {
            Ok(()) => self.done += 1,
            Err(error) => self.errors.push(error),
        }
    }

    /// Says it.
    pub(super) fn tell(self) -> Result<(), Failure> {
        let Verb { infinitive, past } = self.verb;
        let (total, done) = (self.kinds.len(), self.done);
        let of = self
            .single_kind()
            .map(|kind| format!("'{kind}' "))
            .unwrap_or_default();
        let errors = self.errors.join("\n ");
        if total == 0 {
            return print("No resources specified\n");
        }
        if errors.is_empty() {
            return print(&format!("Successfully {past} {done} {of}resource(s)\n"));
        }
        if done == 0 {
            let what = match total {
                1 if of.is_empty() => "resource".to_owned(),
                1 => format!("{of}resource"),
                _ => format!("any {of}resources"),
            };
            return Err(Failure::Said(format!(
                "Failed to {infinitive} {what}: [{errors}]"
            )));
        }
        print(&format!(
            "Partial success: {past} {done} out of {total} {of}resources:\n"
        ))?;
        Err(Failure::Said(format!("Hit error(s): [{errors}]")))
    }

    fn single_kind(&self) -> Option<Kind> {
        let first = self.kinds.first().copied().flatten()?;
        self.kinds
            .iter()
            .all(|kind| *kind == Some(first))
            .then_some(first)
    }
}

/// What is wrong with a document, in the words of Calico's validation, after the place.
pub(super) fn refused(refusals: &[Refusal]) -> String {
    let parts: Vec<String> = refusals.iter().map(refusal).collect();
    parts.join("\n ")
}

fn refusal(refusal: &Refusal) -> String {
    let Problem {
        origin,
        field,
        reason,
        remedy,
    } = &refusal.problem;
    let mut why = reason.clone();
    if !remedy.is_empty() {
        why = format!("{reason}; {remedy}");
    }
    if field.is_empty() {
        return format!("{origin}: {why}");
    }
    let value = match &refusal.value {
        Some(value) => format!(" = '{value}'"),
        None => String::new(),
    };
    let name = go_name(field);
    format!("{origin}: error with field {name}{value} (Reason: {field}: {why})")
}

/// Parts of names that Go writes in capitals.
const INITIALISMS: [&str; 14] = [
    "as", "aws", "bgp", "bpf", "cidr", "http", "icmp", "ip", "ipip", "mac", "mtu", "nat", "vxlan",
    "xdp",
];

/// A field's name as Go's structs have it: `spec.peerIP` is PeerIP, `spec.asNumber` is ASNumber.
fn go_name(path: &str) -> String {
    let name = path.rsplit('.').next().unwrap_or(path);
    let name = name.split('[').next().unwrap_or(name);
    let head_length = name
        .find(|c: char| !c.is_ascii_lowercase())
        .unwrap_or(name.len());
    let (head, tail) = name.split_at(head_length);
    if INITIALISMS.contains(&head) {
        return format!("{}{tail}", head.to_uppercase());
    }
    if head == "ipv" {
        return format!("IPv{tail}");
    }
    let (plural, head) = match head.strip_suffix('s') {
        Some(stem) if INITIALISMS.contains(&stem) => ("s", stem.to_uppercase()),
        _ => {
            let mut letters = head.chars();
            let first = letters.next().map(|first| first.to_ascii_uppercase());
            ("", first.into_iter().chain(letters).collect())
        }
    };
    format!("{head}{plural}{tail}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_named_as_in_go() {
        for (path, name) in [
            ("spec.peerIP", "PeerIP"),
            ("spec.asNumber", "ASNumber"),
            ("spec.cidr", "CIDR"),
            ("spec.bgp.ipv4Address", "IPv4Address"),
            ("spec.ipipMode", "IPIPMode"),
            ("spec.ipNetworks[0]", "IPNetworks"),
            ("spec.ingress[0].source.nets[1]", "Nets"),
            ("metadata.name", "Name"),
        ] {
            assert_eq!(go_name(path), name);
        }
    }
}
