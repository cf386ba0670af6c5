//! The process's own heap.
#![allow(unsafe_code)] // A call of the C library's.

/// Has the allocator give the kernel those pages back that nobody uses. It keeps them otherwise, wherever
/// something small is left above them. Not for the packet path: it walks over the whole heap.
pub fn give_pages_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: malloc_trim has no conditions, and may be called by any thread at any time (malloc_trim(3)).
    unsafe {
        libc::malloc_trim(0);
    }
}
