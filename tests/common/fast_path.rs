//! With UNDERPASS_TEST_FAST_PATH=on (or auto) in the environment, the nodes that tests run have a fast
//! path: what is true of the packet path must be true with it.
#![allow(dead_code, missing_docs)]

/// The line that a node's configuration gets.
pub fn configuration() -> String {
    match std::env::var("UNDERPASS_TEST_FAST_PATH") {
        Ok(wanted) if !wanted.is_empty() => format!("fastPath: {wanted}\n"),
        _ => String::new(),
    }
}
