//! Asking the doctor.

use std::process::{Command, Output};

use serde_json::Value;

use super::netns::UNDERPASS;

/// What `underpass doctor -o json` said in a namespace, and its exit status.
pub struct Diagnosis {
    findings: Vec<Value>,
    pub status: Option<i32>,
}

impl Diagnosis {
    pub fn of(namespace: &str, arguments: &str) -> Self {
        let output = doctor(namespace, &format!("-o json {arguments}"));
        let text = String::from_utf8_lossy(&output.stdout);
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("{error}: {text}{}", String::from_utf8_lossy(&output.stderr))
        });
        let findings = report["findings"].as_array().expect("findings").clone();
        Self {
            findings,
            status: output.status.code(),
        }
    }

    /// Checks with a finding of that severity, each as `check subject`.
    pub fn with(&self, severity: &str) -> Vec<String> {
        let found = self.findings.iter();
        found
            .filter(|finding| finding["severity"] == severity)
            .map(|finding| format!("{} {}", text(&finding["check"]), text(&finding["subject"])))
            .collect()
    }

    /// The one finding of a check about a subject that is not in order, and its remedy.
    pub fn trouble(&self, check: &str, subject: &str) -> (String, String) {
        let mut found = self.findings.iter().filter(|finding| {
            finding["check"] == check
                && finding["subject"] == subject
                && finding["severity"] != "ok"
        });
        let finding = found.next();
        let finding =
            finding.unwrap_or_else(|| panic!("no {check} of {subject}: {:#?}", self.findings));
        assert!(found.next().is_none(), "several: {:#?}", self.findings);
        (text(&finding["found"]), text(&finding["remedy"]))
    }
}

pub fn doctor(namespace: &str, arguments: &str) -> Output {
    let mut command = Command::new("ip");
    command.args(["netns", "exec", namespace, UNDERPASS, "doctor"]);
    command.args(arguments.split_whitespace());
    command.output().expect("ip netns exec")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
