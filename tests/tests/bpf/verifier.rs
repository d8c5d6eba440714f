//! The kernel's verifier: it takes every program in every combination of features.

use beeline_common::{
    Features, Hook,
    abi::{MAX_CAPTURED, MIN_FLOWS},
};
use beeline_tests::kernel::note;

use crate::{
    lab::{load_telling, program},
    sandbox::sandboxed,
};

#[test]
fn the_verifier_takes_every_program_in_every_combination_of_features() {
    let (mut count, mut most) = (0, 0);
    for anti_spoof in [false, true] {
        for vni in [0, 7] {
            for monitor in [0, 128, MAX_CAPTURED] {
                let features = Features { anti_spoof, vni };
                // A sandbox each, for what one pins the next would take over.
                sandboxed(|| {
                    let mut object = load_telling(features, MIN_FLOWS, monitor);
                    for hook in Hook::ALL {
                        let program = program(&mut object, hook);
                        let loaded = program.load();
                        let name = hook.name();
                        loaded.unwrap_or_else(|error| {
                            panic!("{name}, {features:?}, monitor {monitor}: {error}")
                        });
                        // Kernels before 5.16 do not tell.
                        let info = program.info().expect("information");
                        most = most.max(info.verified_instruction_count().unwrap_or(0));
                        count += 1;
                    }
                });
            }
        }
    }
    assert_eq!(count, 2 * 2 * 3 * Hook::ALL.len());
    let most = match most {
        0 => "not told".to_owned(),
        most => most.to_string(),
    };
    note(
        "verifier",
        &format!("{count} programs, at most {most} instructions"),
    );
}
