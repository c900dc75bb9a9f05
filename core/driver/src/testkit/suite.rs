//! The lists of all checks, as macros that make a test of each: a check that is added here is a test of every
//! network and every runtime from then on.

/// Makes a test of each check that any [`crate::net::Net`] passes. The argument is a function that runs one check
/// on a network of its own: `fn on<F: Future<Output = ()>>(check: impl FnOnce(YourNet) -> F)`. A runtime wants
/// [`crate::runtime_conformance`].
#[macro_export]
macro_rules! net_conformance {
    ($on:path) => {
        $crate::conformance_tests! { ($on)
            streams: bytes_come_back_in_order half_close_passes_both_ways dropping_a_stream_ends_it
                abort_resets_the_peer a_refused_connection_is_an_error
                a_connection_leaves_from_the_chosen_port both_ends_agree_on_their_addresses
                a_blocked_writer_goes_on_when_there_is_room a_read_given_up_loses_nothing
                sniffed_bytes_are_read_again;
            cancel: a_connection_given_up_is_gone an_accept_given_up_loses_no_connection
                a_write_given_up_sends_what_it_said a_datagram_waits_for_the_next_receiver
                a_task_given_up_frees_its_port;
            listeners: a_port_in_use_is_refused all_addresses_are_of_both_families
                every_waiting_connection_is_accepted a_port_can_be_listened_on_again names_resolve
                interfaces_include_loopback;
            load: no_wake_up_is_lost a_socket_can_move_between_tasks two_thousand_sockets_are_open_at_once
                connections_come_and_go an_idle_socket_does_not_wake_its_task a_busy_task_starves_nobody;
            timers: timers_ring_in_order the_past_is_ready_and_none_never a_timer_can_be_set_anew
                the_latest_waker_is_woken a_dropped_timer_leaves_the_others_alone waiting_does_not_poll;
            udp: a_datagram_carries_its_addresses batches_hold_every_datagram
                one_send_carries_several_segments a_socket_on_all_addresses_speaks_both_families
                congestion_bits_pass a_udp_port_in_use_is_refused a_hundred_blocked_senders_are_all_woken;
            relay: a_relay_passes_on_what_was_sent_and_how_it_ended what_is_said_early_comes_first
                a_reset_is_passed_on_as_an_error a_relay_that_refuses_says_why
                who_comes_again_takes_its_own_place a_check_tells_whether_the_relay_is_there;
        }

        #[cfg(target_os = "linux")]
        $crate::conformance_tests! { ($on)
            streams: both_ends_may_open_at_once;
            udp: an_answer_leaves_from_the_address_that_was_asked;
        }
    };
}

/// Makes a test of each check that a runtime passes: those of its network, those about this machine, and those
/// about its beginning and end. The arguments are the type of the network and the function that starts the
/// runtime: `fn run<F: Future>(workers: usize, main: impl FnOnce(YourNet) -> F) -> io::Result<F::Output>`. To be
/// called once, in a test file of its own.
#[macro_export]
macro_rules! runtime_conformance {
    ($net:ty, $run:path) => {
        struct ThisRuntime;

        impl $crate::testkit::runtime::Start for ThisRuntime {
            type Net = $net;

            fn start<F: ::std::future::Future>(
                workers: usize,
                main: impl FnOnce($net) -> F,
            ) -> ::std::io::Result<F::Output> {
                $run(workers, main)
            }
        }

        /// Two workers, so that tasks really run at the same time.
        fn on_this_runtime<F: ::std::future::Future<Output = ()>>(check: impl FnOnce($net) -> F) {
            if let Err(error) = $run(2, check) {
                panic!("the runtime does not start: {error}");
            }
        }

        $crate::net_conformance!(on_this_runtime);

        $crate::conformance_tests! { (on_this_runtime)
            local: a_local_socket_serves_and_goes a_stale_socket_file_is_replaced a_used_path_is_refused
                another_listeners_file_stays;
        }

        $crate::conformance_tests! { alone
            descriptors: exhausted_descriptors_are_reported_and_pass;
            idle: waiting_takes_no_processor_time;
        }

        $crate::conformance_tests! { whole
            runtime: tasks_left_behind_are_dropped a_panic_ends_its_own_task_only
                a_panic_of_main_drops_the_tasks_too the_network_can_be_used_from_any_thread
                a_task_spawned_at_the_end_is_dropped ends_leave_nothing_open;
        }
    };
}

/// The tests behind [`net_conformance`] and [`runtime_conformance`].
#[doc(hidden)]
#[macro_export]
macro_rules! conformance_tests {
    (($on:path) $($kit:ident: $($check:ident)*;)*) => {
        $($(
            #[test]
            fn $check() {
                $on($crate::testkit::$kit::$check);
            }
        )*)*
    };
    (alone $($kit:ident: $($check:ident)*;)*) => {
        $($(
            #[test]
            fn $check() {
                $crate::testkit::runtime::alone(concat!(module_path!(), "::", stringify!($check)), || {
                    on_this_runtime($crate::testkit::$kit::$check);
                });
            }
        )*)*
    };
    (whole $($kit:ident: $($check:ident)*;)*) => {
        $($(
            #[test]
            fn $check() {
                $crate::testkit::runtime::alone(
                    concat!(module_path!(), "::", stringify!($check)),
                    $crate::testkit::$kit::$check::<ThisRuntime>,
                );
            }
        )*)*
    };
}
