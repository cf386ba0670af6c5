//! Metrics, health and capture.
