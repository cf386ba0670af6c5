//! From resources to forwarding: resolve (pure) and apply.

pub mod check;
pub mod resolve;
