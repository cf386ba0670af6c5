//! Compiles the XDP program that the AF_XDP ports load.

use std::env;
use std::path::PathBuf;
use std::process::Command;

const SOURCE: &str = "src/port/xdp/steer.bpf.c";

fn main() {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-env-changed=CLANG");
    if let Err(problem) = compile() {
        println!("cargo::error={problem}");
    }
}

fn compile() -> Result<(), String> {
    let clang = env::var("CLANG").unwrap_or_else(|_| "clang".to_owned());
    let directory = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set: run this through cargo")?;
    let object = PathBuf::from(directory).join("steer.bpf.o");
    let output = Command::new(&clang)
        .args([
            "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf", "-c", SOURCE, "-o",
        ])
        .arg(&object)
        .output()
        .map_err(|error| {
            format!(
                "cannot run '{clang}' to compile {SOURCE}: {error}; install clang (Debian: \
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
        "'{clang}' could not compile {SOURCE} for bpf ({}); its messages are above",
        output.status
    ))
}
