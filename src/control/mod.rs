//! From resources to forwarding: resolve (pure) and apply.
