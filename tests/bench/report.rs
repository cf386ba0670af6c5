//! A report written, read again, compared and drawn.

use proptest::prelude::*;
use underpass::bench::Report;
use underpass::bench::load::profile::FrameSize;
use underpass::bench::report::compare::{Change, compare};
use underpass::bench::report::{GivenInterfaces, Round, Verdict, html};
use underpass::bench::systems::System;
use underpass::bench::topology::Direction;

/// A report of two systems, with the rounds' PDRs.
fn report(native: &[f64], vxlan: &[f64]) -> Report {
    let cell = |system: &str, rates: &[f64]| {
        let rounds: Vec<_> = rates.iter().map(|rate| round_of(*rate)).collect();
        serde_json::json!({
            "system": system, "direction": "encap", "size": {"bytes": 64}, "rounds": rounds
        })
    };
    let text = serde_json::json!({
        "format": underpass::bench::report::FORMAT,
        "version": "0.1.0",
        "started": "2026-01-31T12:00:00Z",
        "seconds": 12.5,
        "machine": {
            "cpu": "A <CPU> & more", "cpus": 2, "tsc_mhz": 2600.0, "memory_mib": 2048,
            "kernel": "6.18", "os": "Debian", "virtualised": true, "mitigations": ["x: y"],
            "governor": null, "load": 0.5
        },
        "method": {
            "rounds": native.len(), "width": 0.01, "trial_seconds": 0.3, "trials": 3, "flows": 64,
            "destinations": 64, "routes": "blocks", "generator_cpu": 0, "node_cpu": 1,
            "softirq": "node", "realtime": true, "interfaces": null
        },
        "generator": [{"size": {"bytes": 64}, "rate": 5e6, "packet_ns": 200.0, "idle_ns": 50.0}],
        "cells": [cell("native", native), cell("vxlan", vxlan)],
        "tcp": [{"system": "native", "offloads": false, "rounds": [{"bits": 5e9, "retransmits": 3}]}],
        "notes": ["ovs left out: it is <not> installed"],
    });
    serde_json::from_value(text).unwrap()
}

fn round_of(rate: f64) -> serde_json::Value {
    serde_json::json!({
        "ndr": (rate * 0.9).round(), "pdr": rate, "overload": (rate * 0.8).round(), "pdr_width": 0.005, "trials": 20,
        "latency": [
            {"load": 0.5, "packets": 1000, "p50": 10_000, "p90": 20_000, "p99": 40_000,
             "p999": 90_000, "max": 100_000}
        ],
        "cost": {
            "rate": rate, "packets": 1000, "seconds": 0.5, "packet_ns": (1e9 / rate).round(),
            "packet_cycles": (2.6e9 / rate).round(), "process_ns": (0.6e9 / rate).round(),
            "kernel_thread_ns": (0.4e9 / rate).round(), "sender_ns": 0.0,
            "cores": [{"cpu": 1, "user": 0.1, "system": 0.2, "softirq": 0.1, "steal": 0.0, "idle": 0.1}]
        },
        "reordered": 0, "duplicates": 0
    })
}

fn verdict_of<'a>(
    rows: &'a underpass::bench::report::compare::Comparison,
    what: &str,
) -> &'a Change {
    let row = rows.rows.iter().find(|row| row.what == what);
    &row.unwrap_or_else(|| panic!("no row '{what}'")).change
}

#[test]
fn a_page_shows_every_figure_and_needs_nothing_else() {
    let page = html::page(&report(&[1e6, 1.1e6], &[0.5e6, 0.52e6]));
    for text in [
        "A &lt;CPU&gt; &amp; more",
        "ovs left out: it is &lt;not&gt; installed",
        "1.050",
        "<span class=\"less\">0.49</span>",
        "native routing of the same round",
        "CPU time for a packet",
        "one-way latency",
        "TCP goodput",
    ] {
        assert!(page.contains(text), "{text} is not in the page");
    }
    assert_eq!(page.matches("<svg").count(), page.matches("</svg>").count());
    assert!(
        page.matches("<svg").count() >= 5,
        "{}",
        page.matches("<svg").count()
    );
    for outside in ["http://", "https://", "<script", "src=", "@import"] {
        let known = page.replace("http://www.w3.org/2000/svg", "");
        assert!(!known.contains(outside), "the page needs {outside}");
    }
}

#[test]
fn rounds_that_are_all_better_are_better_and_those_that_mix_decide_nothing() {
    let old = report(&[1e6, 1.01e6, 1.015e6], &[0.5e6, 0.51e6, 0.52e6]);
    let new = report(&[1e6, 1.01e6, 1.015e6], &[0.6e6, 0.61e6, 0.62e6]);
    let found = compare(&old, &new);
    assert_eq!(found.differences, Vec::<String>::new());
    assert_eq!(*verdict_of(&found, "vxlan encap 64 PDR"), Change::Better);
    assert_eq!(*verdict_of(&found, "vxlan encap 64 cost"), Change::Better);
    assert_eq!(*verdict_of(&found, "native encap 64 PDR"), Change::Same);
    let back = compare(&new, &old);
    assert_eq!(*verdict_of(&back, "vxlan encap 64 PDR"), Change::Worse);
    let mixed = compare(
        &old,
        &report(&[1e6, 1.01e6, 1.015e6], &[0.4e6, 0.51e6, 0.7e6]),
    );
    assert_eq!(
        *verdict_of(&mixed, "vxlan encap 64 PDR"),
        Change::NotConclusive
    );
}

#[test]
fn another_machine_or_method_is_named() {
    let old = report(&[1e6], &[0.5e6]);
    let mut new = old.clone();
    new.machine.cpu = "another".to_owned();
    new.method.flows = 4096;
    new.version = "0.2.0".to_owned();
    new.method.width = 0.03;
    new.method.trials = 1;
    new.method.node_cpu = 3;
    new.method.interfaces = Some(GivenInterfaces {
        from: "eth1".to_owned(),
        to: "eth2".to_owned(),
        source: [198, 18, 0, 1].into(),
        destination: [198, 19, 0, 0].into(),
    });
    let differences = compare(&old, &new).differences;
    assert_eq!(
        differences,
        [
            "underpass: 0.1.0, then 0.2.0",
            "CPU: A <CPU> & more, then another",
            "the nodes' CPU: 1, then 3",
            "between: the bench's own nodes, then eth1 to eth2, 198.18.0.1 to 198.19.0.0",
            "flows: 64, then 4096",
            "trials at each rate: 3, then 1",
            "the search's width: 0.01, then 0.03",
        ]
    );
}

/// What failed in one of the runs has a line, too.
#[test]
fn a_system_that_is_missing_or_carries_nothing_is_named() {
    let whole = report(&[1e6, 1.01e6], &[0.5e6, 0.51e6]);
    let mut without = whole.clone();
    without.cells.pop();
    without.tcp.clear();
    let lost = compare(&whole, &without);
    assert_eq!(
        *verdict_of(&lost, "vxlan encap 64 PDR"),
        Change::OnlyInFirst
    );
    assert_eq!(
        *verdict_of(&lost, "native TCP, offloads off"),
        Change::OnlyInFirst
    );
    let won = compare(&without, &whole);
    assert_eq!(
        *verdict_of(&won, "vxlan encap 64 PDR"),
        Change::OnlyInSecond
    );

    let mut fails = whole.clone();
    for round in &mut fails.cells[1].rounds {
        (round.pdr, round.ndr, round.cost) = (None, None, None);
        round.latency.clear();
    }
    let found = compare(&whole, &fails);
    for figure in ["PDR", "NDR", "cost", "p99 at half load"] {
        let what = format!("vxlan encap 64 {figure}");
        assert_eq!(*verdict_of(&found, &what), Change::NoneFound);
    }
    // One round that found nothing is not as good as the others.
    let mut better = report(&[1e6, 1.01e6], &[0.7e6, 0.71e6]);
    better.cells[1].rounds[0].pdr = None;
    let found = compare(&whole, &better);
    assert_eq!(
        *verdict_of(&found, "vxlan encap 64 PDR"),
        Change::NotConclusive
    );
    assert_eq!(found.notes, ["both: ovs left out: it is <not> installed"]);
}

#[test]
fn a_run_that_measured_nothing_says_why() {
    let mut found = report(&[1e6], &[0.5e6]);
    assert_eq!(found.nothing(), None);
    found.cells.clear();
    assert_eq!(found.nothing(), None, "there is TCP");
    found.tcp.clear();
    let reason = "ovs left out: it is <not> installed";
    assert_eq!(found.nothing().as_deref(), Some(reason));
}

#[test]
fn what_another_version_wrote_is_said_or_read_as_far_as_it_is_known() {
    let mut value = serde_json::to_value(report(&[1e6], &[0.5e6])).unwrap();
    let read = |value: &serde_json::Value| Report::read(&value.to_string());
    assert_eq!(read(&value).unwrap(), report(&[1e6], &[0.5e6]));

    value["version"] = "0.9.0".into();
    value["cells"][1]["system"] = "teleport".into();
    let known = read(&value).unwrap();
    assert_eq!(known.systems(), [System::Native]);
    let note = known.notes.last().unwrap();
    assert!(
        note.starts_with("teleport left out: underpass 0.9.0"),
        "{note}"
    );

    let newer = serde_json::json!({"format": 99, "version": "0.9.0", "results": {}});
    let error = read(&newer).unwrap_err();
    assert!(
        error.contains("of format 99, written by underpass 0.9.0"),
        "{error}"
    );
    for (text, part) in [("{", "not a bench's JSON"), ("{}", "it has no 'format'")] {
        let error = Report::read(text).unwrap_err();
        assert!(error.contains(part), "{error}");
    }
    value["cells"] = 7.into();
    let error = read(&value).unwrap_err();
    assert!(
        error.contains("cannot read what underpass 0.9.0 wrote"),
        "{error}"
    );
}

#[test]
fn rounds_pair_by_their_numbers() {
    let setting = (Direction::Encap, FrameSize::Bytes(64));
    let mut found = report(&[2e6, 4e6], &[1e6, 2e6]);
    let against = |found: &Report| {
        let by_pdr = |round: &Round| round.pdr;
        found.against(System::Vxlan, System::Native, setting, by_pdr)
    };
    // Reports from before rounds had numbers.
    assert_eq!(against(&found), Some(Verdict::Lower(0.5)));
    // native failed in the first round, vxlan in the third.
    for (cell, numbers) in [(0, [2, 3]), (1, [1, 2])] {
        for (round, number) in found.cells[cell].rounds.iter_mut().zip(numbers) {
            round.number = Some(number);
        }
    }
    assert_eq!(against(&found), Some(Verdict::NotConclusive(1.0)));
}

#[test]
fn a_median_of_some_rounds_says_so() {
    let mut found = report(&[1e6, 1e6, 1e6], &[0.5e6, 0.5e6, 0.4e6]);
    let rounds = &mut found.cells[1].rounds;
    (rounds[0].ndr, rounds[1].ndr) = (None, None);
    assert_eq!(found.ndr(&found.cells[1]), "0.360 (1 of 3)");
    assert_eq!(found.pdr(&found.cells[1]), "0.500");
    assert!(html::page(&found).contains("<td>0.360 (1 of 3)</td>"));
    found.cells[1].rounds[2].ndr = None;
    assert_eq!(found.ndr(&found.cells[1]), "none");
}

#[test]
fn a_search_that_ended_early_is_marked_and_decides_nothing() {
    let setting = (Direction::Encap, FrameSize::Bytes(64));
    let mut found = report(&[1e6, 1e6], &[0.8e6, 0.8e6]);
    let by_pdr = |round: &Round| round.pdr;
    let against = |found: &Report| found.against(System::Vxlan, System::Native, setting, by_pdr);
    assert_eq!(against(&found), Some(Verdict::Lower(0.8)));
    assert_eq!(found.footnote(setting), None);
    found.cells[1].rounds[1].pdr_width = 0.25;
    assert_eq!(against(&found), Some(Verdict::NotConclusive(0.8)));
    assert_eq!(found.pdr(&found.cells[1]), "0.800 *");
    let footnote = found.footnote(setting).unwrap();
    assert!(footnote.contains("up to 25 %"), "{footnote}");
    assert!(html::page(&found).contains(&footnote));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_report_is_read_as_it_was_written(
        native in proptest::collection::vec(1_000..5_000_000_u32, 1..5),
        vxlan in proptest::collection::vec(1_000..5_000_000_u32, 1..5),
    ) {
        let [native, vxlan] = [native, vxlan].map(|all| all.into_iter().map(f64::from).collect::<Vec<_>>());
        let one = report(&native, &vxlan);
        let text = serde_json::to_string_pretty(&one).unwrap();
        prop_assert_eq!(serde_json::from_str::<Report>(&text).unwrap(), one);
    }

    /// What a verdict says holds for every pair of rounds.
    #[test]
    fn a_conclusive_ratio_holds_in_every_round(
        pairs in proptest::collection::vec((1e5..2e6_f64, 1e5..2e6_f64), 2..6),
    ) {
        let (native, vxlan): (Vec<_>, Vec<_>) = pairs.iter().copied().unzip();
        let setting = (Direction::Encap, FrameSize::Bytes(64));
        let one = report(&native, &vxlan);
        let verdict = one.against(System::Vxlan, System::Native, setting, |round| round.pdr).unwrap();
        let faster = pairs.iter().filter(|(native, vxlan)| vxlan > native).count();
        if verdict.is_conclusive() {
            let all_alike = faster == 0 || faster == pairs.len();
            let near = pairs.iter().all(|(native, vxlan)| (vxlan / native - 1.0).abs() <= 0.021);
            prop_assert!(all_alike || near, "{verdict:?} of {pairs:?}");
        } else {
            prop_assert!(pairs.iter().any(|(native, vxlan)| vxlan / native > 0.989));
        }
        let ratios = pairs.iter().map(|(native, vxlan)| vxlan / native);
        let (least, most) = ratios.fold((f64::MAX, 0.0_f64), |(a, b), r| (a.min(r), b.max(r)));
        prop_assert!((least..=most).contains(&verdict.ratio()));
    }
}
