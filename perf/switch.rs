//! A pool's mode switched under load, from workload to workload over two nodes: `cargo bench --bench
//! switch`, as root. 100,000 packets a second by default (`UNDERPASS_RATE`), `ipip → vxlan → direct →
//! vxlan-cross → ipip`, a second each. Fails if a packet is lost.
//!
//! Generator and sink are the bench's, in the kernel: what is sent is what the device took, so that the
//! machine's own pauses are told apart (*skipped*: not sent for want of time).

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::AtomicBool;
use std::thread;
use std::time::{Duration, Instant};

use underpass::bench::load::profile::FrameSize;
use underpass::bench::load::{Load, Order};
use underpass::bench::namespace::{ENTER, PrivateDirectory};
use underpass::bench::systems::documents;
use underpass::bench::topology::{Direction, Outer, Site, Topology};

const UNDERPASS: &str = env!("CARGO_BIN_EXE_underpass");

const RATE: f64 = 100_000.0;
/// How long each mode carries the flow.
const EACH: Duration = Duration::from_secs(1);
/// How long the nodes may take until they forward.
const PATIENCE: Duration = Duration::from_secs(10);
const FLOWS: u32 = 64;
const BLOCK_SIZE: u8 = 26;

/// Mode, ipipMode, vxlanMode.
const MODES: [(&str, &str, &str); 5] = [
    ("ipip", "Always", "Never"),
    ("vxlan", "Never", "Always"),
    ("direct", "Never", "Never"),
    ("vxlan-cross", "Never", "CrossSubnet"),
    ("ipip", "Always", "Never"),
];

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    if !nix::unistd::geteuid().is_root() {
        println!("passed over: namespaces and AF_XDP need root");
        return ExitCode::SUCCESS;
    }
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<bool, Failure> {
    let rate = match std::env::var("UNDERPASS_RATE") {
        Ok(text) => text.parse()?,
        Err(_) => RATE,
    };
    let private = PrivateDirectory::new()?;
    let directory = private.path();
    let topology = Topology::build()?;
    let sites = [&topology.a, &topology.b];
    let datastore = directory.join("datastore");
    fs::create_dir_all(&datastore)?;
    apply_pool(&directory, MODES[0])?;
    fs::write(datastore.join("sites.yaml"), sites.map(resources).concat())?;
    let nodes = sites
        .map(|site| Node::start(site, &directory))
        .into_iter()
        .collect::<Result<Vec<_>, _>>()?;

    let profile = topology.profile(
        Direction::Path,
        Outer::Plain,
        FrameSize::Bytes(128),
        FLOWS,
        1,
    );
    let mut load = Load::new(profile, 0)?;
    let (namespace, device) = topology.sink(Direction::Path);
    load.attach_sink(namespace, device)?;
    let (namespace, device) = topology.generator(Direction::Path);
    let interrupted = AtomicBool::new(false);
    let order = |rate, duration| Order {
        rate: Some(rate),
        duration,
        limit: None,
    };
    let ready = Instant::now();
    loop {
        let first = order(2_000.0, Duration::from_millis(50));
        let outcome = load.run(namespace, device, first, &interrupted)?;
        if outcome.received.packets == outcome.sent.packets {
            break;
        }
        if ready.elapsed() > PATIENCE {
            return Err(nodes.iter().map(Node::log).collect::<String>().into());
        }
    }

    let all = EACH * MODES.len() as u32;
    let outcome = thread::scope(|scope| {
        let switching = scope.spawn(|| -> Result<(), String> {
            for mode in &MODES[1..] {
                thread::sleep(EACH);
                apply_pool(&directory, *mode)?;
            }
            Ok(())
        });
        let outcome = load.run(namespace, device, order(rate, all), &interrupted);
        switching
            .join()
            .expect("the switching thread")
            .map(|()| outcome)
    })??;
    let names: Vec<_> = MODES.iter().map(|(name, ..)| *name).collect();
    let (sent, received) = (outcome.sent, outcome.received);
    println!(
        "{} at {rate} packets a second, {EACH:?} each",
        names.join(" → ")
    );
    println!(
        "sent {} ({:.0} a second; skipped {}), received {}: lost {}, twice {}, reordered {}",
        sent.packets,
        sent.packets as f64 / all.as_secs_f64(),
        sent.skipped,
        received.packets,
        sent.packets - received.packets,
        received.duplicates,
        received.reordered
    );
    for quantile in [0.5, 0.99, 1.0] {
        let latency = outcome.latency.value_at_quantile(quantile);
        println!("latency at {quantile}: {:?}", Duration::from_nanos(latency));
    }
    for node in &nodes {
        print!("{}", node.counters()?);
    }
    Ok(sent.packets == received.packets && received.duplicates == 0)
}

/// As a user switches.
fn apply_pool(directory: &Path, (_, ipip, vxlan): (&str, &str, &str)) -> Result<(), String> {
    let file = directory.join("pool.yaml");
    fs::write(&file, documents::pool((ipip, vxlan), BLOCK_SIZE)).map_err(|e| e.to_string())?;
    let applied = Command::new(UNDERPASS)
        .args(["apply", "--datastore"])
        .arg(directory.join("datastore"))
        .arg("-f")
        .arg(&file)
        .output()
        .map_err(|error| error.to_string())?;
    match applied.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&applied.stderr).into_owned()),
    }
}

fn resources(site: &Site) -> String {
    let workload = site.workload_address;
    [
        documents::node(site, 24),
        documents::blocks(site, [format!("{workload}/{BLOCK_SIZE}")]),
        documents::workload(site, [workload]),
    ]
    .concat()
}

/// A node's process, killed when this is dropped.
struct Node {
    child: Child,
    socket: PathBuf,
    log: PathBuf,
}

impl Node {
    fn start(site: &Site, directory: &Path) -> Result<Self, Failure> {
        let name = site.name;
        let file = |ending: &str| directory.join(format!("{name}.{ending}"));
        fs::write(
            file("yaml"),
            format!(
                "node: {name}\n\
                 uplink: {{ interface: {} }}\n\
                 workloads: [{{ interface: {} }}]\n\
                 workers: {{ count: 1, cpus: [1] }}\n\
                 datastore: {{ directory: {} }}\n\
                 control: {}\n",
                site.uplink,
                site.port,
                directory.join("datastore").display(),
                file("sock").display(),
            ),
        )?;
        let log = fs::File::create(file("log"))?;
        let child = Command::new(UNDERPASS)
            .args([ENTER, "--netns"])
            .arg(site.node.path())
            .args(["--parent", &std::process::id().to_string(), "--"])
            .args([UNDERPASS, "run", "--config"])
            .arg(file("yaml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        Ok(Self {
            child,
            socket: file("sock"),
            log: file("log"),
        })
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn counters(&self) -> Result<String, Failure> {
        let output = Command::new(UNDERPASS)
            .args(["counters", "--socket"])
            .arg(&self.socket)
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
