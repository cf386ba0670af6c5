//! `underpass capture`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals};

use super::args::CaptureArguments;
use super::client::{self, Client, Connection};
use super::{Failure, output_failure};
use crate::observe::capture::PcapngFile;
use crate::observe::dissect::Dissector;
use crate::observe::protocol::{
    CaptureEnd, CaptureRequest, CaptureStart, EndReason, LinkType, PacketRow, Reply, Request,
};

/// Captures until the count is reached, the ports are gone or the user stops it, then says how much
/// on standard error.
pub fn run(client: Client, arguments: &CaptureArguments) -> Result<(), Failure> {
    let request = CaptureRequest {
        ports: arguments.port.clone(),
        count: arguments.count,
        snap_length: arguments.snaplen,
    };
    let mut connection = client.connect(&Request::Capture(request))?;
    let start = match connection.next()? {
        Some(Reply::Capture(start)) => start,
        Some(other) => return Err(client::unexpected(&other)),
        None => return Err("the node ended the connection".to_owned().into()),
    };
    let mut outputs = Outputs::open(arguments, &start)?;
    let stop = stop_on_signal(connection.stream())?;
    let names: Vec<_> = start.ports.iter().map(|port| port.name.as_str()).collect();
    eprintln!("capturing from {}; Ctrl-C ends it", names.join(", "));
    let end = receive(&mut connection, &mut outputs);
    stop.close();
    let missed = match &end {
        Ok(Some(end)) => end.missed,
        _ => 0,
    };
    let finished = outputs.finish(missed);
    report(end?, outputs.packets)?;
    finished
}

/// Makes Ctrl-C and SIGTERM end the stream, upon which the node sends the last line; a second one
/// ends the process as it would without us.
fn stop_on_signal(stream: &UnixStream) -> Result<Handle, Failure> {
    let prepare = || -> io::Result<Handle> {
        let stream = stream.try_clone()?;
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        thread::Builder::new()
            .name("signals".to_owned())
            .spawn(move || {
                for (count, signal) in signals.forever().enumerate() {
                    if count > 0 {
                        let _ = signal_hook::low_level::emulate_default_handler(signal);
                    }
                    let _ = stream.shutdown(Shutdown::Write);
                }
            })?;
        Ok(handle)
    };
    prepare().map_err(|error| format!("cannot listen for signals: {error}").into())
}

/// Takes packets until the last line; nothing if the node went away without one.
fn receive(
    connection: &mut Connection,
    outputs: &mut Outputs,
) -> Result<Option<CaptureEnd>, Failure> {
    loop {
        match connection.next()? {
            Some(Reply::Packet(packet)) => outputs.packet(&packet, !connection.has_more())?,
            Some(Reply::End(end)) => return Ok(Some(end)),
            Some(other) => return Err(client::unexpected(&other)),
            None => return Ok(None),
        }
    }
}

fn report(end: Option<CaptureEnd>, packets: u64) -> Result<(), Failure> {
    eprintln!("{packets} packets captured");
    let Some(end) = end else {
        return Err("the node went away".to_owned().into());
    };
    eprintln!(
        "{} packets missed because they came faster than they were taken",
        end.missed
    );
    match end.reason {
        EndReason::PortsGone => Err("the captured ports are gone".to_owned().into()),
        EndReason::Client | EndReason::Count => Ok(()),
    }
}

/// Where packets go.
struct Outputs {
    file: Option<PcapngFile<Box<dyn Write>>>,
    lines: Option<Lines>,
    packets: u64,
}

/// The printed lines and what they are made with.
struct Lines {
    output: Box<dyn Write>,
    dissector: Dissector,
    ports: BTreeMap<u16, (String, LinkType)>,
}

impl Outputs {
    fn open(arguments: &CaptureArguments, start: &CaptureStart) -> Result<Self, Failure> {
        let to_stdout = arguments.write.as_deref() == Some(Path::new("-"));
        let file = match &arguments.write {
            None => None,
            Some(path) => {
                let cannot = |error: io::Error| format!("cannot write {}: {error}", path.display());
                let output: Box<dyn Write> = match to_stdout {
                    true => Box::new(BufWriter::new(io::stdout())),
                    false => Box::new(BufWriter::new(File::create(path).map_err(cannot)?)),
                };
                let mut file = PcapngFile::new(output, &start.ports, start.snap_length)
                    .map_err(output_failure)?;
                file.flush().map_err(output_failure)?;
                Some(file)
            }
        };
        let printed = arguments.print || file.is_none();
        let lines = printed.then(|| Lines::new(arguments, start, to_stdout));
        Ok(Self {
            file,
            lines,
            packets: 0,
        })
    }

    /// Takes a packet; `last` if none follows at once, so that what is there should be seen.
    fn packet(&mut self, packet: &PacketRow, last: bool) -> Result<(), Failure> {
        self.packets += 1;
        if let Some(file) = &mut self.file {
            file.write(packet).map_err(output_failure)?;
            if last {
                file.flush().map_err(output_failure)?;
            }
        }
        match &mut self.lines {
            Some(lines) => lines.packet(packet, last).map_err(output_failure),
            None => Ok(()),
        }
    }

    fn finish(&mut self, missed: u64) -> Result<(), Failure> {
        let file = self.file.take().map_or(Ok(()), |file| file.finish(missed));
        let lines = self
            .lines
            .as_mut()
            .map_or(Ok(()), |lines| lines.output.flush());
        file.and(lines).map_err(output_failure)
    }
}

impl Lines {
    /// Lines on standard output, or on standard error if the file is there.
    fn new(arguments: &CaptureArguments, start: &CaptureStart, to_stderr: bool) -> Self {
        let output: Box<dyn Write> = match to_stderr {
            true => Box::new(io::stderr()),
            false => Box::new(BufWriter::new(io::stdout())),
        };
        let dissector = Dissector::default();
        let ports = start.ports.iter();
        Self {
            output,
            dissector: match arguments.vxlan_port {
                Some(port) => dissector.with_vxlan_port(port),
                None => dissector,
            },
            ports: ports
                .map(|port| (port.id, (port.name.clone(), port.link)))
                .collect(),
        }
    }

    fn packet(&mut self, packet: &PacketRow, last: bool) -> io::Result<()> {
        let Some((name, link)) = self.ports.get(&packet.port) else {
            return Ok(());
        };
        writeln!(self.output, "{}", self.dissector.line(name, *link, packet))?;
        if last { self.output.flush() } else { Ok(()) }
    }
}
