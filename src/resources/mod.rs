//! Calico's resource types and the node's own configuration.
