//! What is wrong with a file, where, and what would be right.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Origin {
    /// The file as it was named when it was opened.
    pub file: Arc<Path>,
    /// The line and column, or nothing if the file as a whole is meant.
    pub position: Option<Position>,
}

/// A line and a column (in characters), both counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: u64,
    /// The column, in characters.
    pub column: u64,
}

/// Something wrong in a file: shown as `file:line:column: field: reason; remedy`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub origin: Origin,
    /// The field's path in its document, such as `spec.cidr`; empty if no one field is to blame.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right; empty if the reason says it already.
    pub remedy: String,
}

/// Something wrong with a value, before it is known where the value came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The field's path, such as `spec.ipNetworks[0]`.
    pub field: String,
    /// What is wrong.
    pub reason: String,
    /// What would be right.
    pub remedy: String,
}

impl Origin {
    /// The file as a whole.
    pub fn file(file: &Path) -> Self {
        Self {
            file: file.into(),
            position: None,
        }
    }
}

impl Problem {
    /// A problem with a file as a whole.
    pub fn with_file(file: &Path, reason: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            origin: Origin::file(file),
            field: String::new(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }
}

impl Fault {
    /// A fault of the field at a path.
    pub fn new(
        field: impl Into<String>,
        reason: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            field: field.into(),
            reason: reason.into(),
            remedy: remedy.into(),
        }
    }

    /// The fault as a problem at a place.
    pub fn at(self, origin: Origin) -> Problem {
        Problem {
            origin,
            field: self.field,
            reason: self.reason,
            remedy: self.remedy,
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        match self.position {
            Some(Position { line, column }) => write!(f, ":{line}:{column}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.reason)?;
        if !self.remedy.is_empty() {
            write!(f, "; {}", self.remedy)?;
        }
        Ok(())
    }
}

impl std::error::Error for Problem {}
