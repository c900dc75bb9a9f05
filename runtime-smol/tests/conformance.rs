//! smol passes every check of the kit.

use std::future::Future;

use inp2p_driver::testkit::{listeners, load, local, streams, timers, udp};
use inp2p_runtime_smol::SmolNet;

/// Two workers, so that tasks really run at the same time.
fn on_smol<F: Future<Output = ()>>(check: impl FnOnce(SmolNet) -> F) {
    if let Err(error) = inp2p_runtime_smol::run(2, check) {
        panic!("smol does not start: {error}");
    }
}

#[test]
fn bytes_come_back_in_order() {
    on_smol(streams::bytes_come_back_in_order);
}

#[test]
fn half_close_passes_both_ways() {
    on_smol(streams::half_close_passes_both_ways);
}

#[test]
fn dropping_a_stream_ends_it() {
    on_smol(streams::dropping_a_stream_ends_it);
}

#[test]
fn abort_resets_the_peer() {
    on_smol(streams::abort_resets_the_peer);
}

#[test]
fn a_refused_connection_is_an_error() {
    on_smol(streams::a_refused_connection_is_an_error);
}

#[test]
fn a_connection_leaves_from_the_chosen_port() {
    on_smol(streams::a_connection_leaves_from_the_chosen_port);
}

#[test]
fn both_ends_agree_on_their_addresses() {
    on_smol(streams::both_ends_agree_on_their_addresses);
}

#[test]
fn a_blocked_writer_goes_on_when_there_is_room() {
    on_smol(streams::a_blocked_writer_goes_on_when_there_is_room);
}

#[test]
fn a_read_given_up_loses_nothing() {
    on_smol(streams::a_read_given_up_loses_nothing);
}

#[test]
fn sniffed_bytes_are_read_again() {
    on_smol(streams::sniffed_bytes_are_read_again);
}

#[test]
fn a_port_in_use_is_refused() {
    on_smol(listeners::a_port_in_use_is_refused);
}

#[test]
fn all_addresses_are_of_both_families() {
    on_smol(listeners::all_addresses_are_of_both_families);
}

#[test]
fn every_waiting_connection_is_accepted() {
    on_smol(listeners::every_waiting_connection_is_accepted);
}

#[test]
fn a_port_can_be_listened_on_again() {
    on_smol(listeners::a_port_can_be_listened_on_again);
}

#[test]
fn names_resolve() {
    on_smol(listeners::names_resolve);
}

#[test]
fn interfaces_include_loopback() {
    on_smol(listeners::interfaces_include_loopback);
}

#[test]
fn no_wake_up_is_lost() {
    on_smol(load::no_wake_up_is_lost);
}

#[test]
fn a_socket_can_move_between_tasks() {
    on_smol(load::a_socket_can_move_between_tasks);
}

#[test]
fn two_thousand_sockets_are_open_at_once() {
    on_smol(load::two_thousand_sockets_are_open_at_once);
}

#[test]
fn connections_come_and_go() {
    on_smol(load::connections_come_and_go);
}

#[test]
fn an_idle_socket_does_not_wake_its_task() {
    on_smol(load::an_idle_socket_does_not_wake_its_task);
}

#[test]
fn a_busy_task_starves_nobody() {
    on_smol(load::a_busy_task_starves_nobody);
}

#[test]
fn a_local_socket_serves_and_goes() {
    on_smol(local::a_local_socket_serves_and_goes);
}

#[test]
fn a_stale_socket_file_is_replaced() {
    on_smol(local::a_stale_socket_file_is_replaced);
}

#[test]
fn a_used_path_is_refused() {
    on_smol(local::a_used_path_is_refused);
}

#[test]
fn another_listeners_file_stays() {
    on_smol(local::another_listeners_file_stays);
}

#[test]
fn timers_ring_in_order() {
    on_smol(timers::timers_ring_in_order);
}

#[test]
fn the_past_is_ready_and_none_never() {
    on_smol(timers::the_past_is_ready_and_none_never);
}

#[test]
fn a_timer_can_be_set_anew() {
    on_smol(timers::a_timer_can_be_set_anew);
}

#[test]
fn the_latest_waker_is_woken() {
    on_smol(timers::the_latest_waker_is_woken);
}

#[test]
fn a_dropped_timer_leaves_the_others_alone() {
    on_smol(timers::a_dropped_timer_leaves_the_others_alone);
}

#[test]
fn waiting_does_not_poll() {
    on_smol(timers::waiting_does_not_poll);
}

#[test]
fn a_datagram_carries_its_addresses() {
    on_smol(udp::a_datagram_carries_its_addresses);
}

#[test]
fn batches_hold_every_datagram() {
    on_smol(udp::batches_hold_every_datagram);
}

#[test]
fn one_send_carries_several_segments() {
    on_smol(udp::one_send_carries_several_segments);
}

#[test]
fn a_socket_on_all_addresses_speaks_both_families() {
    on_smol(udp::a_socket_on_all_addresses_speaks_both_families);
}

#[cfg(target_os = "linux")]
#[test]
fn an_answer_leaves_from_the_address_that_was_asked() {
    on_smol(udp::an_answer_leaves_from_the_address_that_was_asked);
}

#[test]
fn congestion_bits_pass() {
    on_smol(udp::congestion_bits_pass);
}

#[test]
fn a_udp_port_in_use_is_refused() {
    on_smol(udp::a_udp_port_in_use_is_refused);
}

#[test]
fn a_hundred_blocked_senders_are_all_woken() {
    on_smol(udp::a_hundred_blocked_senders_are_all_woken);
}
