//! Memory that XDP programs and we share, and when they have let go of it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, AtomicU64};

/// An array map's values as memory that the program and we share.
pub(super) struct Mapped {
    memory: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory is only ever touched by atomic operations, and stays mapped as long as this is.
unsafe impl Send for Mapped {}
// SAFETY: as above.
unsafe impl Sync for Mapped {}

impl Mapped {
    pub(super) fn new(map: BorrowedFd<'_>, length: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping of a map's descriptor, which takes nothing from anybody.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                length,
                protection,
                libc::MAP_SHARED,
                map.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(address.cast()).ok_or(io::ErrorKind::Other)?;
        Ok(Self { memory, length })
    }

    pub(super) fn word(&self, at: usize) -> &AtomicU32 {
        assert!(at.is_multiple_of(4) && at + 4 <= self.length);
        // SAFETY: within the mapping and aligned, which starts at a page's beginning.
        unsafe { AtomicU32::from_ptr(self.memory.add(at).cast().as_ptr()) }
    }

    pub(super) fn long(&self, at: usize) -> &AtomicU64 {
        assert!(at.is_multiple_of(8) && at + 8 <= self.length);
        // SAFETY: within the mapping and aligned, which starts at a page's beginning.
        unsafe { AtomicU64::from_ptr(self.memory.add(at).cast().as_ptr()) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which no reference is left.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.length) };
    }
}

/// Waits until every program that may be reading the maps now has ended: membarrier(2) waits for the
/// kernel's RCU readers, which XDP programs are.
pub fn grace() {
    // SAFETY: no memory is passed.
    let result = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_GLOBAL, 0, 0) };
    debug_assert_eq!(
        result, 0,
        "it was found to work when the program was loaded"
    );
}

/// Kernels with isolated CPUs (nohz_full) refuse the wait.
pub(super) fn check_grace() -> Result<(), &'static str> {
    // SAFETY: no memory is passed.
    let commands = unsafe { libc::syscall(libc::SYS_membarrier, libc::MEMBARRIER_CMD_QUERY, 0, 0) };
    if commands >= 0 && commands & libc::c_long::from(libc::MEMBARRIER_CMD_GLOBAL) != 0 {
        return Ok(());
    }
    Err(
        "the kernel cannot wait for its readers (membarrier); it is built without CONFIG_MEMBARRIER, \
         or runs with nohz_full CPUs",
    )
}
