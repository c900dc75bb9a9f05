//! What the port's task does for a session: datagrams find their link, and links their datagrams.

use super::*;
use crate::link::udp::{Demux, Held, Route};

/// All that a session has to send by UDP now, one datagram each.
pub(super) fn datagrams(session: &mut Session, now: Instant) -> Vec<(Transmit, Vec<u8>)> {
    session.fill(now);
    let (mut all, mut out) = (Vec::new(), Vec::new());
    while let Some(sent) = session.poll_transmit(now, 10, &mut out) {
        all.extend(out.chunks(sent.segment.unwrap_or(out.len())).map(|bytes| (sent, bytes.to_vec())));
    }
    all
}

/// A datagram comes by a socket from an address.
pub(super) fn deliver(
    session: &mut Session,
    demux: &mut Demux<LinkId>,
    now: Instant,
    (socket, from): (SockId, SocketAddr),
    bytes: &[u8],
) {
    if let Route::Probe(link) | Route::Quic(link) = demux.route(now, socket, from, 0, bytes) {
        session.datagram(now, link, socket, from, 0, bytes);
        session.digest(now);
    }
}

/// A link is to get what is its own, that first which came too early.
pub(super) fn route(session: &mut Session, demux: &mut Demux<LinkId>, now: Instant, route: UdpRoute) {
    demux.add_tag(route.tag, route.link);
    for Held { socket, from, ecn, bytes, .. } in demux.add_link(route.label, route.initial, route.link) {
        session.datagram(now, route.link, socket, from, ecn, &bytes);
    }
    session.digest(now);
}

/// A link is gone.
pub(super) fn unroute(demux: &mut Demux<LinkId>, route: UdpRoute) {
    demux.remove_link(route.label, route.initial);
    demux.remove_tag(route.tag);
}
