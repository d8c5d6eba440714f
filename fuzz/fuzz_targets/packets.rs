//! Packets at all hooks: broken ones of each kind, one after the other on one node, which remembers flows.
//!
//! An input is what the node is like, then packets: a hook, a whole frame or the number of a seed with changes, and what
//! the kernel knows of it.

#![no_main]

use std::sync::LazyLock;

use beeline_common::{
    Features, Hook, Pod,
    testing::{CLIENT, FEATURES, Frame, SERVER, THIRD, VNI, check, cluster, seeds},
};
use libfuzzer_sys::{
    arbitrary::{Result, Unstructured},
    fuzz_target,
};

/// As long as the longest that is fast.
const LONGEST: usize = 1600;

static SEEDS: LazyLock<Vec<Frame>> = LazyLock::new(seeds);

fuzz_target!(|data: &[u8]| {
    // What ends early has no more packets.
    let _ = node(&mut Unstructured::new(data));
});

fn node(input: &mut Unstructured<'_>) -> Result<()> {
    let kind: u8 = input.arbitrary()?;
    let mut maps = cluster();
    for (bit, ifindex, flag) in [
        (1, THIRD.ifindex, Pod::SLOW),
        (2, CLIENT.ifindex, Pod::ISOLATED),
        (4, SERVER.ifindex, Pod::ISOLATED),
        (8, CLIENT.ifindex, Pod::SLOW),
    ] {
        if kind & bit != 0 {
            maps.flag_pod(ifindex, flag);
        }
    }
    let features = Features {
        anti_spoof: kind & 16 != 0,
        ..FEATURES
    };
    while !input.is_empty() {
        let hook = Hook::ALL[usize::from(input.arbitrary::<u8>()?) % Hook::ALL.len()];
        check(hook, &packet(input)?, &maps, features);
    }
    Ok(())
}

fn packet(input: &mut Unstructured<'_>) -> Result<Frame> {
    let number: u8 = input.arbitrary()?;
    let mut frame = match number {
        u8::MAX => {
            let length = usize::from(input.arbitrary::<u8>()?).min(input.len());
            Frame::new(input.bytes(length)?.to_vec())
        }
        // More than there are numbers.
        _ => SEEDS
            [(usize::from(number) << 1 | usize::from(input.arbitrary::<bool>()?)) % SEEDS.len()]
        .clone(),
    };
    let beside: u8 = input.arbitrary()?;
    frame.tagged = beside & 7 == 7;
    frame.for_host = beside & 8 == 0;
    frame.redirected = beside & 16 != 0;
    frame.vni = [Some(VNI), Some(VNI), Some(VNI + 1), None][usize::from(beside >> 5 & 3)];
    if beside & 128 != 0 {
        frame.segment_size = input.arbitrary::<u16>()?.into();
    }
    for _ in 0..input.arbitrary::<u8>()? % 4 {
        change(&mut frame, input)?;
    }
    Ok(frame)
}

/// Overwrites bytes, or gives the frame another length.
fn change(frame: &mut Frame, input: &mut Unstructured<'_>) -> Result<()> {
    let (at, count) = (
        usize::from(input.arbitrary::<u8>()?),
        input.arbitrary::<u8>()?,
    );
    match count % 8 {
        0 => frame.bytes.truncate(at),
        1 => frame.bytes.resize(at * LONGEST / 256, 0),
        count => {
            let bytes = input.bytes(usize::from(count - 1).min(input.len()))?;
            for (to, from) in frame.bytes.iter_mut().skip(at).zip(bytes) {
                *to = *from;
            }
        }
    }
    Ok(())
}
