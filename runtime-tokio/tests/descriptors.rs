//! tokio and running out of descriptors: a process of its own, because the limit is the process's.

#[test]
fn exhausted_descriptors_are_reported_and_pass() {
    inp2p_runtime_tokio::run(
        2,
        inp2p_driver::testkit::descriptors::exhausted_descriptors_are_reported_and_pass,
    )
    .unwrap();
}
