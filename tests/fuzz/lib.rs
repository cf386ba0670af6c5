//! What the fuzz targets call; `tests/fuzz_corpus.rs` calls the same with the committed corpus.

pub mod bgp;
#[path = "../common/mod.rs"]
pub mod common;
pub mod entries;
pub mod router;
