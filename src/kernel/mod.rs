//! What underpass reads from and writes to the host kernel.
