//! How a path is found, kept and moved.

use super::*;
use crate::ids::AttemptId;

const PUNCH: [u8; 32] = [9; 32];
const ATTEMPT: AttemptId = AttemptId([1; 16]);

#[expect(clippy::disallowed_methods, reason = "a test needs some instant to begin with")]
fn start() -> Instant {
    Instant::now()
}

fn paths(role: Role) -> Paths {
    let tag = ProbeTag::new(ATTEMPT, &PUNCH);
    Paths::new(role, tag, ProbeKey::of_attempt(ATTEMPT, &PUNCH), Rng::new([role as u8; 32]))
}

fn at(port: u16) -> UdpPath {
    UdpPath::new(SockId(0), SocketAddr::from(([192, 0, 2, 9], port)))
}

fn flights(paths: &mut Paths) -> Vec<(u16, Vec<u8>)> {
    let mut all = Vec::new();
    let mut out = Vec::new();
    while let Some(path) = paths.poll_flight(&mut out) {
        all.push((path.remote.port(), std::mem::take(&mut out)));
    }
    all
}

fn probes(paths: &mut Paths) -> Vec<(UdpPath, Vec<u8>)> {
    let mut all = Vec::new();
    let mut out = Vec::new();
    while let Some(path) = paths.poll_probe(&mut out) {
        all.push((path, std::mem::take(&mut out)));
    }
    all
}

#[test]
fn mapped_addresses_are_the_ipv4_addresses_that_they_are() {
    let mapped = "[::ffff:192.0.2.9]:5".parse().unwrap();
    assert_eq!(UdpPath::new(SockId(0), mapped), at(5));
}

#[test]
fn the_first_flight_reaches_every_candidate_even_late_ones() {
    let mut paths = paths(Role::Controlling);
    assert!(!paths.wants_flight());
    paths.add_candidate(at(1), None);
    paths.add_candidate(at(1), None);
    paths.add_candidate(at(2), Some(1));
    let now = start();
    paths.fan_out(now, b"one");
    paths.fan_out(now, b"two");
    paths.add_candidate(at(3), None);
    let one = b"one".to_vec();
    let two = b"two".to_vec();
    let want = [(1, one.clone()), (2, one.clone()), (1, two.clone()), (3, one), (3, two)];
    assert_eq!(flights(&mut paths), want);
    paths.fan_out(now + Duration::from_secs(1), b"again");
    paths.remove_candidate(at(1));
    assert_eq!(flights(&mut paths), [(3, b"again".to_vec())]);
}

#[test]
fn candidates_are_capped_whoever_names_them() {
    let mut paths = paths(Role::Controlling);
    for port in 1..100 {
        paths.add_candidate(at(port), None);
    }
    for _ in 0..10 {
        paths.fan_out(start(), b"datagram");
    }
    assert_eq!(flights(&mut paths).len(), MAX_QUEUE);
}

#[test]
fn the_first_authentic_source_is_the_path_and_ends_the_search() {
    let mut paths = paths(Role::Controlling);
    paths.add_candidate(at(1), None);
    paths.fan_out(start(), b"datagram");
    paths.heard(start(), at(2), false);
    assert_eq!(paths.current(), None);
    paths.heard(start(), at(1), true);
    assert_eq!(paths.current(), Some(at(1)));
    assert!(flights(&mut paths).is_empty() && !paths.wants_flight());
}

#[test]
fn another_source_earns_one_request_a_second_and_only_its_answer_moves_the_path() {
    let now = start();
    let (mut ours, mut theirs) = (paths(Role::Controlling), paths(Role::Controlled));
    ours.heard(now, at(1), true);
    theirs.heard(now, at(7), true);
    for port in 2..50 {
        ours.heard(now, at(port), true);
    }
    let asked = probes(&mut ours);
    assert_eq!(asked.iter().map(|(to, _)| *to).collect::<Vec<_>>(), [at(2)]);
    assert_eq!(ours.current(), Some(at(1)));
    ours.heard(now, at(3), false);
    ours.heard(now + EARN_SPAN, at(3), false);
    assert!(probes(&mut ours).is_empty(), "what is not authentic earns nothing");

    assert_eq!(theirs.probe(now, at(7), &asked[0].1), Heard::Peer);
    let answers = probes(&mut theirs);
    assert_eq!(answers[0].0, at(7));
    assert_eq!(ours.probe(now, at(3), &answers[0].1), Heard::Nothing, "an answer from elsewhere");
    assert_eq!(ours.probe(now, at(2), &answers[0].1), Heard::Moved);
    assert_eq!(ours.current(), Some(at(2)));
    assert_eq!(ours.probe(now, at(2), &answers[0].1), Heard::Nothing, "an answer counts once");
}

#[test]
fn a_late_answer_and_one_under_the_old_key_move_nothing() {
    let now = start();
    let (mut ours, mut theirs) = (paths(Role::Controlling), paths(Role::Controlled));
    ours.heard(now, at(1), true);
    ours.ask(now, at(2));
    theirs.probe(now, at(7), &probes(&mut ours)[0].1);
    let answer = probes(&mut theirs).remove(0).1;
    assert_eq!(ours.probe(now + ANSWER_PATIENCE, at(2), &answer), Heard::Nothing);
    ours.rekey(ProbeKey::of_link([3; 32]));
    ours.ask(now, at(2));
    assert_eq!(theirs.probe(now, at(7), &probes(&mut ours)[0].1), Heard::Nothing);
    assert_eq!(ours.probe(now, at(2), &answer), Heard::Nothing);
    assert_eq!(ours.current(), Some(at(1)));
}

#[test]
fn answers_are_few_and_as_long_as_their_requests() {
    let now = start();
    let (mut ours, mut theirs) = (paths(Role::Controlling), paths(Role::Controlled));
    theirs.heard(now, at(7), true);
    ours.heard(now, at(1), true);
    for _ in 0..100 {
        ours.ask(now, at(1));
        for (_, request) in probes(&mut ours) {
            theirs.probe(now, at(7), &request);
        }
    }
    let answers = probes(&mut theirs);
    assert_eq!(answers.len(), MAX_ANSWERS as usize);
    assert!(answers.iter().all(|(_, bytes)| bytes.len() == probe::LENGTH));
    assert!(ours.asked.len() <= MAX_ASKED);
}

#[test]
fn a_silence_after_a_burst_is_probed_a_few_times_and_an_idle_link_is_not() {
    let mut now = start();
    let mut paths = paths(Role::Controlling);
    for _ in 0..BURST - 1 {
        paths.heard(now, at(1), true);
    }
    assert_eq!(paths.deadline(), None);
    paths.heard(now, at(1), true);
    let mut asked = 0;
    while let Some((deadline, _)) = paths.deadline() {
        assert!(deadline > now);
        now = deadline;
        paths.tick(now);
        asked += probes(&mut paths).len();
    }
    assert_eq!(asked, MAX_TRIES as usize);
    assert!(now - start() <= LULL * 7 + Duration::from_secs(1));
    for _ in 0..100 {
        now += Duration::from_secs(1);
        paths.heard(now, at(1), true);
    }
    assert_eq!(paths.deadline(), None);
}

#[test]
fn a_socket_is_replaced_everywhere() {
    let mut paths = paths(Role::Controlling);
    paths.add_candidate(at(1), None);
    paths.fan_out(start(), b"datagram");
    paths.replace_socket(SockId(0), SockId(5));
    let mut out = Vec::new();
    assert_eq!(paths.poll_flight(&mut out).map(|path| path.socket), Some(SockId(5)));
    paths.heard(start(), at(1), true);
    paths.replace_socket(SockId(0), SockId(6));
    assert_eq!(paths.current().map(|path| path.socket), Some(SockId(6)));
}
