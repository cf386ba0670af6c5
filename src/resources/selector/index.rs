//! Which selectors match which things, kept up to date as both come, change and go.
//!
//! A selector is filed under one label that it needs, so a thing with few labels meets few of
//! thousands of selectors; things are filed under each of their labels, so that a new selector meets
//! few of them. What a selector needs of all labels decides where it is filed: a value if it names
//! some, else a key, else nothing, which makes it meet everything.

use std::collections::{BTreeMap, BTreeSet};

use super::ast::Needs;
use super::{Labels, Selector};

/// Selectors by `S` and labelled things by `T`.
#[derive(Debug, Clone)]
pub struct SelectorIndex<S, T> {
    selectors: BTreeMap<S, Selector>,
    things: BTreeMap<T, Labels>,
    selected: BTreeMap<S, BTreeSet<T>>,
    selecting: BTreeMap<T, BTreeSet<S>>,
    filed: BTreeMap<Need, BTreeSet<S>>,
    labelled: BTreeMap<Need, BTreeSet<T>>,
}

/// A match that began or ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Change<S, T> {
    /// The selector now selects the thing.
    Started(S, T),
    /// It no longer does.
    Stopped(S, T),
}

/// Under what selectors and things are filed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Need {
    Nothing,
    Key(String),
    Value(String, String),
}

impl<S, T> Default for SelectorIndex<S, T> {
    fn default() -> Self {
        Self {
            selectors: BTreeMap::new(),
            things: BTreeMap::new(),
            selected: BTreeMap::new(),
            selecting: BTreeMap::new(),
            filed: BTreeMap::new(),
            labelled: BTreeMap::new(),
        }
    }
}

impl<S: Ord + Clone, T: Ord + Clone> SelectorIndex<S, T> {
    /// Adds a selector, or gives one another meaning.
    pub fn put_selector(&mut self, id: S, selector: Selector) -> Vec<Change<S, T>> {
        self.unfile(&id);
        for need in filing(&selector) {
            self.filed.entry(need).or_default().insert(id.clone());
        }
        let now: BTreeSet<T> = self
            .candidates(&selector)
            .into_iter()
            .filter(|(_, labels)| selector.matches(labels))
            .map(|(thing, _)| thing.clone())
            .collect();
        self.selectors.insert(id.clone(), selector);
        let before = self.selected.get(&id).cloned().unwrap_or_default();
        let stopped = (&before - &now).into_iter();
        let started = (&now - &before).into_iter();
        stopped
            .map(|thing| (false, thing))
            .chain(started.map(|thing| (true, thing)))
            .map(|(on, thing)| self.set(on, id.clone(), thing))
            .collect()
    }

    /// Removes a selector.
    pub fn delete_selector(&mut self, id: &S) -> Vec<Change<S, T>> {
        self.unfile(id);
        self.selectors.remove(id);
        let selected = self.selected.get(id).cloned().unwrap_or_default();
        let stopped = selected.into_iter();
        stopped
            .map(|thing| self.set(false, id.clone(), thing))
            .collect()
    }

    /// Adds a thing, or gives one other labels.
    pub fn put_labels(&mut self, thing: T, labels: Labels) -> Vec<Change<S, T>> {
        self.unlabel(&thing);
        for need in needs_met(&labels) {
            self.labelled.entry(need).or_default().insert(thing.clone());
        }
        let now: BTreeSet<S> = needs_met(&labels)
            .filter_map(|need| self.filed.get(&need))
            .flatten()
            .filter(|id| self.selectors[id].matches(&labels))
            .cloned()
            .collect();
        self.things.insert(thing.clone(), labels);
        let before = self.selecting.get(&thing).cloned().unwrap_or_default();
        let stopped = (&before - &now).into_iter();
        let started = (&now - &before).into_iter();
        stopped
            .map(|id| (false, id))
            .chain(started.map(|id| (true, id)))
            .map(|(on, id)| self.set(on, id, thing.clone()))
            .collect()
    }

    /// Removes a thing.
    pub fn delete_labels(&mut self, thing: &T) -> Vec<Change<S, T>> {
        self.unlabel(thing);
        self.things.remove(thing);
        let selecting = self.selecting.get(thing).cloned().unwrap_or_default();
        let stopped = selecting.into_iter();
        stopped
            .map(|id| self.set(false, id, thing.clone()))
            .collect()
    }

    /// The things that a selector selects, in order.
    pub fn selected(&self, id: &S) -> impl Iterator<Item = &T> {
        self.selected.get(id).into_iter().flatten()
    }

    /// The selectors that select a thing, in order.
    pub fn selecting(&self, thing: &T) -> impl Iterator<Item = &S> {
        self.selecting.get(thing).into_iter().flatten()
    }

    /// The things that a selector can select at all.
    fn candidates(&self, selector: &Selector) -> Vec<(&T, &Labels)> {
        let needs = filing(selector);
        if needs.contains(&Need::Nothing) {
            return self.things.iter().collect();
        }
        needs
            .iter()
            .filter_map(|need| self.labelled.get(need))
            .flatten()
            .filter_map(|thing| self.things.get_key_value(thing))
            .collect()
    }

    fn set(&mut self, on: bool, id: S, thing: T) -> Change<S, T> {
        if on {
            put(&mut self.selected, id.clone(), thing.clone());
            put(&mut self.selecting, thing.clone(), id.clone());
            Change::Started(id, thing)
        } else {
            take(&mut self.selected, &id, &thing);
            take(&mut self.selecting, &thing, &id);
            Change::Stopped(id, thing)
        }
    }

    fn unfile(&mut self, id: &S) {
        if let Some(selector) = self.selectors.get(id) {
            for need in filing(selector) {
                take(&mut self.filed, &need, id);
            }
        }
    }

    fn unlabel(&mut self, thing: &T) {
        if let Some(labels) = self.things.get(thing) {
            for need in needs_met(labels) {
                take(&mut self.labelled, &need, thing);
            }
        }
    }
}

/// Where a selector is filed: under the fewest values, else under a key, else under nothing.
fn filing(selector: &Selector) -> Vec<Need> {
    let needs = selector.expression().needs();
    let values = needs.iter().filter_map(|(key, need)| match need {
        Needs::OneOf(values) => Some((key, values)),
        Needs::Present => None,
    });
    if let Some((key, values)) = values.min_by_key(|(_, values)| values.len()) {
        let filed = |value: &String| Need::Value((*key).to_owned(), value.clone());
        return values.iter().map(filed).collect();
    }
    match needs.keys().next() {
        Some(key) => vec![Need::Key((*key).to_owned())],
        None => vec![Need::Nothing],
    }
}

/// Under what a thing with these labels is found.
fn needs_met(labels: &Labels) -> impl Iterator<Item = Need> {
    let keys = labels.keys().cloned().map(Need::Key);
    let values = labels
        .iter()
        .map(|(key, value)| Need::Value(key.clone(), value.clone()));
    std::iter::once(Need::Nothing).chain(keys).chain(values)
}

fn put<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

fn take<K: Ord, V: Ord>(map: &mut BTreeMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = map.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            map.remove(key);
        }
    }
}
