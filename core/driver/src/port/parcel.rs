//! What the port's task hands to a session at a time: all the datagrams of one batch that are the session's, in
//! one buffer that goes back and forth between the two.

use std::net::SocketAddr;

use inp2p_core::ids::SockId;
use inp2p_core::session::LinkId;

/// Datagrams for one session.
#[derive(Debug, Default)]
pub(crate) struct Parcel {
    bytes: Vec<u8>,
    heads: Vec<Head>,
}

/// What is known of a datagram.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Head {
    /// The session's link that it is for.
    pub(crate) link: LinkId,
    /// The socket that it came by.
    pub(crate) socket: SockId,
    /// Where it came from.
    pub(crate) from: SocketAddr,
    /// Its two ECN bits.
    pub(crate) ecn: u8,
    len: usize,
}

impl Head {
    pub(crate) fn new(link: LinkId, socket: SockId, from: SocketAddr, ecn: u8) -> Self {
        Self { link, socket, from, ecn, len: 0 }
    }
}

impl Parcel {
    /// Makes room for so many bytes at once: growing in steps would copy them again and again.
    pub(crate) fn reserve(&mut self, bytes: usize) {
        self.bytes.reserve(bytes);
    }

    /// Adds a datagram.
    pub(crate) fn push(&mut self, head: Head, datagram: &[u8]) {
        self.bytes.extend_from_slice(datagram);
        self.heads.push(Head { len: datagram.len(), ..head });
    }

    /// How many datagrams it holds.
    pub(crate) fn len(&self) -> usize {
        self.heads.len()
    }

    /// The datagrams, in the order of their arrival.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = (&Head, &[u8])> {
        let mut rest = self.bytes.as_slice();
        self.heads.iter().map(move |head| {
            let (datagram, after) = rest.split_at_checked(head.len).unwrap_or_default();
            rest = after;
            (head, datagram)
        })
    }

    /// Makes it empty, to be used again.
    pub(crate) fn clear(&mut self) {
        self.bytes.clear();
        self.heads.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_come_out_as_they_went_in_and_room_is_kept() {
        let head = |port| Head::new(LinkId(1), SockId(2), ([192, 0, 2, 1], port).into(), 1);
        let mut parcel = Parcel::default();
        for round in 0..3 {
            parcel.push(head(1), &[round; 1200]);
            parcel.push(head(2), b"");
            parcel.push(head(3), &[9; 7]);
            let out: Vec<_> =
                parcel.datagrams().map(|(head, bytes)| (head.from.port(), bytes.to_vec())).collect();
            assert_eq!(out, [(1, vec![round; 1200]), (2, vec![]), (3, vec![9; 7])]);
            assert_eq!(parcel.len(), 3);
            let room = parcel.bytes.capacity();
            parcel.clear();
            assert_eq!((parcel.len(), parcel.bytes.capacity()), (0, room));
        }
    }
}
