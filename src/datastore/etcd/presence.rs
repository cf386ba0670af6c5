//! Who is alive: a key a node, with a lease that ends soon after the node does.

use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use etcd_client::{Error, PutOptions};
use serde_json::json;
use tokio::sync::Notify;

use super::client::{Backoff, Members, text};
use crate::datastore::interface::Presence;
use crate::resources::NodeName;
use crate::resources::time::rfc3339;

/// Where Calico's Felix reports that it is alive (libcalico-go `lib/backend/model/statusreports.go`).
pub(super) const PREFIX: &str = "/calico/felix/v2/no-region/host/";
const STATUS: &str = "/status";

/// How long a node is taken to be alive after it was last heard of, in seconds.
const LEASE: i64 = 15;
/// How often it is heard of.
const BEAT: Duration = Duration::from_secs(5);

/// How long taking that back may take.
const GOODBYE: Duration = Duration::from_millis(300);

/// Says that a node is alive until what it gives is dropped.
pub(super) fn announce(members: Arc<Members>, node: &NodeName) -> Option<Presence> {
    let stop = Arc::new(Notify::new());
    let stopped = Arc::clone(&stop);
    let path = format!("{PREFIX}{node}{STATUS}");
    let thread = thread::Builder::new()
        .name("presence".into())
        .spawn(move || {
            members.block_on(async {
                let mut lease = 0;
                tokio::select! {
                    () = stay(&members, &path, &mut lease) => {}
                    () = stopped.notified() => {}
                }
                if lease != 0 {
                    // The lease ends by itself where this fails.
                    let _ = tokio::time::timeout(GOODBYE, revoke(&members, lease)).await;
                }
            });
        })
        .ok()?;
    Some(Presence::new(move || {
        stop.notify_one();
        // A thread that panicked has said so on its own.
        let _ = thread.join();
    }))
}

/// The node that a key tells of.
pub(super) fn node_of(path: &str) -> Option<NodeName> {
    path.strip_prefix(PREFIX)?
        .strip_suffix(STATUS)?
        .parse()
        .ok()
}

async fn revoke(members: &Members, lease: i64) -> Result<(), Error> {
    members
        .client()
        .await?
        .lease_revoke(lease)
        .await
        .map(|_| ())
}

async fn stay(members: &Members, path: &str, lease: &mut i64) {
    let began = Instant::now();
    let mut backoff = Backoff::default();
    loop {
        match beat(members, path, began, lease).await {
            Ok(()) => {
                backoff = Backoff::default();
                tokio::time::sleep(BEAT).await;
            }
            Err(error) => {
                log::debug!("the lease of this node's key: {}", text(&error));
                *lease = 0;
                backoff.pause().await;
            }
        }
    }
}

async fn beat(members: &Members, path: &str, began: Instant, lease: &mut i64) -> Result<(), Error> {
    let mut client = members.client().await?;
    let work = async {
        if *lease == 0 {
            *lease = client.lease_grant(LEASE, None).await?.id();
            let value = json!({
                "time": rfc3339(SystemTime::now()),
                "uptime": began.elapsed().as_secs_f64(),
                "first_update": false,
            });
            let options = PutOptions::new().with_lease(*lease);
            client.put(path, value.to_string(), Some(options)).await?;
            return Ok(());
        }
        let (mut keeper, mut answers) = client.lease_keep_alive(*lease).await?;
        keeper.keep_alive().await?;
        match answers.message().await? {
            Some(answer) if answer.ttl() > 0 => Ok(()),
            _ => Err(Error::LeaseKeepAliveError("the lease has ended".to_owned())),
        }
    };
    match tokio::time::timeout(BEAT, work).await {
        Ok(done) => done,
        Err(_) => Err(Error::LeaseKeepAliveError("no answer".to_owned())),
    }
}
