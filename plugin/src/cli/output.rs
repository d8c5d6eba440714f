//! How commands print what they found.

use std::io::{self, Write};

use clap::ValueEnum;
use serde::Serialize;

/// For whom it is printed.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum Output {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl Output {
    /// Prints a value as JSON, or as `text` does.
    pub(super) fn print<V: Serialize, W: Write>(
        self,
        value: &V,
        out: &mut W,
        text: impl FnOnce(&V, &mut W) -> io::Result<()>,
    ) -> io::Result<()> {
        match self {
            Self::Text => text(value, out),
            Self::Json => {
                serde_json::to_writer_pretty(&mut *out, value)?;
                writeln!(out)
            }
        }
    }
}
