//! BGP's part in a node: what the speaker is told by the resources, and what becomes of its routes.

mod filters;
mod handover;
pub mod plan;
pub mod rows;
pub mod side;

pub use side::{BgpSide, Farewell, SpeakerSlot};
