//! `FELIX_…` variables: FelixConfiguration's fields by other names, all as texts.

use serde_json::{Map, Value, json};

use super::{Reader, Setting, configuration};
use crate::resources::felix_configuration::FelixConfigurationSpec;
use crate::resources::load::from_value;

/// Parameters whose names differ from the fields' by more than their letters' case.
const RENAMED: [(&str, &str); 12] = [
    ("IPINIPENABLED", "ipipEnabled"),
    ("IPINIPMTU", "ipipMTU"),
    ("EXTERNALNODESCIDRLIST", "externalNodesList"),
    ("REPORTINGINTERVALSECS", "reportingInterval"),
    ("REPORTINGTTLSECS", "reportingTTL"),
    ("ENDPOINTREPORTINGDELAYSECS", "endpointReportingDelay"),
    (
        "USAGEREPORTINGINITIALDELAYSECS",
        "usageReportingInitialDelay",
    ),
    ("USAGEREPORTINGINTERVALSECS", "usageReportingInterval"),
    (
        "IPTABLESPOSTWRITECHECKINTERVALSECS",
        "iptablesPostWriteCheckInterval",
    ),
    ("IPTABLESLOCKTIMEOUTSECS", "iptablesLockTimeout"),
    ("NETLINKTIMEOUTSECS", "netlinkTimeout"),
    ("WIREGUARDPERSISTENTKEEPALIVE", "wireguardKeepAlive"),
];

impl Reader<'_> {
    /// Takes a parameter in whatever form its field has.
    pub(super) fn felix(&mut self, name: &str, parameter: &str, setting: &Setting) {
        let Some(field) = field(parameter) else {
            return self.note(name, setting, false, super::why_ignored(name));
        };
        let mut first = None;
        for value in candidates(&setting.value) {
            let spec = Map::from_iter([(field.to_owned(), value.clone())]);
            match from_value(&configuration("FelixConfiguration", spec)) {
                Ok(_) => {
                    self.felix.insert(field.to_owned(), value);
                    let what = format!("FelixConfiguration default: {field}");
                    return self.note(name, setting, true, what);
                }
                Err(faults) => first = first.or_else(|| faults.into_iter().next()),
            }
        }
        // Felix logs a value that it does not understand, and keeps its default.
        let why = first.map_or_else(String::new, |fault| {
            format!("{}; {}", fault.reason, fault.remedy)
        });
        self.note(name, setting, false, why);
    }
}

/// The field that a parameter sets.
fn field(parameter: &str) -> Option<&'static str> {
    let renamed = RENAMED.iter().find(|(name, _)| *name == parameter);
    let same = || {
        let names = FelixConfigurationSpec::NAMES.iter().copied();
        names
            .into_iter()
            .find(|name| name.eq_ignore_ascii_case(parameter))
    };
    renamed.map(|(_, field)| *field).or_else(same)
}

/// What a text may stand for, the likeliest first.
fn candidates(text: &str) -> Vec<Value> {
    let mut values = Vec::new();
    values.extend(truth(text).map(Value::from));
    values.extend(text.parse::<i64>().ok().map(Value::from));
    values.push(json!(text));
    values.push(json!(capitalised(text)));
    values.push(json!(text.to_uppercase()));
    values.push(json!(format!("{text}s")));
    let parts = || {
        text.split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
    };
    match text.eq_ignore_ascii_case("none") {
        true => values.push(json!([])),
        false => {
            values.push(parts().map(Value::from).collect());
            values.extend(
                parts()
                    .map(proto_port)
                    .collect::<Option<Vec<Value>>>()
                    .map(Value::from),
            );
        }
    }
    values
}

/// `tcp:22`, `22` or `tcp:10.0.0.0/8:22`.
fn proto_port(text: &str) -> Option<Value> {
    let parts: Vec<&str> = text.split(':').collect();
    let port = parts.last()?.parse::<u16>().ok()?;
    let protocol = |name: &str| name.to_uppercase();
    Some(match parts[..] {
        [_] => json!({"protocol": "TCP", "port": port}),
        [name, _] => json!({"protocol": protocol(name), "port": port}),
        [name, net, _] => json!({"protocol": protocol(name), "port": port, "net": net}),
        _ => return None,
    })
}

/// `ACCEPT` and `accept` as `Accept`.
fn capitalised(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    let rest = letters.map(|letter| letter.to_ascii_lowercase());
    first.into_iter().chain(rest).collect()
}

/// A truth as Felix reads it.
pub(super) fn truth(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "true" | "1" | "yes" | "y" | "t" => Some(true),
        "false" | "0" | "no" | "n" | "f" => Some(false),
        _ => None,
    }
}
