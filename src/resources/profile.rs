//! Profile: rules and labels of the endpoints that name it, after all tiers.

use serde::{Deserialize, Serialize};

use super::metadata::{Metadata, check_labels};
use super::problem::Fault;
use super::rule::{Direction, Rule, check_direction, check_rules};
use super::selector::Labels;

/// A Profile resource.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Profile {
    /// Name, labels and the like.
    pub metadata: Metadata,
    /// The wanted state.
    #[serde(default)]
    pub spec: ProfileSpec,
}

/// A profile's rules and labels.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ProfileSpec {
    /// What endpoints may receive.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ingress: Vec<Rule>,
    /// What endpoints may send.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub egress: Vec<Rule>,
    /// Labels that endpoints inherit; their own come first.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels_to_apply: Labels,
}

impl Profile {
    /// What is wrong beyond single fields' syntax.
    pub fn validate(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let spec = &self.spec;
        check_labels(&mut faults, "spec.labelsToApply", &spec.labels_to_apply);
        for (field, rules, direction) in [
            ("spec.ingress", &spec.ingress, Direction::Ingress),
            ("spec.egress", &spec.egress, Direction::Egress),
        ] {
            check_rules(&mut faults, field, rules);
            check_direction(&mut faults, field, rules, direction, false);
        }
        faults
    }
}
