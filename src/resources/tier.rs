//! Tier: policies that are decided on together, before those of later tiers.

use serde::{Deserialize, Serialize};

use super::json::Json;
use super::metadata::Metadata;
use super::name::Name;
use super::order::Order;
use super::problem::Fault;

/// A Tier resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tier {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: TierSpec,
    /// What the cluster reports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<Json>,
}

/// A tier's place and what it does with packets that its policies leave undecided.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TierSpec {
    /// Its place among the tiers; last if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub order: Option<Order>,
    /// What is done if policies of the tier select an endpoint and none decides; see
    /// [`Tier::default_action`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_action: Option<DefaultAction>,
}

/// What a tier does with packets that its policies leave undecided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum DefaultAction {
    /// They are dropped.
    Deny,
    /// The next tier decides.
    Pass,
}

/// Tiers that Calico makes itself, with the place and the action that they must have.
const RESERVED: [(&str, f64, &str, DefaultAction); 5] = [
    ("default", 1_000_000.0, "1e+06", DefaultAction::Deny),
    ("adminnetworkpolicy", 1_000.0, "1000", DefaultAction::Pass),
    ("kube-admin", 1_000.0, "1000", DefaultAction::Pass),
    (
        "baselineadminnetworkpolicy",
        10_000_000.0,
        "1e+07",
        DefaultAction::Pass,
    ),
    ("kube-baseline", 10_000_000.0, "1e+07", DefaultAction::Pass),
];

/// The most characters that a tier's name may have: it becomes a label's value.
const NAME_MAX: usize = 63;

impl Tier {
    /// What is done if policies of the tier select an endpoint and none decides: as given, or Deny,
    /// but for Kubernetes' own tiers Pass.
    pub fn default_action(&self) -> DefaultAction {
        let reserved = self.reserved().map(|(_, _, _, action)| *action);
        let given = self.spec.default_action;
        given.or(reserved).unwrap_or(DefaultAction::Deny)
    }

    /// Whether Calico makes a tier of that name by itself.
    pub fn is_built_in(name: &Name) -> bool {
        RESERVED
            .iter()
            .any(|(reserved, ..)| *reserved == name.as_str())
    }

    /// Writes out what follows from the rest, as Calico does when a tier is stored.
    pub fn fill_defaults(&mut self) {
        self.spec.default_action = Some(self.default_action());
    }

    fn reserved(&self) -> Option<&'static (&'static str, f64, &'static str, DefaultAction)> {
        let name = self.metadata.name.as_str();
        RESERVED.iter().find(|(reserved, ..)| *reserved == name)
    }

    /// What is wrong beyond single fields' syntax, in the words of Calico's validation.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let name = self.metadata.name.as_str();
        if name.len() > NAME_MAX {
            faults.push(Fault::new(
                "metadata.name",
                format!("name is too long by {} bytes", name.len() - NAME_MAX),
                format!("write at most {NAME_MAX}"),
            ));
        }
        if name.contains('.') {
            faults.push(Fault::new(
                "metadata.name",
                "name must consist of lower case alphanumeric characters or '-' \
                 (regex: [a-z0-9]([-a-z0-9]*[a-z0-9])?)",
                "write a name without '.': policies' names begin with it",
            ));
        }
        if let Some((name, order, printed, action)) = self.reserved() {
            if self.spec.order != Order::new(*order) {
                faults.push(Fault::new(
                    "spec.order",
                    format!("{name} tier order must be {printed}"),
                    format!("write order: {order}"),
                ));
            }
            if self.default_action() != *action {
                faults.push(Fault::new(
                    "spec.defaultAction",
                    format!("The '{name}' tier must have default action '{action:?}'"),
                    format!("write {action:?}"),
                ));
            }
        }
        faults
    }
}
