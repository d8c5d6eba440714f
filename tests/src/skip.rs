//! Tests that this kernel cannot run say so, instead of passing in silence.

use std::fs::File;
use std::io::Write as _;
use std::thread;

/// Says that the running test is skipped, and why: on standard error, and as `<test>\t<reason>` in the file that
/// `BEELINE_SKIPS` names. The caller returns.
pub fn skip(reason: &str) {
    eprintln!("skipped: {reason}");
    let Some(path) = std::env::var_os("BEELINE_SKIPS") else {
        return;
    };
    let thread = thread::current();
    let test = thread.name().unwrap_or("unknown");
    let written = File::options()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{test}\t{reason}"));
    written.unwrap_or_else(|error| panic!("BEELINE_SKIPS {}: {error}", path.display()));
}
