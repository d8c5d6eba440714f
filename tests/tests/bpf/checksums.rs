//! The checksum that a device takes of a whole packet (`CHECKSUM_COMPLETE`).

use beeline_common::{
    Hook, Outcome,
    testing::{Random, mutate, seeds},
};
use nix::libc;

use crate::lab::{Lab, lab, refused};

/// Whether the kernel checks such checksums in test runs; others refuse the flag.
fn kernel_checks(lab: &Lab) -> bool {
    match lab.run(Hook::FromPod, &seeds()[0], true) {
        Ok(_) => true,
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => false,
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_devices_checksum_follows_the_rewritten_packet() {
    lab(|lab| {
        if !kernel_checks(lab) {
            eprintln!("not checked: this kernel takes no checksums in test runs");
            return;
        }
        let seeds = seeds();
        let mut random = Random::new(0xc0ffee);
        let mut rewritten = 0;
        for number in 0..4000 {
            let mut frame = random.pick(&seeds).clone();
            // Some as they are; of the broken ones many pass.
            if number % 4 != 0 {
                mutate(&mut frame, &mut random, 14);
            }
            for hook in Hook::ALL {
                let output = match lab.run(hook, &frame, true) {
                    Ok(output) => output,
                    Err(_) if refused(&frame) => continue,
                    Err(error) => panic!("{hook:?}: {error}: {frame:02x?}"),
                };
                let (verdict, expected) = lab.judge(hook, &frame);
                assert_eq!(output.bytes, expected.bytes);
                let carried = matches!(
                    verdict.outcome(),
                    Outcome::ToPod | Outcome::ToPeer | Outcome::ToOverlay
                );
                rewritten += u32::from(carried && output.bytes != frame.bytes);
            }
            if number % 64 == 63 {
                lab.forget_flows();
            }
        }
        assert!(rewritten > 500, "only {rewritten} packets were rewritten");
    });
}
