//! The small runtime of docs/porting.md passes every check of the kit, and runs the demo.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

#[path = "../examples/small-runtime/runtime.rs"]
mod runtime;

inp2p_driver::runtime_conformance!(runtime::SmallNet, runtime::run);

#[test]
fn the_demo_runs_on_it() {
    runtime::run(1, |net| inp2p_bins::demo::run(net, "small")).unwrap().unwrap();
}
