//! Reads `serde` types from a [`Tree`], with errors that know their place and field.

use std::fmt;
use std::slice;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, EnumAccess, Error as _, Expected, IntoDeserializer,
    MapAccess, SeqAccess, Unexpected, VariantAccess, Visitor,
};

use super::tree::{Content, Key, Tree};
use crate::resources::problem::{Fault, Position};

impl Tree {
    /// Reads a value of type `T`. Keys in `skip` at the top are passed over.
    pub fn decode<T: DeserializeOwned>(&self, skip: &[&str]) -> Result<T, (Position, Fault)> {
        T::deserialize(Decoder { tree: self, skip }).map_err(|error| {
            let position = error.position.unwrap_or(self.position);
            let steps: Vec<String> = error.path.into_iter().rev().collect();
            let field = steps.join(".").replace(".[", "[");
            (position, Fault::new(field, error.reason, error.remedy))
        })
    }
}

/// An error on its way out of a tree; the path grows, innermost step first.
#[derive(Debug)]
struct DecodeError {
    position: Option<Position>,
    path: Vec<String>,
    reason: String,
    remedy: String,
}

impl DecodeError {
    fn new(reason: String, remedy: String) -> Self {
        Self {
            position: None,
            path: Vec::new(),
            reason,
            remedy,
        }
    }

    /// Names a field that the error is about and that has no value to stand at.
    fn of_field(mut self, field: &str) -> Self {
        self.path.push(field.to_owned());
        self
    }

    fn at(mut self, position: Position) -> Self {
        self.position.get_or_insert(position);
        self
    }

    fn under(mut self, step: impl Into<String>) -> Self {
        self.path.push(step.into());
        self
    }

    /// Says which value was refused, if the reason does not.
    fn quoting(mut self, value: &str) -> Self {
        if self.position.is_none() && !self.reason.contains(value) {
            self.reason = format!("'{value}': {}", self.reason);
        }
        self
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.reason, self.remedy)
    }
}

impl std::error::Error for DecodeError {}

impl de::Error for DecodeError {
    /// Takes what stands before the first `; ` as the reason and what follows as the remedy.
    fn custom<T: fmt::Display>(message: T) -> Self {
        let message = message.to_string();
        match message.split_once("; ") {
            Some((reason, remedy)) => Self::new(reason.into(), remedy.into()),
            None => Self::new(message.clone(), remedy_for(&message).into()),
        }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            format!("{unexpected} does not fit here"),
            format!("write {}", in_words(expected)),
        )
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(
            format!("{unexpected} is out of range"),
            format!("write {}", in_words(expected)),
        )
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(
            format!("'{variant}' is not a value of this field"),
            format!("write {}", suggest(variant, expected)),
        )
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        let remedy = if expected.is_empty() {
            "remove it: no field may stand here".to_owned()
        } else {
            format!("remove it, or write {}", suggest(field, expected))
        };
        Self::new("unknown field".to_owned(), remedy).of_field(field)
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new("the field is missing".to_owned(), "add it".to_owned()).of_field(field)
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::new(
            "the field is given twice".to_owned(),
            "give it once".to_owned(),
        )
        .of_field(field)
    }
}

/// What `serde` expects, in words for people who do not write Rust.
fn in_words(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u8" => "a whole number from 0 to 255".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        "u32" => "a whole number from 0 to 4294967295".into(),
        "u64" | "usize" => "a whole number from 0".into(),
        "i8" | "i16" | "i32" | "i64" => "a whole number".into(),
        "a string" => "a text".into(),
        other => other.into(),
    }
}

/// What would be right where the standard library's own parsers only say what is wrong.
fn remedy_for(message: &str) -> &'static str {
    match message {
        "invalid IP address syntax" => "write an address such as 10.65.0.2 or fd00:65::2",
        "invalid IPv4 address syntax" => "write an IPv4 address such as 10.65.0.2",
        "invalid IPv6 address syntax" => "write an IPv6 address such as fd00:65::2",
        "invalid socket address syntax" => "write an address and a port, such as 127.0.0.1:9099",
        _ => "",
    }
}

/// The likeliest of several words, or all of them if none is near.
fn suggest(word: &str, known: &[&str]) -> String {
    let near = known
        .iter()
        .filter(|known| known.eq_ignore_ascii_case(word) || distance(known, word) <= 2)
        .min_by_key(|known| (!known.eq_ignore_ascii_case(word), distance(known, word)));
    match near {
        Some(near) => format!("'{near}'"),
        None => format!("one of {}", known.join(", ")),
    }
}

/// Levenshtein's edit distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, &y) in b.iter().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(row[j + 1] + 1);
        }
    }
    row[b.len()]
}

#[derive(Clone, Copy)]
struct Decoder<'a> {
    tree: &'a Tree,
    skip: &'a [&'a str],
}

impl<'a> Decoder<'a> {
    fn new(tree: &'a Tree) -> Self {
        Self { tree, skip: &[] }
    }

    fn scalar(&self) -> Option<&'a str> {
        match &self.tree.content {
            Content::Text(text) | Content::Number(text) => Some(text),
            _ => None,
        }
    }

    fn mismatch(&self, expected: &dyn Expected) -> DecodeError {
        let unexpected = match &self.tree.content {
            Content::Null => Unexpected::Other("an empty value"),
            Content::Bool(value) => Unexpected::Bool(*value),
            Content::Number(text) => {
                return DecodeError::new(
                    format!("the number {text} does not fit here"),
                    format!("write {}", in_words(expected)),
                );
            }
            Content::Text(text) => {
                return DecodeError::new(
                    format!("'{text}' does not fit here"),
                    format!("write {}", in_words(expected)),
                );
            }
            Content::Sequence(_) => Unexpected::Other("a list"),
            Content::Mapping(_) => Unexpected::Other("a mapping"),
        };
        DecodeError::invalid_type(unexpected, expected)
    }

    /// Finishes a value: an error that has no place yet is this value's.
    fn here<T>(&self, result: Result<T, DecodeError>) -> Result<T, DecodeError> {
        result.map_err(|error| match self.scalar() {
            Some(value) => error.quoting(value).at(self.tree.position),
            None => error.at(self.tree.position),
        })
    }

    /// A mapping; a struct's field that is empty is as one that is not there (as in Go's JSON).
    fn mapping<'de, V: Visitor<'de>>(
        &self,
        visitor: V,
        of_struct: bool,
    ) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Mapping(entries) => visitor.visit_map(Entries {
                rest: entries.iter(),
                skip: self.skip,
                skip_empty: of_struct,
                entry: None,
            }),
            _ => Err(self.mismatch(&"a mapping of fields")),
        };
        self.here(result)
    }

    fn integer<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Number(text) => match (text.parse::<u64>(), text.parse::<i64>()) {
                (Ok(number), _) => visitor.visit_u64(number),
                (_, Ok(number)) => visitor.visit_i64(number),
                _ => Err(self.mismatch(&"a whole number in decimal")),
            },
            _ => Err(self.mismatch(&visitor)),
        };
        self.here(result)
    }

    fn text<'de, V: Visitor<'de>>(&self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Bool(value) => Err(DecodeError::new(
                format!("{value} is a boolean, and the field is a text"),
                format!("write '{value}' in quotes"),
            )),
            _ => match self.scalar() {
                Some(text) => visitor.visit_str(text),
                None => Err(self.mismatch(&visitor)),
            },
        };
        self.here(result)
    }
}

macro_rules! forward {
    ($($method:ident)+ => $to:ident) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
            self.$to(visitor)
        })+
    };
}

impl<'de> de::Deserializer<'de> for Decoder<'_> {
    type Error = DecodeError;

    forward!(
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 => integer
    );
    forward!(
        deserialize_char deserialize_str deserialize_string deserialize_identifier => text
    );

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match &self.tree.content {
            Content::Null => self.here(visitor.visit_unit()),
            Content::Bool(value) => self.here(visitor.visit_bool(*value)),
            Content::Number(text) if text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok() => {
                self.integer(visitor)
            }
            Content::Number(text) => match text.parse() {
                Ok(number) => self.here(visitor.visit_f64(number)),
                Err(_) => self.text(visitor),
            },
            Content::Text(_) => self.text(visitor),
            Content::Sequence(_) => self.deserialize_seq(visitor),
            Content::Mapping(_) => self.deserialize_map(visitor),
        }
    }

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Bool(value) => visitor.visit_bool(*value),
            _ => Err(self.mismatch(&"true or false")),
        };
        self.here(result)
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.deserialize_f64(visitor)
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Number(text) => match text.parse() {
                Ok(number) => visitor.visit_f64(number),
                Err(_) => Err(self.mismatch(&"a number in decimal")),
            },
            _ => Err(self.mismatch(&visitor)),
        };
        self.here(result)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        match self.tree.content {
            Content::Null => self.here(visitor.visit_none()),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        let result = match &self.tree.content {
            Content::Sequence(items) => visitor.visit_seq(Items {
                rest: items.iter(),
                next: 0,
            }),
            _ => Err(self.mismatch(&"a list")),
        };
        self.here(result)
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, DecodeError> {
        self.mapping(visitor, false)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        self.mapping(visitor, true)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, DecodeError> {
        let result = match self.scalar() {
            Some(name) => visitor.visit_enum(Variant(name)),
            None => {
                let expected = format!("one of {}", variants.join(", "));
                Err(self.mismatch(&expected.as_str()))
            }
        };
        self.here(result)
    }

    serde::forward_to_deserialize_any! {
        bytes byte_buf unit unit_struct tuple tuple_struct ignored_any
    }
}

struct Items<'a> {
    rest: slice::Iter<'a, Tree>,
    next: usize,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = DecodeError;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, DecodeError> {
        let Some(tree) = self.rest.next() else {
            return Ok(None);
        };
        let index = self.next;
        self.next += 1;
        seed.deserialize(Decoder::new(tree))
            .map(Some)
            .map_err(|error| error.at(tree.position).under(format!("[{index}]")))
    }
}

struct Entries<'a> {
    rest: slice::Iter<'a, (Key, Tree)>,
    skip: &'a [&'a str],
    skip_empty: bool,
    entry: Option<&'a (Key, Tree)>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = DecodeError;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, DecodeError> {
        let (skip, skip_empty) = (self.skip, self.skip_empty);
        self.entry = self.rest.find(|(key, value)| {
            let empty = skip_empty && value.content == Content::Null;
            !empty && !skip.contains(&key.name.as_str())
        });
        let Some((key, _)) = self.entry else {
            return Ok(None);
        };
        seed.deserialize(key.name.as_str().into_deserializer())
            .map(Some)
            .map_err(|error: DecodeError| {
                let error = error.at(key.position);
                match error.path.is_empty() {
                    true => error.under(key.name.as_str()),
                    false => error,
                }
            })
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(
        &mut self,
        seed: V,
    ) -> Result<V::Value, DecodeError> {
        let Some((key, value)) = self.entry.take() else {
            return Err(DecodeError::custom("a value was asked for before its key"));
        };
        seed.deserialize(Decoder::new(value))
            .map_err(|error| error.at(value.position).under(key.name.as_str()))
    }
}

/// An enum's variant by its name; variants carry no data.
struct Variant<'a>(&'a str);

impl<'de, 'a> EnumAccess<'de> for Variant<'a> {
    type Error = DecodeError;
    type Variant = Self;

    fn variant_seed<V: DeserializeSeed<'de>>(
        self,
        seed: V,
    ) -> Result<(V::Value, Self), DecodeError> {
        let name: de::value::StrDeserializer<'a, DecodeError> = self.0.into_deserializer();
        Ok((seed.deserialize(name)?, self))
    }
}

impl<'de> VariantAccess<'de> for Variant<'_> {
    type Error = DecodeError;

    fn unit_variant(self) -> Result<(), DecodeError> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, DecodeError> {
        Err(DecodeError::custom("a value with data does not fit here"))
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, DecodeError> {
        Err(DecodeError::custom("a value with data does not fit here"))
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, DecodeError> {
        Err(DecodeError::custom("a value with data does not fit here"))
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use serde::Deserialize;

    use super::super::documents;

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        inner_list: Vec<Inner>,
        #[serde(default)]
        id: Option<String>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        size: u8,
        mode: Option<Mode>,
        address: Option<Ipv4Addr>,
        on: Option<bool>,
    }

    #[derive(Debug, Deserialize)]
    #[allow(dead_code)]
    enum Mode {
        Never,
        Always,
    }

    fn error(text: &str) -> String {
        let tree = documents(text).remove(0).unwrap();
        let (position, fault) = tree.decode::<Outer>(&[]).unwrap_err();
        format!(
            "{}:{}: {}: {}; {}",
            position.line, position.column, fault.field, fault.reason, fault.remedy
        )
    }

    #[test]
    fn errors_name_the_place_the_field_and_what_would_be_right() {
        let cases = [
            (
                "innerList:\n- sise: 1\n",
                "2:3: innerList[0].sise: unknown field; remove it, or write 'size'",
            ),
            (
                "innerList:\n- size: 1\n- mode: Always\n",
                "3:3: innerList[1].size: the field is missing; add it",
            ),
            (
                "innerList:\n- size: 300\n",
                "2:9: innerList[0].size: integer `300` is out of range; \
                 write a whole number from 0 to 255",
            ),
            (
                "innerList:\n- size: one\n",
                "2:9: innerList[0].size: 'one' does not fit here; \
                 write a whole number from 0 to 255",
            ),
            (
                "innerList: [{size: 1, mode: always}]\n",
                "1:29: innerList[0].mode: 'always' is not a value of this field; write 'Always'",
            ),
            (
                "innerList: [{size: 1, mode: Sometimes}]\n",
                "1:29: innerList[0].mode: 'Sometimes' is not a value of this field; \
                 write one of Never, Always",
            ),
            (
                "innerList: [{size: 1, address: 10.0.0.300}]\n",
                "1:32: innerList[0].address: '10.0.0.300': invalid IPv4 address syntax; \
                 write an IPv4 address such as 10.65.0.2",
            ),
            (
                "innerList: [{size: 1, on: yes}]\n",
                "1:27: innerList[0].on: 'yes' does not fit here; write true or false",
            ),
            (
                "innerList: 7\n",
                "1:12: innerList: the number 7 does not fit here; write a list",
            ),
            (
                "innerList: []\nid: true\n",
                "2:5: id: true is a boolean, and the field is a text; write 'true' in quotes",
            ),
            (
                "- a\n",
                "1:1: : a list does not fit here; write a mapping of fields",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(error(text), expected, "{text}");
        }
    }

    #[test]
    fn a_text_may_look_like_a_number() {
        let text = "innerList: []\nid: 1337495556942031415926535\n";
        let tree = documents(text).remove(0).unwrap();
        let outer: Outer = tree.decode(&[]).unwrap();
        assert_eq!(outer.id.unwrap(), "1337495556942031415926535");
    }
}
