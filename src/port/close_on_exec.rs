//! Keeps ports from programs that this process starts: libxdp and tun-tap open their descriptors
//! without `O_CLOEXEC`, and a device or socket lives as long as any copy of its descriptor.
#![allow(unsafe_code)] // Foreign handles give their descriptors as plain numbers.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

/// Marks what `owner` has open as not to be inherited.
pub(super) fn close_on_exec(owner: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the descriptor is the owner's, which is borrowed for longer than this lives.
    let descriptor = unsafe { BorrowedFd::borrow_raw(owner.as_raw_fd()) };
    fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC))?;
    Ok(())
}
