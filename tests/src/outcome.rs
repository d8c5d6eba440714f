//! What came of executing a plugin, to be expected or refused.

use std::process::ExitStatus;
use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

/// What came of executing a plugin.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Which verb and plugin, for messages.
    pub what: String,
    /// How the process ended.
    pub status: ExitStatus,
    /// The document on standard output; null if there was none.
    pub stdout: Value,
    /// Whatever was on standard error.
    pub stderr: String,
    /// From start to end of the process.
    pub elapsed: Duration,
}

impl Outcome {
    /// Whether the plugin reported success.
    pub fn is_success(&self) -> bool {
        self.status.success()
    }

    /// Returns the result; panics unless the plugin reported success.
    #[track_caller]
    pub fn expect_success(self) -> Value {
        assert!(self.is_success(), "{self}");
        self.stdout
    }

    /// Returns the error's message and details; panics unless the plugin failed with one of these codes.
    #[track_caller]
    pub fn expect_error(self, codes: &[u64]) -> String {
        assert!(
            !self.is_success(),
            "succeeded where code {codes:?} was expected: {self}"
        );
        let code = self.stdout["code"].as_u64();
        assert!(
            code.is_some_and(|code| codes.contains(&code)),
            "code {codes:?} was expected: {self}"
        );
        let text = |key: &str| self.stdout[key].as_str().unwrap_or_default().to_owned();
        assert!(
            !text("msg").is_empty(),
            "an error without a message: {self}"
        );
        format!("{}: {}", text("msg"), text("details"))
    }

    /// Returns itself if the plugin reported success.
    pub fn success(self) -> Result<Self> {
        anyhow::ensure!(self.is_success(), "{self}");
        Ok(self)
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}; stdout {}", self.what, self.status, self.stdout)?;
        if self.stderr.is_empty() {
            Ok(())
        } else {
            write!(f, "; stderr: {}", self.stderr.trim_end())
        }
    }
}
