//! The simulated network passes the checks that real ones pass, but those about files and descriptors.

use std::future::Future;
use std::time::Duration;

use inp2p_driver::testkit::{listeners, load, streams, timers, udp};
use inp2p_sim::{SimNet, World};

fn simulated<F: Future<Output = ()> + Send + 'static>(check: impl FnOnce(SimNet) -> F) {
    let world = World::new(1);
    let host = world.host("host");
    let check = check(world.net(host));
    world.block_on(host, Duration::from_secs(600), check);
}

macro_rules! checks {
    ($($kit:ident: $($check:ident)*;)*) => {
        $($(
            #[test]
            fn $check() {
                simulated($kit::$check);
            }
        )*)*
    };
}

checks! {
    streams: bytes_come_back_in_order half_close_passes_both_ways dropping_a_stream_ends_it
        abort_resets_the_peer a_refused_connection_is_an_error a_connection_leaves_from_the_chosen_port
        both_ends_agree_on_their_addresses a_blocked_writer_goes_on_when_there_is_room
        a_read_given_up_loses_nothing sniffed_bytes_are_read_again;
    udp: a_datagram_carries_its_addresses batches_hold_every_datagram one_send_carries_several_segments
        a_socket_on_all_addresses_speaks_both_families an_answer_leaves_from_the_address_that_was_asked
        congestion_bits_pass a_udp_port_in_use_is_refused a_hundred_blocked_senders_are_all_woken;
    listeners: a_port_in_use_is_refused all_addresses_are_of_both_families
        every_waiting_connection_is_accepted a_port_can_be_listened_on_again names_resolve
        interfaces_include_loopback;
    load: no_wake_up_is_lost a_socket_can_move_between_tasks two_thousand_sockets_are_open_at_once
        connections_come_and_go an_idle_socket_does_not_wake_its_task a_busy_task_starves_nobody;
    timers: timers_ring_in_order the_past_is_ready_and_none_never a_timer_can_be_set_anew
        the_latest_waker_is_woken a_dropped_timer_leaves_the_others_alone waiting_does_not_poll;
}
