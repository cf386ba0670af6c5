//! Chains of nftables that drop what the host forwards, unless a rule accepts it; those that iptables makes
//! by nftables are among them.

use std::io;
use std::process::Command;

use serde_json::Value;

/// A base chain at the forward hook whose policy is drop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppingChain {
    /// `ip`, `ip6` or `inet`.
    pub family: String,
    /// Its table.
    pub table: String,
    /// Its own name.
    pub name: String,
    accepting: Vec<(Direction, String)>,
}

/// Which of a forwarded packet's two devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// By which it comes.
    In,
    /// By which it leaves.
    Out,
}

impl DroppingChain {
    /// Whether a rule of the chain's table accepts packets for that device; under what other conditions is
    /// not looked at, nor how the rule is come to.
    pub fn accepts(&self, direction: Direction, interface: &str) -> bool {
        let mut accepting = self.accepting.iter();
        accepting.any(|(of, name)| *of == direction && name == interface)
    }
}

/// The chains of the calling thread's network namespace, as `nft` lists them.
///
/// # Errors
/// If `nft` is missing, may not list them, or knows no JSON.
pub fn dropping() -> io::Result<Vec<DroppingChain>> {
    let mut chains = dropping_of(&list(&["chains"])?);
    for chain in &mut chains {
        let table = list(&["table", &chain.family, &chain.table])?;
        chain.accepting = accepting_of(&table);
    }
    Ok(chains)
}

fn list(what: &[&str]) -> io::Result<Value> {
    let output = Command::new("nft")
        .args(["-j", "list"])
        .args(what)
        .output()?;
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The objects of one kind in what `nft -j` lists (libnftables-json(5)).
fn objects<'a>(listed: &'a Value, kind: &'a str) -> impl Iterator<Item = &'a Value> {
    let all = listed["nftables"].as_array().into_iter().flatten();
    all.filter_map(move |object| object.get(kind))
}

fn dropping_of(listed: &Value) -> Vec<DroppingChain> {
    let text = |chain: &Value, key: &str| chain[key].as_str().unwrap_or_default().to_owned();
    let forwards = |chain: &Value| ["ip", "ip6", "inet"].contains(&&*text(chain, "family"));
    objects(listed, "chain")
        .filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop")
        .filter(|chain| forwards(chain))
        .map(|chain| DroppingChain {
            family: text(chain, "family"),
            table: text(chain, "table"),
            name: text(chain, "name"),
            accepting: Vec::new(),
        })
        .collect()
}

/// The devices that rules of a table accept packets for.
fn accepting_of(listed: &Value) -> Vec<(Direction, String)> {
    let mut accepting = Vec::new();
    for rule in objects(listed, "rule") {
        let parts = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
        if parts.iter().any(|part| part.get("accept").is_some()) {
            accepting.extend(parts.iter().flat_map(devices));
        }
    }
    accepting
}

/// The devices that a match is for.
fn devices(part: &Value) -> Vec<(Direction, String)> {
    let found = &part["match"];
    let direction = match found["left"]["meta"]["key"].as_str() {
        Some("iifname" | "iif") => Direction::In,
        Some("oifname" | "oif") => Direction::Out,
        _ => return Vec::new(),
    };
    if found["op"] != "==" {
        return Vec::new();
    }
    let right = &found["right"];
    let set = right["set"].as_array().into_iter().flatten();
    let names = set.chain([right]).filter_map(Value::as_str);
    names.map(|name| (direction, name.to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_base_chains_that_drop_forwarded_packets_count() {
        let chain = |family: &str, name: &str, hook: &str, policy: &str| {
            json!({"chain": {"family": family, "table": "filter", "name": name, "handle": 1,
                "type": "filter", "hook": hook, "prio": 0, "policy": policy}})
        };
        let listed = json!({"nftables": [
            {"metainfo": {"version": "1.0.6"}},
            chain("ip", "FORWARD", "forward", "drop"),
            chain("inet", "open", "forward", "accept"),
            chain("inet", "input", "input", "drop"),
            chain("bridge", "frames", "forward", "drop"),
            {"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER", "handle": 2}},
        ]});
        let found = dropping_of(&listed);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((&*found[0].family, &*found[0].name), ("ip", "FORWARD"));
        assert_eq!(dropping_of(&Value::Null), []);
    }

    #[test]
    fn rules_that_accept_a_device_are_found() {
        let rule = |key: &str, op: &str, right: Value, verdict: &str| {
            json!({"rule": {"family": "ip", "table": "filter", "chain": "FORWARD", "expr": [
                {"match": {"op": op, "left": {"meta": {"key": key}}, "right": right}},
                {"counter": {"packets": 0, "bytes": 0}},
                {verdict: null},
            ]}})
        };
        let listed = json!({"nftables": [
            rule("iifname", "==", json!("tunl0"), "accept"),
            rule("oifname", "==", json!({"set": ["tunl0", "br0"]}), "accept"),
            rule("iifname", "!=", json!("eth0"), "accept"),
            rule("iifname", "==", json!("eth1"), "drop"),
            rule("l4proto", "==", json!("tcp"), "accept"),
        ]});
        let expected = [
            (Direction::In, "tunl0"),
            (Direction::Out, "tunl0"),
            (Direction::Out, "br0"),
        ];
        let expected = expected.map(|(direction, name)| (direction, name.to_owned()));
        assert_eq!(accepting_of(&listed), expected);
    }
}
