//! What each pair of NATs makes possible, and what has to be made of it.
//!
//! [`UDP`] and [`TCP`] say what is possible in theory: what a pair has to reach is the best rung of that.

use std::time::Duration;

use inp2p_core::path::Rung;

use crate::kind::Kind;

/// Over UDP. `D` direct, `P` punched, `G` punched by guessing ports, `-` impossible; better than demanded is always
/// right. Rows and columns are in the order of [`Kind::ALL`]; what is left of the diagonal is mirrored.
const UDP: [&str; 11] = [
    // public, full-cone, address-restricted, port-restricted, bare, symmetric, sequential, double, lossy,
    // udp-blocked, only-443
    "D D D D D D D D D - -",
    "  P P P P P P P P - -",
    "    P P P P P P P - -",
    "      P P G P P P - -",
    "        P G P P P - -",
    "          - - G G - -",
    "            P P P - -",
    "              P P - -",
    "                P - -",
    "                  - -",
    "                    -",
];

/// The same over TCP, where nothing is guessed.
const TCP: [&str; 11] = [
    "D D D D D D D D D D -",
    "  P P P P P P P P P -",
    "    P P P P P P P P -",
    "      P P - P P P P -",
    "        P - P P P P -",
    "          - - - - - -",
    "            P P P P -",
    "              P P P -",
    "                P P -",
    "                  P -",
    "                    -",
];

/// What a pair has to come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Expected {
    /// The rung that its link has to reach; none if there is to be none.
    pub(crate) rung: Option<Rung>,
    /// How long that may take.
    pub(crate) within: Duration,
}

/// What a pair has to come to.
pub(crate) fn expected(a: Kind, b: Kind) -> Expected {
    let (udp, tcp) = (cell(&UDP, a, b), cell(&TCP, a, b));
    let possible = |rung: &Rung| match rung {
        Rung::UdpDirect => udp == 'D',
        Rung::UdpPunch => matches!(udp, 'P' | 'G'),
        Rung::TcpDirect => tcp == 'D',
        Rung::TcpPunch => tcp == 'P',
        // Everybody reaches the server, and these pairs have no other relay.
        Rung::ServerRelay => true,
        Rung::PrivateRelay | Rung::SuperRelay => false,
    };
    let rung = Rung::ALL.into_iter().find(possible);
    let guesses = rung == Some(Rung::UdpPunch) && udp == 'G';
    Expected { rung, within: if guesses { GUESSING } else { QUICK } }
}

fn cell(matrix: &[&str; 11], a: Kind, b: Kind) -> char {
    let place = |kind: Kind| Kind::ALL.iter().position(|other| *other == kind);
    let (Some(a), Some(b)) = (place(a), place(b)) else { return '-' };
    let (row, column) = (a.min(b), a.max(b));
    matrix[row].chars().nth(2 * column).unwrap_or('-')
}

/// What a pair that has to guess ports is given.
const GUESSING: Duration = Duration::from_secs(60);
/// For what takes a second on an idle machine; failing pairs wait it out, others do not.
const QUICK: Duration = Duration::from_secs(30);
