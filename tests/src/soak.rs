//! How long the tests named `soak_…` take: short with all others, long with `cargo xtask test --soak`.

/// Is set where they are to take long.
pub const VARIABLE: &str = "BEELINE_SOAK";

/// Whether they are to take long.
pub fn is_on() -> bool {
    std::env::var_os(VARIABLE).is_some()
}

/// How much to do of something: `short` with all other tests, `long` in a soak.
pub fn scale<T>(short: T, long: T) -> T {
    if is_on() { long } else { short }
}
