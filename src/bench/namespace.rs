//! Network namespaces without names, and processes inside them.
//!
//! A namespace lives as long as a descriptor of it is open or a process is inside. The descriptors are
//! this process's, and the processes end with it, so nothing is left behind however it ends.

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, CpuSet, sched_setaffinity, setns, unshare};
use nix::sys::{prctl, signal::Signal};
use nix::unistd::{Pid, getppid};

use super::error::{BenchError, Result};

/// The verb by which the binary starts a program inside a namespace; see [`enter`].
pub const ENTER: &str = "bench-enter";

/// A network namespace that nothing else knows.
#[derive(Debug)]
pub struct Namespace {
    /// What is in it, for messages.
    label: &'static str,
    file: File,
}

impl Namespace {
    /// Makes one, with its loopback device up.
    pub fn new(label: &'static str) -> Result<Self> {
        let made = thread::scope(|scope| {
            let maker = scope.spawn(|| -> Result<File> {
                unshare(CloneFlags::CLONE_NEWNET)
                    .map_err(BenchError::errno("making a network namespace"))?;
                File::open("/proc/thread-self/ns/net")
                    .map_err(BenchError::io("opening a network namespace"))
            });
            joined(maker.join())
        })?;
        let namespace = Self { label, file: made };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// The calling thread's namespace.
    pub fn current(label: &'static str) -> Result<Self> {
        let file = File::open("/proc/thread-self/ns/net")
            .map_err(BenchError::io("opening this network namespace"))?;
        Ok(Self { label, file })
    }

    /// A path by which other processes can open it, as long as this one lives.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.file.as_raw_fd()
        ))
    }

    /// Runs `work` in a thread of its own inside the namespace.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(move || {
                setns(self.file.as_fd(), CloneFlags::CLONE_NEWNET)
                    .map_err(BenchError::errno("entering a network namespace"))?;
                work()
            });
            joined(worker.join())
        })
    }

    /// [`Namespace::run`] with the namespace's devices below `/sys/class/net`.
    pub fn run_with_sysfs<T: Send>(&self, work: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        self.run(move || {
            own_sysfs()?;
            work()
        })
    }

    /// Runs lines of `ip -batch` inside.
    pub fn ip(&self, lines: &str) -> Result<()> {
        self.run(|| {
            let mut child = Command::new("ip")
                .args(["-batch", "-"])
                .stdin(Stdio::piped())
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .map_err(BenchError::io("running ip (iproute2)"))?;
            if let Some(mut input) = child.stdin.take() {
                input
                    .write_all(lines.as_bytes())
                    .map_err(BenchError::io("writing to ip"))?;
            }
            let output = child
                .wait_with_output()
                .map_err(BenchError::io("waiting for ip"))?;
            if output.status.success() {
                return Ok(());
            }
            Err(BenchError::Command {
                command: format!("ip -batch ({}): {}", self.label, lines.trim()),
                output: String::from_utf8_lossy(&output.stderr).trim().to_owned(),
            })
        })
    }

    /// Writes a setting below `/proc/sys` or `/sys/class/net`, as the namespace sees them.
    pub fn write(&self, path: &str, value: &str) -> Result<()> {
        let write = || {
            std::fs::write(path, value)
                .map_err(BenchError::io(format!("writing {value} to {path}")))
        };
        if path.starts_with("/sys/") {
            self.run_with_sysfs(write)
        } else {
            self.run(write)
        }
    }

    /// A program to be started inside: it sees the namespace's devices in `/sys`, may use `cpu`
    /// alone, and is killed when the calling thread ends.
    pub fn command(&self, cpu: Option<usize>, program: impl AsRef<OsStr>) -> Result<Command> {
        let own = std::env::current_exe().map_err(BenchError::io("finding this program's file"))?;
        let mut command = Command::new(own);
        command.arg(ENTER).arg("--netns").arg(self.path());
        command.args(["--parent", &std::process::id().to_string()]);
        if let Some(cpu) = cpu {
            command.args(["--cpu", &cpu.to_string()]);
        }
        command.arg("--").arg(program).stdin(Stdio::null());
        Ok(command)
    }
}

/// What a process that was started by [`Namespace::command`] does first; it returns only if that
/// fails.
pub fn enter(netns: &Path, parent: u32, cpu: Option<usize>, command: &[String]) -> BenchError {
    let prepare = || -> Result<()> {
        prctl::set_pdeathsig(Signal::SIGKILL)
            .map_err(BenchError::errno("binding this process to its parent"))?;
        // The parent may have ended before it could be heard of.
        if getppid().as_raw().cast_unsigned() != parent {
            return Err(BenchError::Interrupted);
        }
        let file =
            File::open(netns).map_err(BenchError::io(format!("opening {}", netns.display())))?;
        setns(file.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(BenchError::errno("entering a network namespace"))?;
        own_sysfs()?;
        cpu.map_or(Ok(()), |cpu| pin(Pid::from_raw(0), cpu))
    };
    if let Err(error) = prepare() {
        return error;
    }
    let Some((program, arguments)) = command.split_first() else {
        return BenchError::Option(format!("{ENTER}: name a program after `--`"));
    };
    let error = Command::new(program).args(arguments).exec();
    BenchError::io(format!("starting {program}"))(error)
}

/// Ties a thread or process to one CPU.
pub fn pin(pid: Pid, cpu: usize) -> Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)
        .and_then(|()| sched_setaffinity(pid, &set))
        .map_err(BenchError::errno(format!("pinning {pid} to CPU {cpu}")))
}

/// A directory of files that goes with this process: a file system in memory that is mounted nowhere.
#[derive(Debug)]
pub struct PrivateDirectory(File);

impl PrivateDirectory {
    /// Makes one. It is mounted in a mount namespace that ends at once, and is held by a descriptor.
    pub fn new() -> Result<Self> {
        let opened = thread::scope(|scope| joined(scope.spawn(Self::mounted).join()))?;
        Ok(Self(opened))
    }

    /// A path by which this process and its children reach it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from(format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.0.as_raw_fd()
        ))
    }

    fn mounted() -> Result<File> {
        private_mounts()?;
        // Any directory will do: only this thread sees what lies on it.
        let place = Path::new("/proc");
        mount(
            Some("underpass-bench"),
            place,
            Some("tmpfs"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .map_err(BenchError::errno("mounting a file system in memory"))?;
        File::open(place).map_err(BenchError::io("opening a directory in memory"))
    }
}

fn own_sysfs() -> Result<()> {
    private_mounts()?;
    mount(
        Some("sysfs"),
        "/sys",
        Some("sysfs"),
        MsFlags::empty(),
        None::<&str>,
    )
    .map_err(BenchError::errno("mounting sysfs"))
}

fn private_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(BenchError::errno("making a mount namespace"))?;
    let flags = MsFlags::MS_REC | MsFlags::MS_SLAVE;
    mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
        .map_err(BenchError::errno("making mounts private"))
}

fn joined<T>(result: thread::Result<T>) -> T {
    match result {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}
