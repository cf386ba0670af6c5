//! What the fuzz targets call; `tests/fuzz_corpus.rs` calls the same with the committed corpus.

#[path = "../common/mod.rs"]
pub mod common;
pub mod entries;
pub mod router;
