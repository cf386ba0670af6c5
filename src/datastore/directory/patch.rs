//! Changes of single values in a document's text, so that the comments beside all others stay.

use std::cmp::Reverse;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::resources::Position;
use crate::resources::yaml::{Content, Key, Tree, documents};

/// The text of a document in which what is other in `new` than in `old` is changed where it stands;
/// nothing where that cannot be done value by value. Whoever calls this reads the text back: it knows
/// the plainer ways to write YAML, not all.
pub(super) fn patch(text: &str, old: &Value, new: &Value) -> Option<String> {
    let tree = documents(text).into_iter().next()?.ok()?;
    let mut patch = Patch {
        text,
        edits: Vec::new(),
    };
    patch.compare(&tree, false, old, new)?;
    patch.apply()
}

struct Patch<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl Patch<'_> {
    /// From the end, so that what stands before keeps its place.
    fn apply(mut self) -> Option<String> {
        // Of several at one place, the last one goes in first.
        self.edits.reverse();
        self.edits.sort_by_key(|(range, _)| Reverse(range.start));
        let mut text = self.text.to_owned();
        let mut begin = usize::MAX;
        for (range, new) in self.edits {
            if range.end > begin {
                return None;
            }
            begin = range.start;
            text.replace_range(range, &new);
        }
        Some(text)
    }

    /// `flow`: whether the value stands within braces.
    fn compare(&mut self, tree: &Tree, flow: bool, old: &Value, new: &Value) -> Option<()> {
        match (old, new, &tree.content) {
            _ if old == new => Some(()),
            (Value::Object(old), Value::Object(new), Content::Mapping(entries)) => {
                let flow = flow || self.rest(tree.position)?.starts_with('{');
                self.compare_entries(tree, entries, flow, old, new)
            }
            (_, Value::Object(_) | Value::Array(_), _)
            | (_, _, Content::Mapping(_) | Content::Sequence(_) | Content::Null) => None,
            _ => {
                let range = self.scalar(tree.position, flow)?;
                self.edits.push((range, written(new)));
                Some(())
            }
        }
    }

    fn compare_entries(
        &mut self,
        tree: &Tree,
        entries: &[(Key, Tree)],
        flow: bool,
        old: &Map<String, Value>,
        new: &Map<String, Value>,
    ) -> Option<()> {
        let there = |name: &String| entries.iter().find(|(key, _)| key.name == *name);
        for (name, before) in old {
            match (new.get(name), there(name)) {
                (Some(after), Some(_)) if after == before => {}
                (Some(after), Some((key, value))) => {
                    // A block of text, or a value under its key.
                    if !flow && !is_mapping(value) && key.position.line != value.position.line {
                        return None;
                    }
                    self.compare(value, flow, before, after)?;
                }
                (Some(after), None) if after != before => {
                    self.add(tree, entries, flow, name, after)?
                }
                (None, Some((key, value))) => self.remove(key, value, flow)?,
                // What was not written down stood at its default.
                (Some(_) | None, None) => {}
            }
        }
        for (name, after) in new.iter().filter(|(name, _)| !old.contains_key(*name)) {
            match there(name) {
                Some(_) => return None,
                None => self.add(tree, entries, flow, name, after)?,
            }
        }
        Some(())
    }

    /// After the last entry that takes one line, where no comment is about what follows.
    fn add(
        &mut self,
        tree: &Tree,
        entries: &[(Key, Tree)],
        flow: bool,
        name: &str,
        value: &Value,
    ) -> Option<()> {
        let value = written(value);
        if flow {
            let begin = self.offset(tree.position)? + 1;
            let comma = if entries.is_empty() { "" } else { ", " };
            self.edits
                .push((begin..begin, format!("{name}: {value}{comma}")));
            return Some(());
        }
        let (first, _) = entries.first()?;
        let indent = self
            .line(first.position)?
            .split(|c: char| c != ' ')
            .next()?;
        if indent.len() != self.column(first.position)? {
            return None;
        }
        let one_line = |(key, value): &&(Key, Tree)| {
            let scalar = !matches!(value.content, Content::Mapping(_) | Content::Sequence(_));
            scalar && key.position.line == value.position.line
        };
        let line = format!("{indent}{name}: {value}\n");
        let (at, line) = match entries.iter().rev().find(one_line) {
            Some((key, _)) => self.after(key.position, line)?,
            None => (self.above(first.position)?, line),
        };
        self.edits.push((at..at, line));
        Some(())
    }

    /// The place after a line; a last line may have no end yet.
    fn after(&self, position: Position, line: String) -> Option<(usize, String)> {
        let start = self.line_start(position)?;
        Some(match self.text[start..].find('\n') {
            Some(end) => (start + end + 1, line),
            None => (self.text.len(), format!("\n{}", line.trim_end())),
        })
    }

    /// The place above an entry and the comments that are about it.
    fn above(&self, position: Position) -> Option<usize> {
        let mut start = self.line_start(position)?;
        for line in self.text[..start].split_inclusive('\n').rev() {
            if !line.trim_start().starts_with('#') {
                break;
            }
            start -= line.len();
        }
        Some(start)
    }

    /// Takes an entry of one line out.
    fn remove(&mut self, key: &Key, value: &Tree, flow: bool) -> Option<()> {
        let scalar = !matches!(value.content, Content::Mapping(_) | Content::Sequence(_));
        let before = &self.line(key.position)?[..self.column(key.position)?];
        if flow || !scalar || value.position.line != key.position.line || !before.trim().is_empty()
        {
            return None;
        }
        let start = self.line_start(key.position)?;
        let end = self.text[start..]
            .find('\n')
            .map_or(self.text.len(), |end| start + end + 1);
        self.edits.push((start..end, String::new()));
        Some(())
    }

    /// Where a value of one line stands.
    fn scalar(&self, position: Position, flow: bool) -> Option<Range<usize>> {
        let start = self.offset(position)?;
        let rest = self.rest(position)?;
        let length = match rest.chars().next()? {
            quote @ ('"' | '\'') => 1 + quoted(&rest[1..], quote)?,
            '|' | '>' | '&' | '*' | '!' | '{' | '[' => return None,
            _ => plain(rest, flow),
        };
        Some(start..start + length)
    }

    fn line_start(&self, position: Position) -> Option<usize> {
        let lines = self.text.split_inclusive('\n');
        let before = lines.take(usize::try_from(position.line).ok()?.checked_sub(1)?);
        Some(before.map(str::len).sum())
    }

    /// The line that a place is in, without its end.
    fn line(&self, position: Position) -> Option<&str> {
        let start = self.line_start(position)?;
        self.text.get(start..)?.lines().next()
    }

    /// How many bytes of its line stand before a place.
    fn column(&self, position: Position) -> Option<usize> {
        let line = self.line(position)?;
        let before = line
            .chars()
            .take(usize::try_from(position.column).ok()?.checked_sub(1)?);
        Some(before.map(char::len_utf8).sum())
    }

    fn offset(&self, position: Position) -> Option<usize> {
        Some(self.line_start(position)? + self.column(position)?)
    }

    /// The line from a place on.
    fn rest(&self, position: Position) -> Option<&str> {
        self.line(position)?.get(self.column(position)?..)
    }
}

fn is_mapping(tree: &Tree) -> bool {
    matches!(tree.content, Content::Mapping(_))
}

/// How long a plain value is: up to a comment, or to what ends it within braces.
fn plain(rest: &str, flow: bool) -> usize {
    let comment = rest.find(" #").unwrap_or(rest.len());
    let end = match flow {
        true => rest.find([',', '}', ']']).unwrap_or(rest.len()),
        false => rest.len(),
    };
    rest[..comment.min(end)].trim_end().len()
}

/// How long a quoted value is, from after its first quote to after its last one.
fn quoted(rest: &str, quote: char) -> Option<usize> {
    let mut characters = rest.char_indices().peekable();
    while let Some((place, character)) = characters.next() {
        let doubled = matches!(characters.peek(), Some((_, next)) if *next == '\'');
        match character {
            '\\' if quote == '"' => drop(characters.next()),
            '\'' if quote == '\'' && doubled => drop(characters.next()),
            end if end == quote => return Some(place + 1),
            _ => {}
        }
    }
    None
}

/// A value in one line: words as people write them, everything else as JSON, which is YAML.
fn written(value: &Value) -> String {
    match value {
        Value::String(text) if is_word(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Whether a text is read as a text without quotes.
fn is_word(text: &str) -> bool {
    const OTHERS: [&str; 8] = ["true", "false", "null", "yes", "no", "on", "off", "y"];
    let address =
        text.parse::<std::net::Ipv4Addr>().is_ok() || text.parse::<ipnet::Ipv4Net>().is_ok();
    let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '/' | '-' | '_');
    let word = text.starts_with(|c: char| c.is_ascii_alphabetic()) && text.chars().all(letters);
    address || (word && !OTHERS.contains(&text.to_lowercase().as_str()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const POOL: &str = "\
# Ours.
kind: IPPool   # of addresses
metadata:
  name: 'blue' # not red
spec:
  # What pods get.
  cidr: 10.0.0.0/16
  # How.
  ipipMode: \"Always\" # for now
  allowedUses: [Workload]
";

    fn pool() -> Value {
        json!({
            "kind": "IPPool",
            "metadata": {"name": "blue"},
            "spec": {"cidr": "10.0.0.0/16", "ipipMode": "Always", "allowedUses": ["Workload"],
                     "nodeSelector": "all()"},
        })
    }

    #[test]
    fn values_change_where_they_stand() {
        let mut new = pool();
        new["spec"]["ipipMode"] = json!("Never");
        new["spec"]["vxlanMode"] = json!("Always");
        new["spec"]["nodeSelector"] = json!("rack == 'a'");
        new["metadata"]["labels"] = json!({"rack": "a", "on": "true"});
        let patched = patch(POOL, &pool(), &new).unwrap();
        assert_eq!(
            patched,
            "\
# Ours.
kind: IPPool   # of addresses
metadata:
  name: 'blue' # not red
  labels: {\"on\":\"true\",\"rack\":\"a\"}
spec:
  # What pods get.
  cidr: 10.0.0.0/16
  # How.
  ipipMode: Never # for now
  nodeSelector: \"rack == 'a'\"
  vxlanMode: Always
  allowedUses: [Workload]
"
        );
        let back = patch(&patched, &new, &pool());
        // A selector at its default may be written down; labels of several are not taken apart.
        assert_eq!(back, None);
        let mut less = new.clone();
        less["spec"].as_object_mut().unwrap().remove("vxlanMode");
        assert_eq!(
            patch(&patched, &new, &less).unwrap(),
            patched.replace("  vxlanMode: Always\n", "")
        );
    }

    #[test]
    fn values_within_braces_change_too() {
        let text =
            "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4Address: 10.0.0.1/24}} # one\n";
        let old = json!({"kind": "Node", "metadata": {"name": "a"},
                         "spec": {"bgp": {"ipv4Address": "10.0.0.1/24"}}});
        let mut new = old.clone();
        new["spec"]["bgp"]["ipv4Address"] = json!("10.0.0.2/24");
        new["spec"]["bgp"]["ipv4IPIPTunnelAddr"] = json!("10.65.0.1");
        assert_eq!(
            patch(text, &old, &new).unwrap(),
            "kind: Node\nmetadata: {name: a}\nspec: {bgp: {ipv4IPIPTunnelAddr: 10.65.0.1, \
             ipv4Address: 10.0.0.2/24}} # one\n"
        );
    }

    #[test]
    fn what_is_not_a_value_of_a_line_is_left_to_others() {
        let mut new = pool();
        new["spec"]["allowedUses"] = json!(["Tunnel"]);
        assert_eq!(patch(POOL, &pool(), &new), None);
        let text = "kind: x\nspec:\n  text: |\n    long\n";
        let old = json!({"kind": "x", "spec": {"text": "long\n"}});
        let new = json!({"kind": "x", "spec": {"text": "other"}});
        assert_eq!(patch(text, &old, &new), None);
    }
}
