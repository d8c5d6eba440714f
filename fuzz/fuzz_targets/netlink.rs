//! What the kernel answers: every datagram ends, and what cannot be decoded is an error, or said to be anything.
//!
//! An input is who asks, and a datagram; or the kind of a message, and what is in it.

#![no_main]

use beeline::fuzzing::{self, Asked, LinkChange, TcChange};
use libfuzzer_sys::fuzz_target;

const HEADER: usize = 16;
const ERROR: u16 = 2;
const DONE: u16 = 3;
const OVERRUN: u16 = 4;

/// `RTM_NEWLINK`, `RTM_DELLINK`, `RTM_NEWADDR`, `RTM_NEWROUTE`, `RTM_NEWNEIGH`, `RTM_NEWQDISC`, `RTM_NEWTFILTER`,
/// `RTM_DELTFILTER`, of conntrack `IPCTNL_MSG_CT_NEW`, and of nf_tables `NFT_MSG_NEWGEN`.
const KINDS: [u16; 13] = [
    16, 17, 20, 24, 28, 36, 44, 45, 0x100, 0xa0f, ERROR, DONE, OVERRUN,
];

fuzz_target!(|data: &[u8]| {
    let Some((&asked, rest)) = data.split_first() else {
        return;
    };
    let datagram = match rest.split_first() {
        Some((&kind, payload)) if asked & 128 != 0 => {
            message(KINDS[usize::from(kind) % KINDS.len()], payload)
        }
        _ => rest.to_vec(),
    };
    match asked & 7 {
        0..=2 => exchange(Asked::Route, &datagram),
        3 => exchange(Asked::Conntrack, &datagram),
        4 => exchange(Asked::Tc, &datagram),
        5 => changes(&datagram),
        6 => nf_tables(&datagram),
        _ => exchange(Asked::Ipsec, &datagram),
    }
});

fn message(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = (HEADER + payload.len()) as u32;
    [
        &length.to_ne_bytes()[..],
        &kind.to_ne_bytes(),
        &[0; 10],
        payload,
    ]
    .concat()
}

/// The messages as their lengths part them: kind, flags and payload; the last is none if the datagram goes on with what
/// is not one.
fn parts(mut datagram: &[u8]) -> Vec<Option<(u16, u16, &[u8])>> {
    let mut parts = Vec::new();
    while !datagram.is_empty() {
        let word = |at: usize| {
            datagram
                .get(at..at + 2)
                .map(|word| u16::from_ne_bytes([word[0], word[1]]))
        };
        let length = datagram
            .first_chunk()
            .map(|length| u32::from_ne_bytes(*length) as usize);
        let whole = length.filter(|length| (HEADER..=datagram.len()).contains(length));
        let (Some(length), Some(kind), Some(flags)) = (whole, word(4), word(6)) else {
            parts.push(None);
            break;
        };
        parts.push(Some((kind, flags, &datagram[HEADER..length])));
        datagram = datagram
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    parts
}

fn code(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().copied().map(i32::from_ne_bytes)
}

fn exchange(asked: Asked, datagram: &[u8]) {
    let parts = parts(datagram);
    let decodable = fuzzing::decodable(asked, datagram);
    assert_eq!(decodable.len(), parts.len());
    // Up to the first that ends it all.
    let end = parts.iter().zip(&decodable).position(|(part, decodable)| {
        !decodable || part.is_none_or(|(kind, ..)| matches!(kind, ERROR | DONE | OVERRUN))
    });
    let taken = fuzzing::exchange(asked, datagram);
    let Some(end) = end else {
        let (told, ended) = taken.expect("nothing is wrong");
        assert!(!ended && told <= parts.len());
        return;
    };
    let expected = match parts[end] {
        Some((kind, _, payload)) if decodable[end] => match kind {
            ERROR => code(payload).expect("it can be decoded"),
            DONE => code(payload).unwrap_or_default().min(0),
            _ => -105,
        },
        _ => -74,
    };
    match taken {
        Ok((told, ended)) => {
            assert!(ended && told <= end);
            assert_eq!(expected, 0);
        }
        Err(_) => assert_ne!(expected, 0),
    }
}

fn changes(datagram: &[u8]) {
    let (tc, links, decodable) = fuzzing::changes(datagram);
    let parts = parts(datagram);
    assert_eq!(decodable.len(), parts.len());
    let lost =
        decodable.contains(&false) || parts.iter().flatten().any(|(kind, ..)| *kind == OVERRUN);
    assert!(!lost || tc.contains(&TcChange::Unknown), "{tc:?}");
    assert!(tc.len() <= parts.len() && links.len() <= parts.len());
    let named = parts
        .iter()
        .flatten()
        .filter(|(kind, ..)| matches!(kind, 36 | 37 | 44 | 45));
    assert!(tc.len() >= named.count(), "{tc:?}");
    let known = links
        .iter()
        .filter(|change| matches!(change, LinkChange::Mac(..)));
    let links_told = parts.iter().flatten().filter(|(kind, ..)| *kind == 16);
    assert!(known.count() <= links_told.count());
}

fn nf_tables(datagram: &[u8]) {
    let (there, kind, number) = fuzzing::nf_tables(datagram);
    let said = datagram
        .get(4..6)
        .map(|kind| u16::from_ne_bytes([kind[0], kind[1]]));
    assert_eq!(kind, said);
    if datagram.len() < HEADER {
        assert!(there.is_err() && number.is_none());
    } else if said == Some(ERROR) {
        let there = there.ok();
        match code(&datagram[HEADER..]) {
            Some(0) => assert_eq!(there, Some(true)),
            // ENOENT, EINVAL and EOPNOTSUPP.
            Some(-2 | -22 | -95) => assert_eq!(there, Some(false)),
            _ => assert_eq!(there, None),
        }
    } else {
        assert!(there.unwrap());
    }
    assert!(number.is_none() || datagram.len() >= HEADER + 12);
}
