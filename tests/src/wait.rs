//! Waiting for what takes its time, and saying what was seen last when it took too long.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// How often to look; each look may start a process.
const PAUSE: Duration = Duration::from_millis(200);

/// Names how many times as long as usual anything may take, a whole number; in an emulated machine all does.
pub const PATIENCE: &str = "BEELINE_PATIENCE";

/// How long something may take here that may usually take so long.
pub fn patient(usual: Duration) -> Duration {
    static FACTOR: LazyLock<u32> =
        LazyLock::new(|| factor(std::env::var(PATIENCE).ok().as_deref()));
    usual * *FACTOR
}

/// Until when something may take that may usually take so long.
pub fn deadline(usual: Duration) -> Instant {
    Instant::now() + patient(usual)
}

fn factor(said: Option<&str>) -> u32 {
    said.map_or(1, |said| {
        said.parse()
            .unwrap_or_else(|error| panic!("{PATIENCE}={said}: {error}"))
    })
}

/// Looks until `look` succeeds, whose error says what is seen meanwhile.
pub fn wait_for<T>(what: &str, within: Duration, mut look: impl FnMut() -> Result<T>) -> Result<T> {
    let within = patient(within);
    let start = Instant::now();
    loop {
        let seen = look();
        if seen.is_ok() || start.elapsed() > within {
            return seen.with_context(|| format!("{what}: not within {within:?}; seen last"));
        }
        thread::sleep(PAUSE);
    }
}

/// So many seconds.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;

    #[test]
    fn what_was_seen_last_is_said() {
        let mut looks = 0;
        let error = wait_for("tea", Duration::from_millis(300), || -> Result<()> {
            looks += 1;
            bail!("look {looks}: water")
        });
        let said = format!("{:#}", error.unwrap_err());
        assert!(looks > 1, "{said}");
        assert_eq!(
            said,
            format!(
                "tea: not within {:?}; seen last: look {looks}: water",
                patient(Duration::from_millis(300))
            )
        );
    }

    #[test]
    fn patience_is_a_factor() {
        assert_eq!([factor(None), factor(Some("6"))], [1, 6]);
        assert!(std::panic::catch_unwind(|| factor(Some("long"))).is_err());
    }

    #[test]
    fn it_ends_with_success() {
        let mut looks = 0;
        let seen = wait_for("third look", seconds(10), || {
            looks += 1;
            anyhow::ensure!(looks == 3, "look {looks}");
            Ok(looks)
        });
        assert_eq!(seen.unwrap(), 3);
    }
}
