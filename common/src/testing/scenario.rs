//! Long runs of broken packets at all hooks, always the same ones.

use std::{collections::BTreeMap, env, format, string::String, vec::Vec};

use super::{
    CLIENT, Frame, HostMaps, OVERLAY_MAC, Random, SERVER, THIRD, UPLINK_MAC, cluster, mutate,
};
use crate::{Features, Hook, Mac, Outcome, Pod, Verdict, forward, ip::ETHERNET};

/// How many packets a scenario has.
pub const SCENARIO: usize = 256;

/// A node and what comes by there, flow by flow.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What the node knows at first.
    pub maps: HostMaps,
    /// Where each packet comes by.
    pub packets: Vec<(Hook, Frame)>,
}

impl Scenario {
    /// The scenario of a number: equal numbers, equal scenarios.
    ///
    /// The frames keep their Ethernet header, and have no tag: the kernel makes no others in test runs.
    pub fn new(number: u64, seeds: &[Frame]) -> Self {
        // Neighbouring numbers begin far apart (Fibonacci hashing, Knuth).
        let mut random = Random::new((number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let mut maps = cluster();
        if number % 2 == 1 {
            maps.flag_pod(THIRD.ifindex, Pod::SLOW);
        }
        if number % 4 == 3 {
            maps.flag_pod(CLIENT.ifindex, Pod::ISOLATED);
            maps.flag_pod(SERVER.ifindex, Pod::ISOLATED);
        }
        let packet = || {
            let mut frame = random.pick(seeds).clone();
            let hook = *random.pick(likely(&frame));
            mutate(&mut frame, &mut random, ETHERNET);
            frame.for_host = frame.destination() == address(hook);
            (hook, frame)
        };
        let packets = core::iter::repeat_with(packet).take(SCENARIO).collect();
        Self { maps, packets }
    }
}

/// Where a packet may come by: where it belongs more often than elsewhere.
fn likely(frame: &Frame) -> &'static [Hook] {
    use Hook::{FromOverlay, FromPod, FromUplink, ToPod, ToUplink};
    let of = |mac| frame.destination() == Some(mac);
    if of(UPLINK_MAC) {
        &[FromUplink, FromUplink, FromUplink, ToPod, FromPod]
    } else if of(OVERLAY_MAC) {
        &[FromOverlay, FromOverlay, FromOverlay, ToPod, FromUplink]
    } else if of(CLIENT.mac) {
        &[ToPod, ToPod, FromUplink, FromOverlay]
    } else {
        &[FromPod, FromPod, FromPod, FromPod, ToUplink, ToPod]
    }
}

/// The address of the interface of a hook that asks whether a packet is for it.
const fn address(hook: Hook) -> Option<Mac> {
    match hook {
        Hook::FromUplink => Some(UPLINK_MAC),
        Hook::FromOverlay => Some(OVERLAY_MAC),
        _ => None,
    }
}

/// Lets the packet logic of a hook judge a packet; that of `from_pod` at the host veth of [`CLIENT`].
pub fn judge(hook: Hook, frame: &mut Frame, maps: &HostMaps, features: Features) -> Verdict {
    match hook {
        Hook::FromPod => forward::from_pod(frame, maps, features, CLIENT.ifindex),
        Hook::FromUplink => forward::from_uplink(frame, maps),
        Hook::FromOverlay => forward::from_overlay(frame, maps, features),
        Hook::ToPod => forward::to_pod(frame, maps),
        Hook::ToUplink => forward::to_uplink(frame, maps),
    }
}

/// How many packets a fuzz test runs: what `BEELINE_FUZZ_PACKETS` says, else so many.
///
/// # Panics
///
/// If it says something else.
pub fn fuzz_packets(otherwise: usize) -> usize {
    let Ok(packets) = env::var("BEELINE_FUZZ_PACKETS") else {
        return otherwise;
    };
    packets.parse().expect("BEELINE_FUZZ_PACKETS: a number")
}

/// What became of how many packets.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(Hook, u32), u64>);

impl Tally {
    /// Adds a packet.
    pub fn add(&mut self, hook: Hook, outcome: Outcome) {
        *self.0.entry((hook, outcome.number())).or_default() += 1;
    }

    /// How many packets of the hook had the outcome.
    pub fn of(&self, hook: Hook, outcome: Outcome) -> u64 {
        let count = self.0.get(&(hook, outcome.number()));
        count.copied().unwrap_or_default()
    }

    /// One line a hook.
    pub fn lines(&self) -> String {
        let mut lines = String::new();
        for hook in Hook::ALL {
            lines += &format!("  {}:", hook.name());
            for outcome in Outcome::ALL {
                match self.of(hook, outcome) {
                    0 => {}
                    count => lines += &format!(" {} {count}", outcome.name()),
                }
            }
            lines.push('\n');
        }
        lines
    }
}
