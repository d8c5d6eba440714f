//! The bench: what a pod's packet and a pod's ADD cost, beside everything a user would pick instead.

pub mod report;
pub mod types;
