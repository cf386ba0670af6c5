//! Calico's selector language: which labels an object must have.
//!
//! ```text
//! or    = and { "||" and }
//! and   = not { "&&" not }
//! not   = { "!" } term
//! term  = "all()" | "global()" | "has(" key ")" | "(" or ")"
//!       | key ( "==" | "!=" | "contains" | "starts with" | "ends with" ) value
//!       | key ( "in" | "not in" ) "{" [ value { "," value } ] "}"
//! value = '"' … '"' | "'" … "'"           (no escapes)
//! ```
//!
//! An empty selector is `all()`. [`Selector`] keeps what was written beside its meaning;
//! [`Selector::canonical`] is Calico's own spelling of it, equal for equal meanings up to order.

mod ast;
mod index;
mod parser;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::text::by_text;

pub use ast::Expression;
pub use index::{Change, SelectorIndex};

/// A selector as it was written, and what it means.
#[derive(Debug, Clone)]
pub struct Selector {
    text: Arc<str>,
    expression: Arc<Expression>,
}

/// What labels a thing has.
pub type Labels = BTreeMap<String, String>;

/// A text that is no selector, in the words of Calico's parser.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectorError {
    /// Not in the language.
    #[error(
        "'{text}' is not a selector: {reason}; \
         write one such as all(), has(role) or role == 'web' && zone in {{'a', 'b'}}"
    )]
    Syntax {
        /// What stands there.
        text: String,
        /// Calico's words.
        reason: String,
    },
    /// Longer than Calico takes.
    #[error("the selector has {0} characters; write at most 1024")]
    TooLong(usize),
}

/// Calico's limit on a selector's length, in characters.
const LENGTH_MAX: usize = 1024;

by_text!(Selector);

impl Selector {
    /// The selector that selects everything.
    pub fn all() -> Self {
        Self {
            text: "all()".into(),
            expression: Arc::new(Expression::All),
        }
    }

    /// The selector as it was written; empty if nothing was.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// What it means.
    pub fn expression(&self) -> &Expression {
        &self.expression
    }

    /// Whether a thing with these labels is selected.
    pub fn matches(&self, labels: &Labels) -> bool {
        self.expression.matches(labels)
    }

    /// Calico's spelling of it: `has(a)`, `a == "b"`, sets sorted, `(x && y)`, `(x || y)`.
    pub fn canonical(&self) -> String {
        self.expression.to_string()
    }

    /// Whether nothing was written, which selects everything.
    pub fn is_empty(&self) -> bool {
        self.text.trim().is_empty()
    }
}

impl Default for Selector {
    /// What stands for a field that is not there: an empty selector, which selects everything.
    fn default() -> Self {
        Self {
            text: "".into(),
            expression: Arc::new(Expression::All),
        }
    }
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        let length = text.chars().count();
        if length > LENGTH_MAX {
            return Err(SelectorError::TooLong(length));
        }
        let expression = parser::parse(text).map_err(|reason| SelectorError::Syntax {
            text: text.to_owned(),
            reason,
        })?;
        Ok(Self {
            text: text.into(),
            expression: Arc::new(expression),
        })
    }
}

/// Two selectors are equal if they are written the same.
impl PartialEq for Selector {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Selector {}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests;
