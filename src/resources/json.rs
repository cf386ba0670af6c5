//! Values of fields that are kept as they are written.

use serde::{Deserialize, Serialize};

/// Any value: what a field holds whose meaning is nobody's here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Json(pub serde_json::Value);
