//! YAML whose every value knows its line and column.
//!
//! A text is split into its documents, each of which is parsed by itself ([`documents`]), so that a
//! broken one does not hide its neighbours. A parsed document is a [`Tree`] of located values;
//! [`Tree::decode`] reads any `serde` type from one, and its errors carry the place and the path of
//! the field. JSON is YAML.

mod decode;
mod tree;

pub(crate) use tree::{Content, Key, Tree, documents, located_documents};
