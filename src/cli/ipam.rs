//! `ipam`: addresses in use, and what is wrong with their records. Tables and messages are calicoctl's.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::boxed::Boxed;
use super::resource::StoreArguments;
use super::{Failure, print};
use crate::ipam::{Allocation, Check, Ipam, IpamError, LeakedHandle, Release};
use crate::resources::IpamBlock;

#[derive(Debug, Args)]
pub struct IpamArguments {
    #[command(flatten)]
    store: StoreArguments,
    #[command(subcommand)]
    verb: IpamVerb,
}

#[derive(Debug, Subcommand)]
enum IpamVerb {
    /// Show how many addresses are in use, or who uses one
    Show {
        /// Who uses this address
        #[arg(long, value_name = "IP")]
        ip: Option<IpAddr>,
        /// Blocks as well as pools
        #[arg(long)]
        show_blocks: bool,
        /// Addresses that nodes have borrowed of other nodes' blocks
        #[arg(long)]
        show_borrowed: bool,
        /// The settings
        #[arg(long)]
        show_configuration: bool,
    },
    /// Compare the records with each other and with the nodes and workloads that are there
    Check {
        /// Print all addresses
        #[arg(long)]
        show_all_ips: bool,
        /// Print the addresses that are leaked or not assigned properly
        #[arg(long)]
        show_problem_ips: bool,
        /// Write a report, for `ipam release --from-report`
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Release an address, or all that reports agree to be leaked
    Release {
        /// The address
        #[arg(long, value_name = "IP", required_unless_present = "from_report")]
        ip: Option<IpAddr>,
        /// A report of `ipam check`; of several, only what is leaked in all of them is released
        #[arg(long, value_name = "FILE", conflicts_with = "ip")]
        from_report: Vec<PathBuf>,
        /// Take reports of another version
        #[arg(long)]
        force: bool,
    },
    /// Not here: pools are not split
    #[command(hide = true)]
    Split {
        /// How many pools it was to become
        number: Option<u32>,
        /// The pool, by its network
        #[arg(long)]
        cidr: Option<String>,
        /// The pool, by its name
        #[arg(long)]
        name: Option<String>,
    },
    /// Change the settings
    Configure {
        /// Whether nodes keep to their own blocks
        #[arg(long, alias = "strict-affinity", value_name = "BOOL", action = clap::ArgAction::Set)]
        strictaffinity: Option<bool>,
        /// The most blocks a node may have; 0 for 20
        #[arg(long, value_name = "NUMBER")]
        max_blocks_per_host: Option<u32>,
    },
}

/// Why a pool is not split: between the old pool and the new ones its addresses would be in none.
const SPLIT: &str = "ipam split is not built: pools must not overlap, so it would take the pool away from \
                     its workloads for a while. Make another pool, set disabled: true on the old one, and \
                     delete that once its workloads have moved";

/// A report of a check.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    version: String,
    allocations: BTreeMap<IpAddr, Vec<Allocation>>,
    #[serde(default)]
    leaked_handles: Vec<LeakedHandle>,
}

/// Runs the verb.
pub fn run(arguments: &IpamArguments) -> Result<(), Failure> {
    let ipam = Ipam::new(arguments.store.open()?);
    match &arguments.verb {
        IpamVerb::Show { ip: Some(ip), .. } => print(&show_address(&ipam, *ip)?),
        IpamVerb::Show {
            show_borrowed: true,
            ..
        } => print(&borrowed(&ipam.blocks()?)),
        IpamVerb::Show {
            show_configuration: true,
            ..
        } => print(&configuration(&ipam)?),
        IpamVerb::Show { show_blocks, .. } => print(&utilization(&ipam, *show_blocks)?),
        IpamVerb::Check {
            show_all_ips,
            show_problem_ips,
            output,
        } => {
            let check = ipam.check()?;
            print(&told(
                &check,
                *show_all_ips,
                *show_all_ips || *show_problem_ips,
            ))?;
            output
                .as_deref()
                .map_or(Ok(()), |file| write_report(file, &check))
        }
        IpamVerb::Release { ip: Some(ip), .. } => release(&ipam, *ip),
        IpamVerb::Release {
            from_report, force, ..
        } => release_leaked(&ipam, from_report, *force),
        IpamVerb::Split { .. } => Err(SPLIT.to_owned().into()),
        IpamVerb::Configure {
            strictaffinity,
            max_blocks_per_host,
        } => configure(&ipam, *strictaffinity, *max_blocks_per_host),
    }
}

impl From<IpamError> for Failure {
    fn from(error: IpamError) -> Self {
        error.to_string().into()
    }
}

/// Opens the datastore that the command line names.
fn show_address(ipam: &Ipam, address: IpAddr) -> Result<String, Failure> {
    let Some(owner) = ipam.owner_of(address)? else {
        return Ok(format!("{address} is not assigned\n"));
    };
    let handle = owner.handle_id.unwrap_or_else(|| "<none>".to_owned());
    let mut text = format!("IP {address} is in use\nHandle ID: {handle}\n");
    let active = owners(
        "Active Owner Attributes",
        owner.secondary.unwrap_or_default(),
    );
    match active.is_empty() {
        true => text.push_str("No Active Owner attributes defined\n"),
        false => text.push_str(&active),
    }
    text.push_str(&owners(
        "Alternate Owner Attributes",
        owner.alternate.unwrap_or_default(),
    ));
    Ok(text)
}

fn owners(title: &str, attributes: BTreeMap<String, String>) -> String {
    if attributes.is_empty() {
        return String::new();
    }
    let mut text = format!("{title}:\n");
    for (name, value) in attributes {
        let _ = writeln!(text, "  {name}: {value}");
    }
    text
}

fn utilization(ipam: &Ipam, show_blocks: bool) -> Result<String, Failure> {
    let blocks = ipam.blocks()?;
    let mut table = Boxed::new(&["GROUPING", "CIDR", "IPS TOTAL", "IPS IN USE", "IPS FREE"]);
    table.right = 2;
    let mut orphans: BTreeSet<IpNet> = blocks.iter().map(|block| block.spec.cidr.net()).collect();
    for pool in ipam.pools()? {
        let cidr = pool.cidr();
        let within = |block: &&IpamBlock| cidr.contains(&block.spec.cidr.net());
        let own: Vec<&IpamBlock> = blocks.iter().filter(within).collect();
        let in_use = own.iter().map(|block| block.in_use().count()).sum();
        table
            .rows
            .push(usage("IP Pool", cidr, size_of(cidr), in_use));
        for block in own {
            orphans.remove(&block.spec.cidr.net());
            if show_blocks {
                table.rows.push(block_usage(block));
            }
        }
    }
    let orphaned = blocks
        .iter()
        .filter(|block| orphans.contains(&block.spec.cidr.net()));
    if show_blocks {
        table.rows.extend(orphaned.map(block_usage));
    }
    Ok(table.text())
}

fn block_usage(block: &IpamBlock) -> Vec<String> {
    let cidr = block.spec.cidr.net();
    usage("Block", cidr, size_of(cidr), block.in_use().count())
}

fn usage(grouping: &str, cidr: IpNet, total: f64, in_use: usize) -> Vec<String> {
    #[allow(clippy::cast_precision_loss, reason = "five digits are shown")]
    let in_use = in_use as f64;
    let of_total = |part: f64| format!("{} ({:.0}%)", general(part), 100.0 * part / total);
    vec![
        grouping.to_owned(),
        cidr.to_string(),
        general(total),
        of_total(in_use),
        of_total(total - in_use),
    ]
}

fn size_of(cidr: IpNet) -> f64 {
    2_f64.powi(i32::from(cidr.max_prefix_len() - cidr.prefix_len()))
}

/// A number as C's `%.5g` writes it: five digits, with an exponent where those are not all.
fn general(number: f64) -> String {
    if number < 99_999.5 {
        let digits = format!("{number:.0}");
        return digits;
    }
    let text = format!("{number:.4e}");
    let (mantissa, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let mantissa = mantissa.trim_end_matches('0').trim_end_matches('.');
    let exponent: u32 = exponent.parse().unwrap_or(0);
    format!("{mantissa}e+{exponent:02}")
}

fn borrowed(blocks: &[IpamBlock]) -> String {
    let headings = [
        "IP",
        "BORROWING-NODE",
        "BLOCK",
        "BLOCK OWNER",
        "TYPE",
        "ALLOCATED-TO",
    ];
    let mut table = Boxed::new(&headings);
    let mut unknown = 0;
    for block in blocks {
        let host = block.host().unwrap_or("");
        for ordinal in block.in_use() {
            let owner = block
                .owner(ordinal)
                .and_then(|owner| owner.secondary.as_ref());
            let attribute = |name: &str| owner.and_then(|owner| owner.get(name)).cloned();
            let Some(node) = attribute("node") else {
                unknown += 1;
                continue;
            };
            if node == host {
                continue;
            }
            let (kind, to) = match (attribute("pod"), attribute("type")) {
                (Some(pod), _) => {
                    let namespace = attribute("namespace").unwrap_or_default();
                    ("pod".to_owned(), format!("{namespace}/{pod}"))
                }
                (None, kind) => (kind.unwrap_or_default(), String::new()),
            };
            let cidr = block.spec.cidr.to_string();
            let address = block.address(ordinal).to_string();
            table
                .rows
                .push(vec![address, node, cidr, host.to_owned(), kind, to]);
        }
    }
    let mut text = table.text();
    if unknown > 0 {
        let _ = writeln!(
            text,
            "\nNote: found {unknown} IP allocations without an explicit node association. \
             Unable to determine if they are borrowed."
        );
    }
    text
}

fn configuration(ipam: &Ipam) -> Result<String, Failure> {
    let configuration = ipam.configuration()?;
    let mut table = Boxed::new(&["PROPERTY", "VALUE"]);
    for (property, value) in [
        ("StrictAffinity", configuration.strict_affinity.to_string()),
        (
            "AutoAllocateBlocks",
            configuration.auto_allocate_blocks.to_string(),
        ),
        (
            "MaxBlocksPerHost",
            configuration.max_blocks_per_host.to_string(),
        ),
    ] {
        table.rows.push(vec![property.to_owned(), value]);
    }
    Ok(table.text())
}

fn configure(ipam: &Ipam, strict: Option<bool>, most: Option<u32>) -> Result<(), Failure> {
    if strict.is_none() && most.is_none() {
        return Err("give --strictaffinity or --max-blocks-per-host"
            .to_owned()
            .into());
    }
    ipam.configure(|configuration| {
        if let Some(strict) = strict {
            configuration.strict_affinity = strict;
        }
        if let Some(most) = most {
            configuration.max_blocks_per_host = most.into();
        }
    })?;
    if let Some(strict) = strict {
        print(&format!("Successfully set StrictAffinity to: {strict}\n"))?;
    }
    if let Some(most) = most {
        print(&format!("Successfully set MaxBlocksPerHost to: {most}\n"))?;
    }
    Ok(())
}

fn release(ipam: &Ipam, address: IpAddr) -> Result<(), Failure> {
    match ipam.release(&[Release::address(address)])?.is_empty() {
        true => print(&format!("Successfully released IP address {address}\n")),
        false => Err(format!("IP address {address} is not assigned").into()),
    }
}

fn release_leaked(ipam: &Ipam, files: &[PathBuf], force: bool) -> Result<(), Failure> {
    let mut reports = Vec::new();
    for file in files {
        reports.push(read_report(file, force)?);
    }
    let Some((first, others)) = reports.split_first() else {
        return Ok(());
    };
    let leaked = |report: &Report, leak: &Allocation| {
        let same = report.allocations.get(&leak.ip);
        same.is_some_and(|same| same.contains(leak))
    };
    let leaks = first
        .allocations
        .values()
        .flatten()
        .filter(|allocation| !allocation.in_use);
    let leaks: Vec<&Allocation> = leaks
        .filter(|leak| others.iter().all(|report| leaked(report, leak)))
        .collect();
    let mut text = String::new();
    if leaks.is_empty() {
        text.push_str("Report didn't contain any leaked IPs to clean up.\n");
    } else {
        let _ = writeln!(text, "Releasing {} old IPs...", leaks.len());
        let (mut released, mut gone) = (0, 0);
        for leak in leaks {
            let release = Release {
                address: leak.ip,
                handle: leak.handle.clone(),
                sequence: leak.sequence_number,
            };
            match ipam.release(&[release]) {
                Ok(free) if free.is_empty() => released += 1,
                Ok(_) | Err(IpamError::Stale(_)) => gone += 1,
                Err(error) => return Err(error.into()),
            }
        }
        let _ = writeln!(text, "Released {released} IPs successfully");
        if gone > 0 {
            let _ = writeln!(
                text,
                "{gone} addresses marked as leaked in the report had already been cleaned up."
            );
        }
    }
    let handles = first.leaked_handles.iter();
    let in_all = |handle: &&LeakedHandle| others.iter().all(|r| r.leaked_handles.contains(handle));
    let handles: Vec<&LeakedHandle> = handles.filter(in_all).collect();
    if handles.is_empty() {
        text.push_str("Report didn't contain any handles to clean up.\n");
    } else {
        let mut deleted = 0;
        for handle in &handles {
            deleted += usize::from(ipam.delete_handle(handle)?);
        }
        let skipped = handles.len() - deleted;
        let _ = writeln!(
            text,
            "Released {deleted} handles; {skipped} skipped; 0 errors."
        );
    }
    print(&text)
}

fn read_report(file: &Path, force: bool) -> Result<Report, Failure> {
    let refused = |reason: String| Failure::from(format!("{}: {reason}", file.display()));
    const REMEDY: &str = "`underpass ipam check -o FILE` writes one";
    let text = fs::read_to_string(file)
        .map_err(|error| refused(format!("the report cannot be read: {error}; {REMEDY}")))?;
    let report: Report = serde_json::from_str(&text).map_err(|error| {
        refused(format!(
            "it is no report of `ipam check`: {error}; {REMEDY}"
        ))
    })?;
    if report.version != env!("CARGO_PKG_VERSION") && !force {
        return Err(refused(format!(
            "the report was produced using a different version ({}). Refusing to release; make a new one by \
             `underpass ipam check -o FILE`, or take it by --force",
            report.version
        )));
    }
    Ok(report)
}

fn write_report(file: &Path, check: &Check) -> Result<(), Failure> {
    let allocations = check.allocations.iter();
    let report = Report {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        allocations: allocations
            .map(|(ip, one)| (*ip, vec![one.clone()]))
            .collect(),
        leaked_handles: check.leaked_handles().cloned().collect(),
    };
    let text = serde_json::to_string_pretty(&report).map_err(|error| error.to_string())?;
    fs::write(file, text + "\n")
        .map_err(|error| format!("{} cannot be written: {error}", file.display()).into())
}

fn told(check: &Check, all: bool, problems: bool) -> String {
    let mut text =
        "Checking IPAM for inconsistencies...\n\nLoading all IPAM blocks...\n".to_owned();
    let mut say = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    say(format!("Found {} IPAM blocks.", check.blocks.len()));
    for block in &check.blocks {
        let affinity = block.spec.affinity.as_deref().unwrap_or("<none>");
        say(format!(
            " IPAM block {} affinity={affinity}:",
            block.spec.cidr
        ));
        for ordinal in block.in_use().filter(|_| all) {
            say(format!("  {}", block.address(ordinal)));
        }
    }
    say(format!(
        "IPAM blocks record {} allocations.\n",
        check.allocations.len()
    ));
    say("Loading all IPAM pools...".into());
    for pool in &check.pools {
        say(format!("  {pool}"));
    }
    say(format!("Found {} active IP pools.\n", check.pools.len()));
    say("Loading all nodes.".into());
    say(format!(
        "Found {} node tunnel IPs.\n",
        check.node_addresses.len()
    ));
    say("Loading all workload endpoints.".into());
    say(format!(
        "Found {} workload IPs.",
        check.workload_addresses.len()
    ));
    let in_use = check.in_use();
    say(format!(
        "Workloads and nodes are using {} IPs.\n",
        in_use.len()
    ));
    say("Loading all handles".into());
    say_nodes(check, &mut say);

    say("Scanning for IPs that are allocated but not actually in use...".into());
    for leak in check.leaked().filter(|_| problems) {
        say(format!("  {} leaked; attrs {}", leak.ip, attributes(leak)));
    }
    let leaked = check.leaked().count();
    say(format!(
        "Found {leaked} IPs that are allocated in IPAM but not actually in use."
    ));
    say(
        "Scanning for IPs that are in use by a workload or node but not allocated in IPAM..."
            .into(),
    );
    let (mut outside, mut unrecorded) = (0, 0);
    for (address, users) in &in_use {
        if users.len() > 1 && problems {
            say(format!("  {address} has multiple owners."));
        }
        if check.allocations.contains_key(address) {
            continue;
        }
        let inside = check.pools.iter().any(|pool| pool.contains(address));
        let (count, what) = match inside {
            true => (
                &mut unrecorded,
                "and in active IPAM pool but has no IPAM allocation",
            ),
            false => (&mut outside, "is not in any active IP pool"),
        };
        *count += 1;
        for user in users.iter().filter(|_| problems) {
            say(format!("  {address} in use by {user} {what}."));
        }
    }
    say(format!(
        "Found {outside} in-use IPs that are not in active IP pools."
    ));
    say(format!(
        "Found {unrecorded} in-use IPs that are in active IP pools but have no corresponding IPAM \
         allocation.\n"
    ));
    say("Scanning for IPAM handles with no matching IPs...".into());
    for handle in check.leaked_handles().filter(|_| all) {
        say(format!("  {} doesn't have any active IPs.", handle.id));
    }
    let unused = check.leaked_handles().count();
    let used = check.handles.len() - unused;
    say(format!(
        "Found {unused} handles with no matching IPs (and {used} handles with matches)."
    ));
    say("Scanning for IPs with missing handle...".into());
    for handle in check.missing_handles.iter().filter(|_| problems) {
        say(format!(
            "  {handle} is in use in a block but doesn't exist."
        ));
    }
    let missing = check.missing_handles.len();
    say(format!(
        "Found {missing} handles mentioned in blocks with no matching handle resource."
    ));
    let problems = leaked + outside + unrecorded + unused;
    say(format!("Check complete; found {problems} problems."));
    text
}

fn say_nodes(check: &Check, say: &mut impl FnMut(String)) {
    const MOST: usize = 20;
    say(format!(
        "Looking for top (up to {MOST}) nodes by allocations..."
    ));
    let mut nodes: BTreeMap<&str, usize> = BTreeMap::new();
    for allocation in check.allocations.values() {
        if let Some(node) = allocation.attributes.get("node") {
            *nodes.entry(node).or_insert(0) += 1;
        }
    }
    let mut nodes: Vec<(&str, usize)> = nodes.into_iter().collect();
    nodes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
    for (node, count) in nodes.iter().take(MOST) {
        say(format!("  {node} has {count} allocations"));
    }
    if let Some((_, most)) = nodes.first() {
        let median = nodes[nodes.len() / 2].1;
        say(format!(
            "Node with most allocations has {most}; median is {median}"
        ));
    }
    say(String::new());
}

fn attributes(allocation: &Allocation) -> String {
    let attribute = |name: &str| allocation.attributes.get(name);
    let node = attribute("node").map_or("", String::as_str);
    match (attribute("pod"), attribute("type")) {
        (Some(pod), _) => {
            let namespace = attribute("namespace").map_or("", String::as_str);
            format!(
                "Main:{} Extra:pod={namespace}/{pod},node={node}",
                handle(allocation)
            )
        }
        (None, Some(kind)) => format!("Main:{} Extra:type={kind},node={node}", handle(allocation)),
        (None, None) => format!("Main:{} Extra:node={node}", handle(allocation)),
    }
}

fn handle(allocation: &Allocation) -> &str {
    allocation.handle.as_deref().unwrap_or("<none>")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_five_digits_as_in_c() {
        for (number, text) in [
            (0.0, "0"),
            (64.0, "64"),
            (65536.0, "65536"),
            (99_999.0, "99999"),
            (1_048_576.0, "1.0486e+06"),
            (2_f64.powi(64), "1.8447e+19"),
            (100_000.0, "1e+05"),
        ] {
            assert_eq!(general(number), text);
        }
    }
}
