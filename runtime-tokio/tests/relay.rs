//! Relays on tokio and real sockets: the kernel moves the bytes.

use std::future::Future;

use inp2p_driver::testkit::relay;
use inp2p_runtime_tokio::TokioNet;

fn on_tokio<F: Future<Output = ()>>(check: impl FnOnce(TokioNet) -> F) {
    if let Err(error) = inp2p_runtime_tokio::run(2, check) {
        panic!("tokio does not start: {error}");
    }
}

#[test]
fn a_relay_passes_on_what_was_sent_and_how_it_ended() {
    on_tokio(relay::a_relay_passes_on_what_was_sent_and_how_it_ended);
}

#[test]
fn what_is_said_early_comes_first() {
    on_tokio(relay::what_is_said_early_comes_first);
}

#[test]
fn a_reset_is_passed_on_as_an_error() {
    on_tokio(relay::a_reset_is_passed_on_as_an_error);
}

#[test]
fn a_relay_that_refuses_says_why() {
    on_tokio(relay::a_relay_that_refuses_says_why);
}

#[test]
fn who_comes_again_takes_its_own_place() {
    on_tokio(relay::who_comes_again_takes_its_own_place);
}

#[test]
fn a_check_tells_whether_the_relay_is_there() {
    on_tokio(relay::a_check_tells_whether_the_relay_is_there);
}
