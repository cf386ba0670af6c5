//! The answers to IPv4 destinations by their first 24 bits, which almost every look-up ends at: one load.
//!
//! This is DIR-24-8's first level (see [`super`]) with entries of two bytes, for speed alone: what it
//! says follows from the table, and where two bytes do not hold that, it refers to the table. The writer
//! changes the table first, then what follows here, and only then gives blocks back that it took out;
//! so an address's answer changes once, from what it was before an update to what it is after it. (But for
//! an answer that refers to the table: who has read it just before may find there what comes next.)

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU16, Ordering, fence};

use super::blocks::Chunk;
use super::pages::zeroed_in_huge_pages;
use super::table::{Table, load};
use super::update::Prefix;
use super::{Answer, Entry};

/// Address bits that are looked at.
const BITS: u8 = 24;
const ANSWERS: usize = 1 << BITS;
/// Answers of one entry of the table's first level.
const OF_FIRST_LEVEL: usize = 256;
/// Look-ups whose loads are in flight together; more than a core has miss buffers for.
const GROUP: usize = 64;

/// 32 MiB of address space, of which those pages take memory that a route was written to.
#[derive(Debug)]
pub(super) struct Direct {
    answers: Box<[AtomicU16; ANSWERS]>,
}

/// What is known of an address by its first 24 bits.
///
/// ```text
///  15 14                          0
/// +--+-----------------------------+
/// | 0| next hop + 1; 0 is no route |
/// +--+-----------------------------+
/// | 1| number of the block         |  its last 8 bits decide
/// +--+-----------------------------+
/// | 1| all ones                    |  look into the table
/// +--+-----------------------------+
/// ```
#[derive(Clone, Copy, PartialEq, Eq)]
struct Brief(u16);

impl Brief {
    const BLOCK: u16 = 1 << 15;
    const ASK_THE_TABLE: Self = Self(u16::MAX);

    fn of(entry: Entry) -> Self {
        let (kind, field, largest) = if entry.is_block() {
            (Self::BLOCK, entry.number(), 0x7ffe)
        } else {
            (0, entry.answer().0, 0x7fff)
        };
        if field <= largest {
            Self(kind | field as u16)
        } else {
            Self::ASK_THE_TABLE
        }
    }

    /// Release: whoever acquires this answer sees the block's content. What is as it was is not written,
    /// so that memory which no route was written to is not taken.
    fn publish(self, to: &AtomicU16) {
        // Relaxed: nobody but the writer stores here.
        if to.load(Ordering::Relaxed) != self.0 {
            to.store(self.0, Ordering::Release);
        }
    }

    #[inline]
    fn is_leaf(self) -> bool {
        self.0 & Self::BLOCK == 0
    }

    #[inline]
    fn leaf(self) -> Answer {
        Answer(self.0.into())
    }

    /// Of a block.
    #[inline]
    fn number(self) -> u32 {
        u32::from(self.0 & !Self::BLOCK)
    }
}

impl Direct {
    pub(super) fn new() -> Self {
        Self {
            answers: zeroed_in_huge_pages("the answers by 24 bits"),
        }
    }

    #[inline]
    pub(super) fn look_up(&self, table: &Table, address: Ipv4Addr) -> Answer {
        let brief = Brief(self.answers[place(address)].load(Ordering::Acquire));
        let answer = if brief.is_leaf() {
            brief.leaf()
        } else {
            beyond(brief, table, table.blocks.home(), address)
        };
        answer.or(table.default())
    }

    /// Answers as many as the shorter slice holds.
    ///
    /// The loads of a group wait for nothing; see [`Table`] for their order.
    #[inline]
    pub(super) fn look_up_batch(&self, table: &Table, from: &[Ipv4Addr], to: &mut [Answer]) {
        for (from, to) in from.chunks(GROUP).zip(to.chunks_mut(GROUP)) {
            let mut all = 0;
            for (to, &address) in to.iter_mut().zip(from) {
                let brief = self.answers[place(address)].load(Ordering::Relaxed);
                *to = Answer(brief.into());
                all |= brief;
            }
            fence(Ordering::Acquire);
            if !Brief(all).is_leaf() {
                look_beyond(table, from, to);
            }
            let default = table.default();
            for (to, _) in to.iter_mut().zip(from) {
                *to = to.or(default);
            }
        }
    }

    /// Has the answers within a prefix follow from the table.
    pub(super) fn follow(&self, table: &Table, prefix: Prefix) {
        let first = (prefix.bits >> (128 - u32::from(BITS))) as usize;
        let count = 1_usize << BITS.saturating_sub(prefix.length);
        let mut at = first;
        while at < first + count {
            let within = at % OF_FIRST_LEVEL;
            let end = OF_FIRST_LEVEL.min(within + first + count - at);
            let answers = &self.answers[at - within..][..OF_FIRST_LEVEL];
            follow_first_level(table, at / OF_FIRST_LEVEL, &answers[within..end], within);
            at += end - within;
        }
    }
}

/// The same for answers of one entry of the first level, from that of the 8 bits `begin` on.
fn follow_first_level(table: &Table, index: usize, answers: &[AtomicU16], begin: usize) {
    let entry = load(&table.first_level[index]);
    if !entry.is_block() {
        let answer = Brief::of(entry);
        answers.iter().for_each(|to| answer.publish(to));
        return;
    }
    let block = table.blocks.get_or_allocate(entry.number());
    for (byte, to) in (begin..).zip(answers) {
        let entry = match entry.level() {
            0 => load(&block.entries[byte]),
            _ if byte == usize::from((block.key() >> 104) as u8) => entry,
            _ => load(block.fallback),
        };
        Brief::of(entry).publish(to);
    }
}

/// Puts what they lead to in the place of answers that are none yet.
fn look_beyond(table: &Table, from: &[Ipv4Addr], answers: &mut [Answer]) {
    let home = table.blocks.home();
    for (answer, &address) in answers.iter_mut().zip(from) {
        let brief = Brief(answer.0 as u16);
        if !brief.is_leaf() {
            *answer = beyond(brief, table, home, address);
        }
    }
}

/// The answer that one which is none yet leads to.
#[inline]
fn beyond(brief: Brief, table: &Table, home: Option<&Chunk>, address: Ipv4Addr) -> Answer {
    let [.., byte] = address.octets();
    let entry = match home {
        Some(home) if brief != Brief::ASK_THE_TABLE => {
            Entry(home.entry(brief.number(), byte).load(Ordering::Acquire))
        }
        _ => table.find(address),
    };
    entry.answer()
}

#[inline]
fn place(address: Ipv4Addr) -> usize {
    (address.to_bits() >> (32 - BITS)) as usize
}

#[cfg(test)]
mod tests {
    use super::super::NextHop;
    use super::*;

    #[test]
    fn what_two_bytes_do_not_hold_is_for_the_table() {
        for (entry, answer) in [
            (Entry::NONE, Brief(0)),
            (Entry::leaf(24, NextHop(0)), Brief(1)),
            (Entry::leaf(8, NextHop(0x7ffe)), Brief(0x7fff)),
            (Entry::leaf(8, NextHop(0x7fff)), Brief::ASK_THE_TABLE),
            (Entry::leaf(8, NextHop::MAX), Brief::ASK_THE_TABLE),
            (Entry::block(1, 1, 0), Brief(0x8000)),
            (Entry::block(0, 1, 0x7ffe), Brief(0xfffe)),
            (Entry::block(1, 1, 0x7fff), Brief::ASK_THE_TABLE),
            (Entry::block(1, 1, 0x10000), Brief::ASK_THE_TABLE),
        ] {
            assert_eq!(Brief::of(entry).0, answer.0, "{entry:?}");
        }
    }
}
