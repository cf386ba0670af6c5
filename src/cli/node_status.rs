//! `underpass node status`, in the shape of `calicoctl node status`.

use super::Failure;
use crate::observe::report::StatusReport;

/// What is said of a node that does not run.
const NOT_RUNNING: &str = "underpass process is not running.";

/// Parts that are there only when something is odd about them.
const WARNINGS: [&str; 3] = ["resources", "ipam", "settings"];

/// The report of a running node.
pub fn text(report: &StatusReport) -> String {
    let mut text = format!(
        "underpass process is running.\n\nNode {}, process {}, version {}, address {}\n\n\
         The BGP backend process is not running: this node's routes come from the datastore's blocks.\n",
        report.node,
        report.pid,
        report.version,
        report
            .address
            .map_or("-".to_owned(), |address| address.to_string()),
    );
    let routes: Vec<String> = report
        .routes
        .iter()
        .map(|count| format!("{} {}", count.routes, count.encapsulation.name()))
        .collect();
    text += &format!("\nRoutes: {}\n", routes.join(", "));
    let wrong = report
        .components
        .iter()
        .filter(|part| !part.live || !part.ready || WARNINGS.contains(&part.name.as_str()));
    for component in wrong {
        text += &format!("\nWARNING: {}: {}\n", component.name, component.detail);
    }
    text
}

/// A node that cannot be asked: what calicoctl says of it, then why.
pub fn not_running(failure: Failure) -> Failure {
    match failure {
        Failure::Told(reasons) => {
            let first = [NOT_RUNNING.to_owned()];
            Failure::Told(first.into_iter().chain(reasons).collect())
        }
        other => other,
    }
}
