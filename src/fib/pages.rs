//! Memory of the tables that readers share.
#![allow(unsafe_code)] // A system call.

use zerocopy::FromZeros;

/// Zeroed memory of which the kernel gives pages where something was written, 2 MiB at a time if it can:
/// a random look-up in pages of 4 KiB misses the TLB as well.
pub(super) fn zeroed_in_huge_pages<T: FromZeros>(what: &str) -> Box<T> {
    let memory = zeroed(what);
    advise::<T>(&memory);
    memory
}

/// Zeroed memory of which the kernel gives pages where something was written.
pub(super) fn zeroed<T: FromZeros>(what: &str) -> Box<T> {
    T::new_box_zeroed().unwrap_or_else(|_| {
        let size = size_of::<T>();
        panic!("fib: out of memory: no {size} bytes of address space for {what}")
    })
}

fn advise<T>(memory: &T) {
    const PAGE: usize = 4096;
    let begin = std::ptr::from_ref(memory).addr().next_multiple_of(PAGE);
    let end = (std::ptr::from_ref(memory).addr() + size_of::<T>()) / PAGE * PAGE;
    let pages = std::ptr::from_ref(memory).with_addr(begin).cast_mut();
    // SAFETY: the range lies within the allocation of `memory`. MADV_HUGEPAGE changes neither what is in
    // it nor who may reach it (madvise(2)), and stays with the addresses when they are given back, where
    // it is a hint about somebody else's memory. A kernel without huge pages refuses, which is no loss.
    unsafe {
        libc::madvise(pages.cast(), end.saturating_sub(begin), libc::MADV_HUGEPAGE);
    }
}
