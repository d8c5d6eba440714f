//! The tc programs.
fn main() {}
