//! The fast path of a node: which ports take part ([`FastPathSide`]), and what its maps follow
//! ([`FastPathMirror`]).

mod mirror;
mod side;

pub use mirror::FastPathMirror;
pub use side::FastPathSide;
