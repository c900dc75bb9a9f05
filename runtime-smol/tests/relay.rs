//! Relays on smol and real sockets: the kernel moves the bytes.

use std::future::Future;

use inp2p_driver::testkit::relay;
use inp2p_runtime_smol::SmolNet;

fn on_smol<F: Future<Output = ()>>(check: impl FnOnce(SmolNet) -> F) {
    if let Err(error) = inp2p_runtime_smol::run(2, check) {
        panic!("smol does not start: {error}");
    }
}

#[test]
fn a_relay_passes_on_what_was_sent_and_how_it_ended() {
    on_smol(relay::a_relay_passes_on_what_was_sent_and_how_it_ended);
}

#[test]
fn what_is_said_early_comes_first() {
    on_smol(relay::what_is_said_early_comes_first);
}

#[test]
fn a_reset_is_passed_on_as_an_error() {
    on_smol(relay::a_reset_is_passed_on_as_an_error);
}

#[test]
fn a_relay_that_refuses_says_why() {
    on_smol(relay::a_relay_that_refuses_says_why);
}

#[test]
fn who_comes_again_takes_its_own_place() {
    on_smol(relay::who_comes_again_takes_its_own_place);
}

#[test]
fn a_check_tells_whether_the_relay_is_there() {
    on_smol(relay::a_check_tells_whether_the_relay_is_there);
}
