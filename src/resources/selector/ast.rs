//! What a selector means, and Calico's spelling of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use super::Labels;

/// A selector's meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expression {
    /// `all()`.
    All,
    /// `global()`: like `all()`, but as a namespace selector it means what has no namespace.
    Global,
    /// `has(key)`.
    Has(String),
    /// `key == "value"`.
    Equal(String, String),
    /// `key != "value"`; true without the label.
    NotEqual(String, String),
    /// `key contains "value"`.
    Contains(String, String),
    /// `key starts with "value"`.
    StartsWith(String, String),
    /// `key ends with "value"`.
    EndsWith(String, String),
    /// `key in {"value", …}`.
    In(String, BTreeSet<String>),
    /// `key not in {"value", …}`; true without the label.
    NotIn(String, BTreeSet<String>),
    /// `!x`.
    Not(Box<Expression>),
    /// `(x && y …)`.
    And(Vec<Expression>),
    /// `(x || y …)`.
    Or(Vec<Expression>),
}

/// What a label must be for a selector to match at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needs {
    /// It must be there.
    Present,
    /// It must be there with one of these values; with none, nothing matches.
    OneOf(BTreeSet<String>),
}

impl Expression {
    /// Whether a thing with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        let value = |key: &String| labels.get(key).map(String::as_str);
        match self {
            Self::All | Self::Global => true,
            Self::Has(key) => value(key).is_some(),
            Self::Equal(key, wanted) => value(key) == Some(wanted),
            Self::NotEqual(key, wanted) => value(key) != Some(wanted),
            Self::Contains(key, part) => value(key).is_some_and(|value| value.contains(part)),
            Self::StartsWith(key, part) => value(key).is_some_and(|value| value.starts_with(part)),
            Self::EndsWith(key, part) => value(key).is_some_and(|value| value.ends_with(part)),
            Self::In(key, set) => value(key).is_some_and(|value| set.contains(value)),
            Self::NotIn(key, set) => !value(key).is_some_and(|value| set.contains(value)),
            Self::Not(operand) => !operand.matches(labels),
            Self::And(operands) => operands.iter().all(|operand| operand.matches(labels)),
            Self::Or(operands) => operands.iter().any(|operand| operand.matches(labels)),
        }
    }

    /// Whether `global()` stands in it anywhere.
    pub fn mentions_global(&self) -> bool {
        match self {
            Self::Global => true,
            Self::Not(operand) => operand.mentions_global(),
            Self::And(operands) | Self::Or(operands) => operands.iter().any(Self::mentions_global),
            _ => false,
        }
    }

    /// Labels that anything it selects must have, by key.
    pub(super) fn needs(&self) -> BTreeMap<&str, Needs> {
        match self {
            Self::Has(key)
            | Self::Contains(key, _)
            | Self::StartsWith(key, _)
            | Self::EndsWith(key, _) => BTreeMap::from([(key.as_str(), Needs::Present)]),
            Self::Equal(key, value) => {
                let one = BTreeSet::from([value.clone()]);
                BTreeMap::from([(key.as_str(), Needs::OneOf(one))])
            }
            Self::In(key, set) => BTreeMap::from([(key.as_str(), Needs::OneOf(set.clone()))]),
            Self::And(operands) => operands.iter().map(Self::needs).fold(BTreeMap::new(), both),
            Self::Or(operands) => operands
                .iter()
                .map(Self::needs)
                .reduce(either)
                .unwrap_or_default(),
            Self::All | Self::Global | Self::NotEqual(..) | Self::NotIn(..) | Self::Not(_) => {
                BTreeMap::new()
            }
        }
    }
}

type NeedsByKey<'a> = BTreeMap<&'a str, Needs>;

fn both<'a>(mut left: NeedsByKey<'a>, right: NeedsByKey<'a>) -> NeedsByKey<'a> {
    for (key, new) in right {
        let merged = match (left.remove(key), new) {
            (Some(Needs::OneOf(a)), Needs::OneOf(b)) => Needs::OneOf(&a & &b),
            (Some(set @ Needs::OneOf(_)), Needs::Present) => set,
            (_, new) => new,
        };
        left.insert(key, merged);
    }
    left
}

fn either<'a>(left: NeedsByKey<'a>, mut right: NeedsByKey<'a>) -> NeedsByKey<'a> {
    let merge = |(key, a)| {
        let merged = match (a, right.remove(key)?) {
            (Needs::OneOf(a), Needs::OneOf(b)) => Needs::OneOf(&a | &b),
            _ => Needs::Present,
        };
        Some((key, merged))
    };
    left.into_iter().filter_map(merge).collect()
}

impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all()"),
            Self::Global => f.write_str("global()"),
            Self::Has(key) => write!(f, "has({key})"),
            Self::Equal(key, value) => write!(f, "{key} == {}", Quoted(value)),
            Self::NotEqual(key, value) => write!(f, "{key} != {}", Quoted(value)),
            Self::Contains(key, value) => write!(f, "{key} contains {}", Quoted(value)),
            Self::StartsWith(key, value) => write!(f, "{key} starts with {}", Quoted(value)),
            Self::EndsWith(key, value) => write!(f, "{key} ends with {}", Quoted(value)),
            Self::In(key, set) => write!(f, "{key} in {}", Set(set)),
            Self::NotIn(key, set) => write!(f, "{key} not in {}", Set(set)),
            Self::Not(operand) => write!(f, "!{operand}"),
            Self::And(operands) => joined(f, operands, " && "),
            Self::Or(operands) => joined(f, operands, " || "),
        }
    }
}

fn joined(f: &mut fmt::Formatter<'_>, operands: &[Expression], operator: &str) -> fmt::Result {
    f.write_str("(")?;
    for (index, operand) in operands.iter().enumerate() {
        if index > 0 {
            f.write_str(operator)?;
        }
        write!(f, "{operand}")?;
    }
    f.write_str(")")
}

/// A value in the quotes that it does not contain.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quote = if self.0.contains('"') { '\'' } else { '"' };
        write!(f, "{quote}{}{quote}", self.0)
    }
}

struct Set<'a>(&'a BTreeSet<String>);

impl fmt::Display for Set<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, value) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str(", ")?;
            }
            Quoted(value).fmt(f)?;
        }
        f.write_str("}")
    }
}
