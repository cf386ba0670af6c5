//! Documents, and the located values in them.

use std::fmt;
use std::ops::Range;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

use crate::resources::problem::{Fault, Position};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tree {
    pub position: Position,
    pub content: Content,
}

/// A YAML value. A number keeps its spelling, for fields that are texts (a container's ID may be all
/// digits).
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    Sequence(Vec<Tree>),
    Mapping(Vec<(Key, Tree)>),
}

/// A document's value, or why it has none and where that shows.
pub(crate) type Parsed = Result<Tree, (Position, Fault)>;

/// A mapping's key and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Key {
    pub position: Position,
    pub name: String,
}

/// The documents of a text, in order, without empty ones.
pub(crate) fn documents(text: &str) -> Vec<Parsed> {
    let located = located_documents(text);
    located.into_iter().map(|(_, tree)| tree).collect()
}

/// The same, and where in the text each is, in bytes.
pub(crate) fn located_documents(text: &str) -> Vec<(Range<usize>, Parsed)> {
    let body = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mark = text.len() - body.len();
    chunks(body)
        .into_iter()
        .map(|(first_line, range)| {
            let tree = parse(&body[range.clone()], first_line);
            (range.start + mark..range.end + mark, tree)
        })
        .filter(|(_, tree)| !matches!(tree, Ok(tree) if tree.content == Content::Null))
        .collect()
}

impl Tree {
    /// The value under a key, if this is a mapping that has it.
    pub fn get(&self, name: &str) -> Option<&Tree> {
        match &self.content {
            Content::Mapping(entries) => entries
                .iter()
                .find(|(key, _)| key.name == name)
                .map(|(_, value)| value),
            _ => None,
        }
    }

    /// The text, if this is one.
    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The value at a path such as `spec.ipNetworks[0]`.
    pub fn at(&self, path: &str) -> Option<&Tree> {
        let mut steps = path.split(['.', '[']).filter(|step| !step.is_empty());
        steps.try_fold(self, |tree, step| tree.step(step))
    }

    /// The value as it fits into a line, if it does.
    pub fn line(&self) -> Option<String> {
        match &self.content {
            Content::Bool(value) => Some(value.to_string()),
            Content::Number(text) | Content::Text(text) => {
                Some(text.clone()).filter(|text| !text.contains('\n'))
            }
            Content::Null | Content::Sequence(_) | Content::Mapping(_) => None,
        }
    }

    fn step(&self, step: &str) -> Option<&Tree> {
        match (step.strip_suffix(']'), &self.content) {
            (Some(index), Content::Sequence(items)) => {
                index.parse::<usize>().ok().and_then(|i| items.get(i))
            }
            _ => self.get(step),
        }
    }

    /// Where the value at a path such as `spec.ipNetworks[0]` stands, or the innermost part of the
    /// path that is there.
    pub fn position_of(&self, path: &str) -> Position {
        let mut tree = self;
        for step in path.split(['.', '[']).filter(|step| !step.is_empty()) {
            let Some(next) = tree.step(step) else { break };
            tree = next;
        }
        tree.position
    }
}

/// A JSON value as a tree; all of it stands at the beginning.
impl From<&serde_json::Value> for Tree {
    fn from(value: &serde_json::Value) -> Self {
        use serde_json::Value;
        let position = Position { line: 1, column: 1 };
        let content = match value {
            Value::Null => Content::Null,
            Value::Bool(value) => Content::Bool(*value),
            Value::Number(number) => Content::Number(number.to_string()),
            Value::String(text) => Content::Text(text.clone()),
            Value::Array(items) => Content::Sequence(items.iter().map(Self::from).collect()),
            Value::Object(entries) => {
                let entry = |(name, value): (&String, &Value)| {
                    let name = name.clone();
                    (Key { position, name }, Self::from(value))
                };
                Content::Mapping(entries.iter().map(entry).collect())
            }
        };
        Self { position, content }
    }
}

/// Splits a text at its document markers: `---` and `...` at the start of a line mark documents
/// wherever they stand (YAML 1.2.2, section 9.1.2), so no other part of the syntax matters here.
/// Gives each part's first line, counted from 1, and where it is, in bytes.
fn chunks(text: &str) -> Vec<(u64, Range<usize>)> {
    let mut chunks = Vec::new();
    let mut start = (1, 0);
    let mut only_preamble = true;
    let mut offset = 0;
    for (number, line) in (1..).zip(text.split_inclusive('\n')) {
        let end = offset + line.len();
        if is_marker(line, "...") {
            chunks.push((start.0, start.1..offset));
            start = (number + 1, end);
            only_preamble = true;
        } else if is_marker(line, "---") {
            // Comments and directives before the marker belong to the document that it starts.
            if !only_preamble {
                chunks.push((start.0, start.1..offset));
                start = (number, offset);
            }
            only_preamble = false;
        } else if !line.trim().is_empty() && !line.starts_with(['#', '%']) {
            only_preamble = false;
        }
        offset = end;
    }
    chunks.push((start.0, start.1..text.len()));
    chunks
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

fn parse(chunk: &str, first_line: u64) -> Result<Tree, (Position, Fault)> {
    let options = serde_saphyr::options! {
        strict_booleans: true,
        with_snippet: false,
    };
    match serde_saphyr::from_str_with_options::<Spanned<Raw>>(chunk, options) {
        Ok(raw) => Ok(located(raw, chunk, first_line)),
        Err(error) => Err(syntax_error(&error, first_line)),
    }
}

fn syntax_error(error: &serde_saphyr::Error, first_line: u64) -> (Position, Fault) {
    let location = error.location().unwrap_or(Location::UNKNOWN);
    let message = error.without_snippet().to_string();
    let message = message
        .rsplit_once(" at line ")
        .map_or(message.as_str(), |(message, _)| message);
    let fault = if let Some(key) = message.strip_prefix("duplicate mapping key: ") {
        let key = key.split_once(", set").map_or(key, |(key, _)| key);
        Fault::new(
            key,
            "the field is given twice in one mapping",
            "give it once",
        )
    } else {
        Fault::new("", format!("not YAML: {message}"), "correct the syntax")
    };
    (position(location, first_line), fault)
}

fn position(location: Location, first_line: u64) -> Position {
    Position {
        line: first_line + location.line().saturating_sub(1),
        column: location.column().max(1),
    }
}

/// What the parser hands over, before numbers are given their spelling back.
enum Raw {
    Null,
    Bool(bool),
    Number,
    Text(String),
    Sequence(Vec<Spanned<Raw>>),
    Mapping(Vec<(Spanned<String>, Spanned<Raw>)>),
}

fn located(raw: Spanned<Raw>, chunk: &str, first_line: u64) -> Tree {
    let content = match raw.value {
        Raw::Null => Content::Null,
        Raw::Bool(value) => Content::Bool(value),
        Raw::Number => Content::Number(spelling(raw.defined, chunk).to_owned()),
        Raw::Text(text) => Content::Text(text),
        Raw::Sequence(items) => Content::Sequence(
            items
                .into_iter()
                .map(|item| located(item, chunk, first_line))
                .collect(),
        ),
        Raw::Mapping(entries) => Content::Mapping(
            entries
                .into_iter()
                .map(|(key, value)| {
                    let key = Key {
                        position: position(key.referenced, first_line),
                        name: key.value,
                    };
                    (key, located(value, chunk, first_line))
                })
                .collect(),
        ),
    };
    Tree {
        position: position(raw.referenced, first_line),
        content,
    }
}

fn spelling(location: Location, chunk: &str) -> &str {
    let span = location.span();
    let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) else {
        return "";
    };
    let start = usize::try_from(start).unwrap_or(usize::MAX);
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    chunk
        .get(start..start.saturating_add(length))
        .unwrap_or("")
        .trim()
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Raw, E> {
        Ok(Raw::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Raw, E> {
        Ok(Raw::Bool(value))
    }

    fn visit_i64<E>(self, _: i64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u64<E>(self, _: u64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_i128<E>(self, _: i128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_u128<E>(self, _: u128) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_f64<E>(self, _: f64) -> Result<Raw, E> {
        Ok(Raw::Number)
    }

    fn visit_str<E>(self, text: &str) -> Result<Raw, E> {
        Ok(Raw::Text(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Raw, E> {
        Ok(Raw::Text(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = access.next_element()? {
            items.push(item);
        }
        Ok(Raw::Sequence(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Raw, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_entry()? {
            entries.push(entry);
        }
        Ok(Raw::Mapping(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Tree {
        let mut all = documents(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).unwrap()
    }

    #[test]
    fn values_know_their_line_and_column() {
        let tree = one("# a comment\na: 1\nb:\n  - x: y\n    zé: [p, q]\n");
        let at = |path| {
            let Position { line, column } = tree.position_of(path);
            (line, column)
        };
        assert_eq!(at("a"), (2, 4));
        assert_eq!(at("b[0].x"), (4, 8));
        assert_eq!(at("b[0].zé[1]"), (5, 13));
        assert_eq!(at("b[0].absent.deeper"), (4, 5));
    }

    #[test]
    fn a_broken_document_does_not_hide_its_neighbours() {
        let all = documents("a: 1\n---\nb: [\n--- # third\nc: 3\n...\n---\n---\nd: 4\n");
        assert_eq!(all.len(), 4, "{all:?}");
        assert!(all[0].as_ref().unwrap().get("a").is_some());
        assert_eq!(
            all[1].as_ref().unwrap_err().0,
            Position { line: 3, column: 4 }
        );
        let third = all[2].as_ref().unwrap();
        assert_eq!(third.position_of("c"), Position { line: 5, column: 4 });
        let last = all[3].as_ref().unwrap();
        assert_eq!(last.position_of("d"), Position { line: 9, column: 4 });
    }

    #[test]
    fn markers_are_seen_only_at_the_start_of_a_line() {
        let tree = one("%YAML 1.2\n# about\n---\na: |\n  ---\n  ...\nb: ---x\n");
        assert_eq!(tree.get("a").unwrap().text(), Some("---\n...\n"));
        assert_eq!(tree.get("b").unwrap().text(), Some("---x"));
        assert!(documents("# nothing\n---\n# here\n...\n").is_empty());
        assert!(documents("").is_empty());
    }

    #[test]
    fn numbers_keep_their_spelling_and_words_are_no_booleans() {
        let tree = one("id: 1337495556942031415926535\nz: 0012\ny: yes\nw: &a 0x1F\nx: *a\n");
        let number = |name: &str| tree.get(name).unwrap().content.clone();
        assert_eq!(
            number("id"),
            Content::Number("1337495556942031415926535".into())
        );
        assert_eq!(number("z"), Content::Number("0012".into()));
        assert_eq!(number("y"), Content::Text("yes".into()));
        assert_eq!(number("x"), Content::Number("0x1F".into()));
    }

    #[test]
    fn json_is_yaml() {
        let tree = one("{\"a\": {\"b\": [1, \"2\", null, true]}}");
        assert_eq!(
            tree.position_of("a.b[3]"),
            Position {
                line: 1,
                column: 28
            }
        );
    }

    #[test]
    fn a_field_given_twice_is_named() {
        let all = documents("a: 1\nb: 2\na: 3\n");
        let (position, fault) = all[0].as_ref().unwrap_err();
        assert_eq!((position.line, position.column), (3, 1));
        assert_eq!(fault.field, "a");
    }

    #[test]
    fn aliases_do_not_explode() {
        let mut text = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let before = format!("*a{}, ", level - 1).repeat(10);
            text.push_str(&format!("a{level}: &a{level} [{before}]\n"));
        }
        assert!(documents(&text)[0].is_err());
    }
}
