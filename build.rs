//! Compiles the BPF programs: the one that the AF_XDP ports load, and the bench's load.

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Each source and the object that is made of it.
const PROGRAMS: [(&str, &str); 4] = [
    ("src/port/xdp/steer.bpf.c", "steer.bpf.o"),
    ("src/port/xdp/fast.bpf.c", "fast.bpf.o"),
    ("src/port/tuntap/barrier.bpf.c", "barrier.bpf.o"),
    ("src/bench/load/load.bpf.c", "load.bpf.o"),
];

/// What the sources include.
const HEADERS: [&str; 3] = [
    "src/port/xdp/kernel.bpf.h",
    "src/port/xdp/fast_maps.bpf.h",
    "src/port/xdp/fast_parse.bpf.h",
];

fn main() {
    println!("cargo::rerun-if-env-changed=CLANG");
    for header in HEADERS {
        println!("cargo::rerun-if-changed={header}");
    }
    for (source, object) in PROGRAMS {
        println!("cargo::rerun-if-changed={source}");
        if let Err(problem) = compile(source, object) {
            println!("cargo::error={problem}");
        }
    }
}

fn compile(source: &str, object: &str) -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?;
    let object = PathBuf::from(directory).join(object);
    let output = Command::new(&clang)
        .args([
            "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-mcpu=v3", "-c", source,
            "-o",
        ])
        .arg(&object)
        .output()
        .map_err(|error| {
            format!(
                "cannot run '{clang}' to compile {source}: {error}; install clang (Debian: \
                 apt-get install clang) or set CLANG to one that knows '-target bpf'"
            )
        })?;
    if output.status.success() {
        return Ok(());
    }
    for line in String::from_utf8_lossy(&output.stderr).lines() {
        println!("cargo::warning={line}");
    }
    Err(format!(
        "'{clang}' could not compile {source} for bpf ({}); its messages are above",
        output.status
    ))
}
