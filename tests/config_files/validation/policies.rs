//! Policies, and the names and labels of all kinds.

use super::{check, document, outcome};

#[test]
fn policies() {
    let global = Some("can only be used in an EntityRule namespaceSelector");
    for kind in ["NetworkPolicy", "GlobalNetworkPolicy"] {
        check(
            kind,
            "thing",
            &[
                ("{}", None),
                ("{types: []}", None),
                ("{types: [Ingress]}", None),
                ("{types: [Egress]}", None),
                ("{types: [Ingress, Egress]}", None),
                (
                    "{types: [Egress, Egress]}",
                    Some("'Egress' type specified more than once"),
                ),
                ("{types: [unexpected]}", Some("'unexpected' is not a value")),
                ("{types: [Egress], ingress: [{action: Allow}]}", None),
                ("{types: [Ingress], egress: [{action: Allow}]}", None),
                ("{selector: global()}", global),
                ("{serviceAccountSelector: global()}", global),
                ("{selector: 'a == '}", Some("unexpected end of string")),
                ("{order: 100.5, tier: security}", None),
                ("{order: high}", Some("write a number")),
                ("{order: .inf}", Some("non-finite")),
                ("{tier: Sec urity}", Some("is not a name")),
                ("{performanceHints: [AssumeNeededOnEveryNode]}", None),
                (
                    "{performanceHints: [Faster]}",
                    Some("'Faster' is not a value"),
                ),
                ("{colour: red}", Some("spec.colour: unknown field")),
            ],
        );
    }
    let forward = "applyOnForward: true";
    check(
        "GlobalNetworkPolicy",
        "thing",
        &[
            ("{namespaceSelector: global()}", global),
            (
                &format!("{{preDNAT: true, doNotTrack: true, {forward}}}"),
                Some("cannot both be true"),
            ),
            (&format!("{{preDNAT: true, {forward}}}"), None),
            (&format!("{{doNotTrack: true, {forward}}}"), None),
            (
                &format!("{{preDNAT: true, {forward}, egress: [{{action: Allow}}]}}"),
                Some("any Egress rules"),
            ),
            (
                &format!("{{preDNAT: true, {forward}, ingress: [{{action: Allow}}]}}"),
                None,
            ),
            (
                &format!("{{preDNAT: true, {forward}, types: [Ingress]}}"),
                None,
            ),
            (
                &format!("{{preDNAT: true, {forward}, types: [Ingress, Egress]}}"),
                Some("'egress' Type"),
            ),
            ("{preDNAT: true}", Some("ApplyOnForward must be true")),
            ("{doNotTrack: true}", Some("ApplyOnForward must be true")),
            ("{applyOnForward: false}", None),
        ],
    );
}

#[test]
fn names_labels_and_annotations() {
    let long = "x".repeat(253);
    let too_long = "x".repeat(254);
    for (kind, name, good) in [
        ("GlobalNetworkPolicy", "thing", true),
        ("GlobalNetworkPolicy", "security.thing", true),
        ("GlobalNetworkPolicy", "t.h.i.ng", false),
        ("GlobalNetworkPolicy", "knp.default.thing", false),
        ("GlobalNetworkPolicy", "tHiNg", false),
        ("GlobalNetworkPolicy", "t~!s", false),
        ("NetworkPolicy", "knp.default.thing", true),
        ("NetworkPolicy", "ossg.default.a.b.c", true),
        ("NetworkPolicy", "t.h.i.ng", false),
        ("NetworkPolicy", &long, true),
        ("NetworkPolicy", &too_long, false),
        ("Tier", "net-sec", true),
        ("Tier", "net.sec", false),
        ("Tier", &"x".repeat(63), true),
        ("Tier", &"x".repeat(64), false),
        ("Profile", "kns.default", true),
        ("GlobalNetworkSet", "test$set", false),
    ] {
        assert_eq!(outcome(kind, name, "{}").is_ok(), good, "{kind} {name}");
    }
    let pool = |metadata: &str| {
        document(&format!(
            "apiVersion: projectcalico.org/v3\nkind: IPPool\nmetadata: {{name: pool.name, \
             {metadata}}}\nspec: {{cidr: 1.2.3.0/26}}\n"
        ))
    };
    for (metadata, good) in [
        (
            format!("labels: {{projectcalico.org/label: {}}}", "x".repeat(63)),
            true,
        ),
        (
            format!("labels: {{projectcalico.org/label: {}}}", "x".repeat(64)),
            false,
        ),
        ("labels: {ProjectCalico.org/label: value}".to_owned(), false),
        ("labels: {projectcalico.org/Label: value}".to_owned(), true),
        ("labels: {.mylabel: value}".to_owned(), false),
        ("labels: {'my!label': value}".to_owned(), false),
        ("labels: {a: ''}".to_owned(), true),
        (
            "annotations: {projectcalico.org$label: value}".to_owned(),
            false,
        ),
        (
            "annotations: {ProjectCalico.org/Label: value}".to_owned(),
            true,
        ),
        (
            format!("annotations: {{key: {}}}", "x".repeat((256 << 10) - 3)),
            true,
        ),
        (
            format!("annotations: {{key: {}}}", "x".repeat((256 << 10) - 2)),
            false,
        ),
        ("namespace: default".to_owned(), false),
    ] {
        assert_eq!(
            pool(&metadata).is_ok(),
            good,
            "{}",
            &metadata[..metadata.len().min(80)]
        );
    }
    for (kind, good) in [
        ("NetworkSet", false),
        ("GlobalNetworkSet", false),
        ("Profile", true),
    ] {
        let text = format!(
            "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: a, labels: \
             {{projectcalico.org/namespace: foo}}}}\n"
        );
        assert_eq!(document(&text).is_ok(), good, "{kind}");
    }
    check(
        "Profile",
        "p",
        &[
            (
                "{labelsToApply: {project.calico.org/my-valid-label: x}}",
                None,
            ),
            (
                "{labelsToApply: {'my-invalid-label$': x}}",
                Some("is not a key"),
            ),
        ],
    );
}
