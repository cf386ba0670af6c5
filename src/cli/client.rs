//! The client of a running node's control socket.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use super::args::NodeArguments;
use super::{Failure, Functions};
use crate::observe::protocol::{Reply, Request};

/// Where nodes have their control sockets unless configured otherwise: `NAME.sock`.
pub const RUN_DIRECTORY: &str = "/run/underpass";

/// How long a node may take to answer.
const PATIENCE: Duration = Duration::from_secs(10);

/// A node that can be asked.
#[derive(Debug)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// The node that the command line means; it is not asked yet.
    pub fn find(arguments: &NodeArguments, functions: &Functions) -> Result<Self, Failure> {
        let path = match arguments {
            NodeArguments {
                socket: Some(path), ..
            } => path.clone(),
            NodeArguments {
                config: Some(config),
                ..
            } => (functions.control_socket)(config)?,
            NodeArguments {
                node: Some(name), ..
            } => socket_of(Path::new(RUN_DIRECTORY), name)?,
            _ => only_socket(Path::new(RUN_DIRECTORY))?,
        };
        Ok(Self { path })
    }

    /// Asks for one thing and waits for the answer; a node's refusal is a failure.
    pub fn ask(&self, request: &Request) -> Result<Reply, Failure> {
        self.ask_within(request, PATIENCE)
    }

    /// As [`Client::ask`], where the answer takes longer.
    pub fn ask_within(&self, request: &Request, patience: Duration) -> Result<Reply, Failure> {
        let mut connection = self.connect(request)?;
        connection
            .stream()
            .set_read_timeout(Some(patience))
            .map_err(|e| self.failure(&e))?;
        connection.next()?.ok_or_else(|| {
            "the node ended the connection without an answer"
                .to_owned()
                .into()
        })
    }

    /// Asks, and leaves the answers to be read.
    pub fn connect(&self, request: &Request) -> Result<Connection, Failure> {
        let mut stream = UnixStream::connect(&self.path).map_err(|error| self.failure(&error))?;
        let mut line = serde_json::to_vec(request).map_err(|error| error.to_string())?;
        line.push(b'\n');
        // A node that turns a client away says so before it reads: the answer is worth more than
        // the failure to ask.
        match stream.write_all(&line) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(self.failure(&error)),
            _ => Ok(Connection {
                reader: BufReader::new(stream),
            }),
        }
    }

    /// The node's process, if it runs.
    pub fn process(&self) -> Option<i32> {
        let stream = UnixStream::connect(&self.path).ok()?;
        let peer = getsockopt(&stream, PeerCredentials).ok()?;
        Some(peer.pid()).filter(|pid| *pid > 0)
    }

    fn failure(&self, error: &io::Error) -> Failure {
        let path = self.path.display();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!(
                "no node answers on {path}; is it running? `underpass run --config FILE` starts it"
            ),
            io::ErrorKind::PermissionDenied => {
                format!("{path} belongs to another user; ask as the user that runs the node (root)")
            }
            _ => format!("cannot ask the node on {path}: {error}"),
        }
        .into()
    }
}

/// A connection on which a node answers.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<UnixStream>,
}

impl Connection {
    /// The next line, or nothing once the node has ended the connection; a node's refusal is a
    /// failure.
    pub fn next(&mut self) -> Result<Option<Reply>, Failure> {
        let mut line = Vec::new();
        let read = self.reader.read_until(b'\n', &mut line);
        let count = read.map_err(|error| format!("the node does not answer: {error}"))?;
        if count == 0 {
            return Ok(None);
        }
        match serde_json::from_slice(&line) {
            Ok(Reply::Error(text)) => Err(text.into()),
            Ok(reply) => Ok(Some(reply)),
            Err(error) => Err(format!(
                "the node's answer is not understood ({error}); is it of another version?"
            )
            .into()),
        }
    }

    /// Whether a part of the next answer has arrived already.
    pub fn has_more(&self) -> bool {
        !self.reader.buffer().is_empty()
    }

    /// The socket.
    pub fn stream(&self) -> &UnixStream {
        self.reader.get_ref()
    }
}

/// The failure of an answer to another question than was asked.
pub fn unexpected(reply: &Reply) -> Failure {
    let text = format!("{reply:?}");
    let start: String = text.chars().take(60).collect();
    format!("the node answered something else: {start}").into()
}

fn socket_of(directory: &Path, name: &str) -> Result<PathBuf, Failure> {
    if name.is_empty() || name.contains('/') || name.starts_with('.') {
        return Err(format!("'{name}' is not a node's name").into());
    }
    let path = directory.join(format!("{name}.sock"));
    if path.exists() {
        return Ok(path);
    }
    let there = match names(directory) {
        names if names.is_empty() => "no node runs here".to_owned(),
        names => format!("there are: {}", names.join(", ")),
    };
    Err(format!(
        "no node '{name}' has a control socket in {}; {there}",
        directory.display()
    )
    .into())
}

fn only_socket(directory: &Path) -> Result<PathBuf, Failure> {
    let names = names(directory);
    match &names[..] {
        [] => Err(format!(
            "no node has a control socket in {}; start one with `underpass run`, or name its \
             socket with --socket",
            directory.display()
        )
        .into()),
        [name] => Ok(directory.join(format!("{name}.sock"))),
        _ => Err(format!(
            "several nodes run here; say which with --node: {}",
            names.join(", ")
        )
        .into()),
    }
}

fn names(directory: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let name = |entry: io::Result<fs::DirEntry>| {
        let name = entry.ok()?.file_name().into_string().ok()?;
        name.strip_suffix(".sock").map(str::to_owned)
    };
    let mut names: Vec<_> = entries.filter_map(name).collect();
    names.sort_unstable();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
        match outcome {
            Err(Failure::Told(lines)) => lines.join("\n"),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_node_is_found_by_its_name_or_by_being_the_only_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        assert!(told(only_socket(path)).contains("no node has a control socket"));
        assert!(told(socket_of(path, "worker1")).contains("no node runs here"));
        fs::write(path.join("worker1.sock"), "").unwrap();
        fs::write(path.join("notes"), "").unwrap();
        assert_eq!(only_socket(path).unwrap(), path.join("worker1.sock"));
        assert_eq!(
            socket_of(path, "worker1").unwrap(),
            path.join("worker1.sock")
        );
        fs::write(path.join("master.sock"), "").unwrap();
        assert!(told(only_socket(path)).ends_with("--node: master, worker1"));
        assert!(told(socket_of(path, "worker9")).ends_with("there are: master, worker1"));
        assert!(told(socket_of(path, "../worker1")).contains("not a node's name"));
    }
}
