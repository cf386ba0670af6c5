//! Congestion marks across a tunnel (RFC 6040).

use crate::packet::DropReason;

/// The two ECN bits of a TOS or traffic class byte (RFC 3168).
const MASK: u8 = 0b11;
const NOT_ECT: u8 = 0b00;
const ECT_1: u8 = 0b01;
const ECT_0: u8 = 0b10;
const CE: u8 = 0b11;

/// The outer TOS for an inner one, normal mode (section 4.1): the ECN field is copied, CE included;
/// the DSCP is the given one.
#[inline]
pub(super) fn encapsulate(inner_tos: u8, dscp: u8) -> u8 {
    (dscp << 2) | (inner_tos & MASK)
}

/// The TOS that the inner packet goes on with (section 4.2, figure 4).
#[inline]
pub(super) fn decapsulate(outer_tos: u8, inner_tos: u8) -> Result<u8, DropReason> {
    let ecn = match (inner_tos & MASK, outer_tos & MASK) {
        (NOT_ECT, CE) => return Err(DropReason::EcnNotEctCe),
        (NOT_ECT, _) => NOT_ECT,
        (_, CE) => CE,
        (ECT_0, ECT_1) => ECT_1,
        (inner, _) => inner,
    };
    Ok(inner_tos & !MASK | ecn)
}

/// Whether the inner packet goes on with the TOS that it has: always after an outer Not-ECT or ECT(0).
#[inline(always)]
pub(super) fn leaves_the_inner(outer_tos: u8, inner_tos: u8) -> bool {
    outer_tos & 1 == 0 || decapsulate(outer_tos, inner_tos) == Ok(inner_tos)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6040 figure 4, row by row: arriving inner, then the outcome for each arriving outer in
    /// the order Not-ECT, ECT(0), ECT(1), CE.
    const FIGURE_4: [(u8, [Option<u8>; 4]); 4] = [
        (NOT_ECT, [Some(NOT_ECT), Some(NOT_ECT), Some(NOT_ECT), None]),
        (ECT_0, [Some(ECT_0), Some(ECT_0), Some(ECT_1), Some(CE)]),
        (ECT_1, [Some(ECT_1), Some(ECT_1), Some(ECT_1), Some(CE)]),
        (CE, [Some(CE), Some(CE), Some(CE), Some(CE)]),
    ];

    #[test]
    fn decapsulation_follows_figure_4_and_keeps_the_dscp() {
        for (inner, outcomes) in FIGURE_4 {
            for (outer, outcome) in [NOT_ECT, ECT_0, ECT_1, CE].into_iter().zip(outcomes) {
                let got = decapsulate(0b1111_1100 | outer, 0b1010_1000 | inner).ok();
                assert_eq!(
                    got,
                    outcome.map(|ecn| 0b1010_1000 | ecn),
                    "{inner:02b} {outer:02b}"
                );
                let stays = leaves_the_inner(0b1111_1100 | outer, 0b1010_1000 | inner);
                assert_eq!(stays, outcome == Some(inner), "{inner:02b} {outer:02b}");
            }
        }
    }

    #[test]
    fn encapsulation_copies_the_mark() {
        for ecn in [NOT_ECT, ECT_0, ECT_1, CE] {
            assert_eq!(encapsulate(0b1010_1000 | ecn, 0b101010), 0b1010_1000 | ecn);
            assert_eq!(encapsulate(0b1010_1000 | ecn, 0), ecn);
        }
    }
}
