//! How long to wait before the next attempt, so that many nodes do not come at once.

use std::{
    hash::{BuildHasher as _, Hasher as _, RandomState},
    time::Duration,
};

const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(30);

/// The pause after so many failed rounds, the first being 1: it doubles up to a limit.
pub(super) fn pause(round: u32) -> Duration {
    let factor = 2_u32.saturating_pow(round.saturating_sub(1));
    jittered(FIRST.saturating_mul(factor).min(LONGEST))
}

/// Something between half of a duration and all of it.
pub(super) fn jittered(longest: Duration) -> Duration {
    // Seeded by the system for each; good enough to spread nodes.
    let random = RandomState::new().build_hasher().finish() % 1000;
    let thousandths = 500 + u32::try_from(random / 2).unwrap_or(0);
    longest * thousandths / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_limit_and_never_vanish() {
        for (round, longest) in [
            (1, FIRST),
            (2, FIRST * 2),
            (4, FIRST * 8),
            (9, LONGEST),
            (u32::MAX, LONGEST),
        ] {
            let pause = pause(round);
            assert!(
                pause <= longest && pause >= longest / 2,
                "{round}: {pause:?}"
            );
        }
    }

    #[test]
    fn two_nodes_do_not_wait_equally_long() {
        let pauses: std::collections::BTreeSet<_> = (0..20).map(|_| jittered(LONGEST)).collect();
        assert!(pauses.len() > 5, "{pauses:?}");
    }
}
