//! The pure packet path, one stage a file.
