//! Every step of ADD, DEL and GC is made to fail, is refused by the kernel, or is the plugin's last.
//!
//! After an error the node is as before. After a kill it is so when a DEL, or a GC, has run. The steps are the system
//! calls of the plugin that users run ([`beeline_tests::inject`]).

mod add;
mod cold;
mod del;
mod gc;
mod kills;
mod lab;
mod walk;
