//! Names of interfaces.

use std::collections::HashMap;

use nix::net::if_::if_indextoname;

/// Names by index. What is known of an interface that is gone is kept: its last packets are yet to be shown.
#[derive(Debug, Default)]
pub(super) struct Interfaces(HashMap<u32, String>);

impl Interfaces {
    /// The interface's name, or its index if it has none any more.
    pub(super) fn name(&mut self, index: u32) -> &str {
        self.0
            .entry(index)
            .or_insert_with(|| look_up(index).unwrap_or_else(|| index.to_string()))
    }

    /// Looks again which names interfaces have.
    pub(super) fn refresh(&mut self) {
        for (index, name) in &mut self.0 {
            if let Some(current) = look_up(*index) {
                *name = current;
            }
        }
    }
}

fn look_up(index: u32) -> Option<String> {
    let name = if_indextoname(index).ok()?.into_string().ok()?;
    // What glibc makes of an index that is none.
    (!name.is_empty()).then_some(name)
}
