//! Where resources are kept: a stream of updates, then in-sync.
