//! The simulated network passes the checks that real ones pass, but those about files, descriptors and threads.

use std::future::Future;
use std::time::Duration;

use inp2p_sim::{SimNet, World};

fn simulated<F: Future<Output = ()> + Send + 'static>(check: impl FnOnce(SimNet) -> F) {
    let world = World::new(1);
    let host = world.host("host");
    let check = check(world.net(host));
    world.block_on(host, Duration::from_secs(600), check);
}

inp2p_driver::net_conformance!(simulated);
