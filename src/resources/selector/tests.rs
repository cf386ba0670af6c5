//! The language against Calico's own examples, and the index against trying everything.

use std::collections::BTreeSet;

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;

use super::*;

fn selector(text: &str) -> Selector {
    text.parse()
        .unwrap_or_else(|error| panic!("{text}: {error}"))
}

fn labels(pairs: &[(&str, &str)]) -> Labels {
    let owned = |&(key, value): &(&str, &str)| (key.to_owned(), value.to_owned());
    pairs.iter().map(owned).collect()
}

fn reason(text: &str) -> String {
    match text.parse::<Selector>() {
        Err(SelectorError::Syntax { reason, .. }) => reason,
        other => panic!("{text}: {other:?}"),
    }
}

/// Selectors, labels that they match, and labels that they do not match (`-` separates labels'
/// sets, an empty set is no label).
#[test]
fn selectors_select() {
    type Pairs = &'static [(&'static str, &'static str)];
    let cases: &[(&str, &[Pairs], &[Pairs])] = &[
        ("", &[&[], &[("a", "b")]], &[]),
        ("all()", &[&[], &[("a", "b")]], &[]),
        ("global()", &[&[], &[("a", "b")]], &[]),
        (
            "has(a)",
            &[&[("a", "")], &[("a", "b")]],
            &[&[], &[("b", "a")]],
        ),
        ("!has(a)", &[&[], &[("b", "a")]], &[&[("a", "b")]]),
        ("! has( a )", &[&[]], &[&[("a", "b")]]),
        (
            "a == 'b'",
            &[&[("a", "b")]],
            &[&[], &[("a", "c")], &[("b", "a")]],
        ),
        ("a == \"b\"", &[&[("a", "b")]], &[&[]]),
        ("a=='b'", &[&[("a", "b")]], &[&[]]),
        ("a == ''", &[&[("a", "")]], &[&[]]),
        ("a != 'b'", &[&[], &[("a", "c")]], &[&[("a", "b")]]),
        ("a in {'b'}", &[&[("a", "b")]], &[&[], &[("a", "c")]]),
        (
            "a in {'b', \"c\"}",
            &[&[("a", "b")], &[("a", "c")]],
            &[&[("a", "d")]],
        ),
        ("a in {}", &[], &[&[], &[("a", "")]]),
        ("a in {'b',}", &[&[("a", "b")]], &[]),
        (
            "a not in {'b', 'c'}",
            &[&[], &[("a", "d")]],
            &[&[("a", "b")]],
        ),
        ("a not in {}", &[&[], &[("a", "d")]], &[]),
        ("a notin {'b'}", &[&[]], &[&[("a", "b")]]),
        ("a contains 'b'", &[&[("a", "abc")]], &[&[], &[("a", "ac")]]),
        ("a contains''", &[&[("a", "abc")]], &[&[]]),
        (
            "a starts with 'b'",
            &[&[("a", "bcd")]],
            &[&[], &[("a", "ab")]],
        ),
        ("a starts  with'b'", &[&[("a", "bcd")]], &[&[]]),
        ("a ends with 'b'", &[&[("a", "cb")]], &[&[], &[("a", "bc")]]),
        (
            "has(calico/k8s_NS-.1/role)",
            &[&[("calico/k8s_NS-.1/role", "")]],
            &[&[]],
        ),
        (
            "a == 'b' && c == 'd'",
            &[&[("a", "b"), ("c", "d")]],
            &[&[("a", "b")]],
        ),
        (
            "a == 'b' || c == 'd'",
            &[&[("a", "b")], &[("c", "d")]],
            &[&[]],
        ),
        (
            "has(a) || has(b) && has(c)",
            &[&[("a", "")], &[("b", ""), ("c", "")]],
            &[&[("b", "")]],
        ),
        (
            "(has(a) || has(b)) && has(c)",
            &[&[("b", ""), ("c", "")]],
            &[&[("a", "")]],
        ),
        (
            "!(has(a) && has(b))",
            &[&[("a", "")]],
            &[&[("a", ""), ("b", "")]],
        ),
        ("!!has(a)", &[&[("a", "")]], &[&[]]),
        ("all() && !has(a)", &[&[]], &[&[("a", "")]]),
        // Words of the language are labels where a label may stand.
        ("in == 'x'", &[&[("in", "x")]], &[&[]]),
        ("has(not)", &[&[("not", "x")]], &[&[]]),
        ("contains contains 'x'", &[&[("contains", "axb")]], &[&[]]),
    ];
    for (text, matching, others) in cases {
        let selector = selector(text);
        for pairs in *matching {
            assert!(selector.matches(&labels(pairs)), "{text}: {pairs:?}");
        }
        for pairs in *others {
            assert!(!selector.matches(&labels(pairs)), "{text}: {pairs:?}");
        }
    }
}

#[test]
fn the_spelling_is_calicos() {
    for (text, canonical) in [
        ("", "all()"),
        (" all( ) ", "all()"),
        ("a=='b'", "a == \"b\""),
        ("a == 'it\"s'", "a == 'it\"s'"),
        ("a in {'c','b','b'}", "a in {\"b\", \"c\"}"),
        ("a not  in {}", "a not in {}"),
        ("a starts with 'x'", "a starts with \"x\""),
        ("has(a)&&has(b)||!has(c)", "((has(a) && has(b)) || !has(c))"),
        ("((has(a)))", "has(a)"),
        ("!!!has(a)", "!has(a)"),
        ("!(has(a) || global())", "!(has(a) || global())"),
        (
            "has(a) && (has(b) && has(c))",
            "(has(a) && (has(b) && has(c)))",
        ),
    ] {
        let parsed = selector(text);
        assert_eq!(parsed.canonical(), canonical, "{text}");
        assert_eq!(parsed.as_str(), text);
        assert_eq!(selector(canonical).expression(), parsed.expression());
    }
}

#[test]
fn errors_are_calicos() {
    for (text, expected) in [
        ("thing=hello &", "expected =="),
        ("a", "unexpected characters"),
        ("a == b", "unexpected characters"),
        ("a == ", "unexpected end of string looking for op"),
        ("a == 'b", "unterminated string"),
        ("a == \"b'", "unterminated string"),
        ("a == 'b' &", "expected &&"),
        ("a == 'b' | has(c)", "expected ||"),
        ("a == 'b' &&", "unexpected end of string looking for op"),
        ("(a == 'b'", "expected )"),
        ("a == 'b')", "unexpected content at end of selector [)]"),
        (
            "a == 'b' c == 'd'",
            "unexpected content at end of selector [c == \"d\"]",
        ),
        ("a in 'b'", "expected set literal"),
        ("a in {'b'", "expected }"),
        ("a in {b}", "expected }"),
        ("a == has(b)", "expected string"),
        ("&& has(a)", "unexpected token: &&"),
        ("a 'b' ", "expected == or != not: \"b\""),
        ("has(", "no label name in has( expression"),
        ("has()", "no label name in has( expression"),
        ("has(a b)", "no closing ')' after has("),
        ("all(a)", "no closing ')' after all("),
        ("global(", "no closing ')' after global("),
        (
            "a ~ 'b'",
            "unexpected characters after label 'a', was expecting an operator",
        ),
        (
            "this is not valid selector syntax",
            "unexpected characters after label 'this', was expecting an operator",
        ),
        (
            "a starts 'b'",
            "unexpected characters after label 'a', was expecting an operator",
        ),
        (
            "kubernetes.io/hostname: == 'casey-crc-kadm-node-4'",
            "unexpected characters after label 'kubernetes.io/hostname', was expecting an operator",
        ),
        ("é == 'b'", "unexpected characters"),
    ] {
        assert_eq!(reason(text), expected, "{text}");
    }
    let long = format!("a == '{}'", "x".repeat(1020));
    assert_eq!(long.parse::<Selector>(), Err(SelectorError::TooLong(1027)));
}

fn expression() -> impl Strategy<Value = Expression> {
    let key = || prop_oneof!["a", "b", "c"];
    let value = || prop_oneof!["", "x", "xy", "y\"", "z"];
    let leaf = prop_oneof![
        Just(Expression::All),
        Just(Expression::Global),
        key().prop_map(Expression::Has),
        (key(), value()).prop_map(|(k, v)| Expression::Equal(k, v)),
        (key(), value()).prop_map(|(k, v)| Expression::NotEqual(k, v)),
        (key(), value()).prop_map(|(k, v)| Expression::Contains(k, v)),
        (key(), value()).prop_map(|(k, v)| Expression::StartsWith(k, v)),
        (key(), value()).prop_map(|(k, v)| Expression::EndsWith(k, v)),
        (key(), btree_set(value(), 0..3)).prop_map(|(k, v)| Expression::In(k, v)),
        (key(), btree_set(value(), 0..3)).prop_map(|(k, v)| Expression::NotIn(k, v)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        prop_oneof![
            inner
                .clone()
                .prop_filter("`!!` is written as nothing", |operand| {
                    !matches!(operand, Expression::Not(_))
                })
                .prop_map(|operand| Expression::Not(Box::new(operand))),
            vec(inner.clone(), 2..4).prop_map(Expression::And),
            vec(inner, 2..4).prop_map(Expression::Or),
        ]
    })
}

fn some_labels() -> impl Strategy<Value = Labels> {
    let key = prop_oneof!["a", "b", "c"];
    let value = prop_oneof!["", "x", "xy", "y\"", "z"];
    btree_map(key, value, 0..4)
}

#[derive(Debug, Clone)]
enum Step {
    PutSelector(u8, Expression),
    DeleteSelector(u8),
    PutLabels(u8, Labels),
    DeleteLabels(u8),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..6u8, expression()).prop_map(|(id, is)| Step::PutSelector(id, is)),
        1 => (0..6u8).prop_map(Step::DeleteSelector),
        3 => (0..6u8, some_labels()).prop_map(|(id, has)| Step::PutLabels(id, has)),
        1 => (0..6u8).prop_map(Step::DeleteLabels),
    ]
}

proptest! {
    #[test]
    fn what_is_printed_parses_to_the_same(expression in expression()) {
        let printed = expression.to_string();
        prop_assume!(printed.chars().count() <= 1024);
        let parsed = selector(&printed);
        prop_assert_eq!(parsed.expression(), &expression);
    }

    #[test]
    fn parsing_never_panics(text in "[a-c(){}'\"!=&|, ]{0,40}|.{0,40}") {
        let _ = text.parse::<Selector>();
    }

    /// The index says what trying every selector on every thing says, and tells each change once.
    #[test]
    fn the_index_agrees_with_trying_everything(steps in vec(step(), 0..60)) {
        let mut index = SelectorIndex::default();
        let mut selectors: BTreeMap<u8, Selector> = BTreeMap::new();
        let mut things: BTreeMap<u8, Labels> = BTreeMap::new();
        let mut told: BTreeSet<(u8, u8)> = BTreeSet::new();
        for step in steps {
            let changes = match step {
                Step::PutSelector(id, expression) => {
                    let Ok(selector) = expression.to_string().parse::<Selector>() else {
                        continue;
                    };
                    selectors.insert(id, selector.clone());
                    index.put_selector(id, selector)
                }
                Step::DeleteSelector(id) => {
                    selectors.remove(&id);
                    index.delete_selector(&id)
                }
                Step::PutLabels(id, labels) => {
                    things.insert(id, labels.clone());
                    index.put_labels(id, labels)
                }
                Step::DeleteLabels(id) => {
                    things.remove(&id);
                    index.delete_labels(&id)
                }
            };
            for change in changes {
                match change {
                    Change::Started(id, thing) => prop_assert!(told.insert((id, thing))),
                    Change::Stopped(id, thing) => prop_assert!(told.remove(&(id, thing))),
                }
            }
            let oracle: BTreeSet<(u8, u8)> = selectors
                .iter()
                .flat_map(|(id, selector)| {
                    let selected = things.iter().filter(|(_, labels)| selector.matches(labels));
                    selected.map(|(thing, _)| (*id, *thing))
                })
                .collect();
            prop_assert_eq!(&told, &oracle);
            for id in 0..6 {
                let selected: Vec<_> = index.selected(&id).map(|thing| (id, *thing)).collect();
                let expected: Vec<_> = oracle.iter().filter(|(s, _)| *s == id).copied().collect();
                prop_assert_eq!(selected, expected);
                let selecting: BTreeSet<_> = index.selecting(&id).map(|s| (*s, id)).collect();
                let expected: BTreeSet<_> =
                    oracle.iter().filter(|(_, thing)| *thing == id).copied().collect();
                prop_assert_eq!(selecting, expected);
            }
        }
    }
}
