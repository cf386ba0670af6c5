//! One page that needs nothing but itself.

use super::Report;

/// The page.
pub fn page(_report: &Report) -> String {
    String::new()
}
