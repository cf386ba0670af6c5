//! The cases of Calico's own validator (libcalico-go, `validator/v3`), as documents.

#[path = "validation/addresses.rs"]
mod addresses;
#[path = "validation/bgp.rs"]
mod bgp;
#[path = "validation/endpoints.rs"]
mod endpoints;
#[path = "validation/felix.rs"]
mod felix;
#[path = "validation/policies.rs"]
mod policies;
#[path = "validation/rules.rs"]
mod rules;

use std::path::Path;

use underpass::resources::load;

/// Whether a document of a kind with such a spec (in YAML's flow style) is taken, and why not.
fn outcome(kind: &str, name: &str, spec: &str) -> Result<(), String> {
    document(&format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: {name}}}\nspec: {spec}\n"
    ))
}

fn document(text: &str) -> Result<(), String> {
    let parsed = load::parse(Path::new("x.yaml"), text);
    assert_eq!(
        parsed.resources.len() + usize::from(!parsed.problems.is_empty()),
        1,
        "{text}"
    );
    let problems: Vec<String> = parsed.problems.iter().map(ToString::to_string).collect();
    match problems.is_empty() {
        true => Ok(()),
        false => Err(problems.join("\n")),
    }
}

/// Each spec of a kind is taken, or refused with a text that has a part.
fn check(kind: &str, name: &str, cases: &[(&str, Option<&str>)]) {
    for (spec, refused) in cases {
        match (outcome(kind, name, spec), refused) {
            (Ok(()), None) => {}
            (Err(problem), Some(part)) => {
                assert!(problem.contains(part), "{kind} {spec}: {problem}");
            }
            (outcome, _) => panic!("{kind} {spec}: {outcome:?}, {refused:?}"),
        }
    }
}

/// Each rule is taken or refused, among the ingress rules of a GlobalNetworkPolicy.
fn check_rules(cases: &[(&str, Option<&str>)]) {
    for (rule, refused) in cases {
        let spec = format!("{{ingress: [{rule}]}}");
        check("GlobalNetworkPolicy", "thing", &[(&spec, *refused)]);
    }
}
