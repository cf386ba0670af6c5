//! Debian's etcd, started for a test in a directory and on ports of its own.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use underpass::datastore::{Datastore, Etcd, Selection};
use underpass::resources::Kind;
use underpass::resources::datastore::Etcd as Config;

/// A running etcd, in a directory and on ports of its own.
pub struct Server {
    root: TempDir,
    client: u16,
    peer: u16,
    tls: bool,
    process: Option<Child>,
}

impl Server {
    /// Starts one, or says why the test is passed over.
    pub fn start() -> Option<Self> {
        Self::start_with(false)
    }

    pub fn start_with(tls: bool) -> Option<Self> {
        if Command::new("etcd").arg("--version").output().is_err() {
            println!("passed over: no etcd here (apt-get install etcd-server)");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        if tls {
            certificates(root.path());
        }
        let mut server = Self {
            root,
            client: free_port(),
            peer: free_port(),
            tls,
            process: None,
        };
        server.run();
        Some(server)
    }

    pub fn run(&mut self) {
        let scheme = if self.tls { "https" } else { "http" };
        let (client, peer) = (
            format!("{scheme}://127.0.0.1:{}", self.client),
            format!("http://127.0.0.1:{}", self.peer),
        );
        let mut command = Command::new("etcd");
        command
            .args(["--name", "one", "--data-dir"])
            .arg(self.root.path().join("data"))
            .args([
                "--listen-client-urls",
                &client,
                "--advertise-client-urls",
                &client,
            ])
            .args([
                "--listen-peer-urls",
                &peer,
                "--initial-advertise-peer-urls",
                &peer,
            ])
            .args([
                "--initial-cluster",
                &format!("one={peer}"),
                "--unsafe-no-fsync",
            ])
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        if self.tls {
            let file = |name: &str| self.root.path().join(name);
            command
                .arg("--client-cert-auth")
                .arg("--trusted-ca-file")
                .arg(file("ca.pem"));
            command.arg("--cert-file").arg(file("server.pem"));
            command.arg("--key-file").arg(file("server.key"));
        }
        self.process = Some(command.spawn().unwrap());
        let store = self.store();
        let began = Instant::now();
        while store.list(&Selection::kind(Kind::Node)).is_err() {
            assert!(
                began.elapsed() < Duration::from_secs(60),
                "etcd does not start"
            );
        }
    }

    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().unwrap();
            process.wait().unwrap();
        }
    }

    /// Loses all that it kept.
    pub fn wipe(&self) {
        fs::remove_dir_all(self.root.path().join("data")).unwrap();
    }

    pub fn signal(&self, signal: Signal) {
        let pid = self.process.as_ref().unwrap().id();
        kill(Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
    }

    pub fn config(&self) -> Config {
        let file = |name: &str| self.tls.then(|| self.root.path().join(name));
        let scheme = if self.tls { "https" } else { "http" };
        Config {
            endpoints: vec![format!("{scheme}://127.0.0.1:{}", self.client)],
            ca_file: file("ca.pem"),
            cert_file: file("client.pem"),
            key_file: file("client.key"),
            ..Config::default()
        }
    }

    pub fn store(&self) -> Etcd {
        Etcd::new(&self.config()).unwrap()
    }

    /// Runs another client's command.
    pub fn etcdctl(&self, arguments: &[&str]) -> String {
        let output = Command::new("etcdctl")
            .env("ETCDCTL_API", "3")
            .arg("--endpoints")
            .arg(format!("127.0.0.1:{}", self.client))
            .args(arguments)
            .output()
            .unwrap();
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A port that nobody listens on, below those that the kernel gives to connections: between here and its
/// use, one of these could have it. Processes that run side by side begin at ports of their own.
pub fn free_port() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    loop {
        let nth = std::process::id() * 16 + TRIED.fetch_add(1, Ordering::Relaxed);
        let port = 20_000 + (nth % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A certificate authority, and what it signed for a server and a client.
fn certificates(root: &Path) {
    let script = "set -e
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=ca
        for who in server client; do
            openssl req -newkey rsa:2048 -nodes -keyout $who.key -out $who.csr -subj /CN=$who
            printf 'subjectAltName=IP:127.0.0.1\\nextendedKeyUsage=serverAuth,clientAuth' > $who.ext
            openssl x509 -req -in $who.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \
                -extfile $who.ext -out $who.pem
        done";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(root)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
}
