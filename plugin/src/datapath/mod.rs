//! datapath

pub mod config;
