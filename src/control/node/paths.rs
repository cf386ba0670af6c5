//! What a node does with what it hears of the paths to other nodes.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Node;
use crate::control::apply::{Facts, Way};
use crate::control::path_mtu::{self, News};
use crate::control::path_prober::Measured;
use crate::control::probe;
use crate::wire::Mtu;

impl Node {
    /// The underlay says that only packets up to `mtu` reach a node.
    pub(super) fn learn_path(&mut self, far_end: IpAddr, mtu: Mtu) {
        if !matches!(self.facts().way(far_end), Way::Known(..)) {
            return;
        }
        let (now, link) = (Instant::now(), self.uplink_mtu());
        match self.paths.claim(now, far_end, mtu, link) {
            News::Lowered => {
                log::info!("{far_end}: the path takes packets of {mtu} bytes, not {link}");
                self.refresh();
                self.measure_path(far_end);
            }
            News::Doubted => self.measure_path(far_end),
            News::TooLow => log::debug!(
                "{far_end}: an ICMP error says that the path takes {mtu} bytes only, and is not \
                 believed: tunnel.minPathMtu is {}",
                self.config.tunnel.min_path_mtu
            ),
            News::Full => log::warn!(
                "{far_end}: the path takes packets of {mtu} bytes only, and {} path MTUs are \
                 remembered already: larger ones will be lost until an older entry expires",
                path_mtu::CAPACITY
            ),
            News::Raised | News::Refuted | News::Ignored => {}
        }
    }

    /// Has packets of our own find out what a path takes, when it is its turn.
    fn measure_path(&mut self, far_end: IpAddr) {
        if !self.paths.is_fresh(Instant::now(), far_end) {
            let doubtful = self.paths.is_claimed(far_end);
            self.prober.queue.add(far_end, doubtful);
            self.measure_next();
        }
    }

    /// Has the next path measured, unless one is being measured; those that cannot be are done at once.
    fn measure_next(&mut self) {
        while let Some(far_end) = self.prober.queue.begin() {
            self.paths.begin(Instant::now(), far_end);
            let uplink = (self.config.uplink.interface.to_string(), self.uplink_mtu());
            match probe::target_by(&self.forwarding, &self.state, uplink, far_end) {
                Ok(target) => self.prober.measure(far_end, target),
                Err(reason) => {
                    log::debug!("{far_end}: its path cannot be measured: {reason}");
                    let found = None;
                    self.heed_measurement(&Measured { far_end, found });
                }
            }
        }
    }

    pub(super) fn take_measurement(&mut self, path: &Measured) {
        self.heed_measurement(path);
        self.measure_next();
    }

    fn heed_measurement(&mut self, path: &Measured) {
        self.prober.queue.finish();
        let (far_end, link) = (path.far_end, self.uplink_mtu());
        let news = self
            .paths
            .measured(Instant::now(), far_end, path.found, link);
        if news == News::Refuted {
            log::info!(
                "{far_end}: an ICMP error about its path is not true; the next ones are measured first"
            );
            self.refresh();
        }
        if matches!(news, News::Lowered | News::Raised) {
            let mtu = self.paths.get(far_end).unwrap_or(link);
            log::info!("{far_end}: the path is measured to take packets of {mtu} bytes");
            self.refresh();
        }
    }

    /// Measures the paths that are due, and forgets what is too old.
    pub(super) fn look_after_paths(&mut self) {
        let now = Instant::now();
        let interval = Duration::from_secs(self.config.tunnel.probe_paths.into());
        let mut due = self.paths.due(now);
        if !interval.is_zero() && now.saturating_duration_since(self.paths_probed) >= interval {
            self.paths_probed = now;
            due.extend(self.forwarding.remote_nodes());
        }
        due.into_iter()
            .for_each(|far_end| self.measure_path(far_end));
        let doubted = self.paths.doubted().count();
        let expired = self.paths.expire(now);
        let trusted = doubted - self.paths.doubted().count();
        for far_end in &expired {
            log::info!("{far_end}: its path MTU is forgotten, and learnt anew if need be");
        }
        if !expired.is_empty() || trusted > 0 {
            self.refresh();
        }
    }
}
