//! Broken copies for what happens to datagrams: a UDP socket that believes in its network.
//!
//! Its datagrams to peers are numbered and have a checksum. As soon as one comes that is damaged, or that has
//! come before, or that was overtaken, it hears no more of peers: a node that cannot cope with that. Which of
//! the three it takes amiss is what the flaw says. STUN stays as it is, because the server is a sound one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use inp2p_driver::net::RecvBatch;

/// What happens to a datagram on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mishap {
    /// A bit was changed.
    Damaged,
    /// It comes a second time.
    Doubled,
    /// A later one has come before it.
    Overtaken,
}

/// The numbers of a socket.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    sent: BTreeMap<SocketAddr, u32>,
    heard: BTreeMap<SocketAddr, BTreeSet<u32>>,
    is_deaf: bool,
}

impl Numbers {
    /// What a datagram is sent as.
    pub(super) fn wrap(&mut self, to: SocketAddr, bytes: &[u8]) -> Vec<u8> {
        if is_stun(bytes) {
            return bytes.to_vec();
        }
        let number = self.sent.entry(to).or_default();
        *number += 1;
        let mut wrapped = [bytes, &number.to_be_bytes()].concat();
        wrapped.extend(checksum(&wrapped).to_be_bytes());
        wrapped
    }

    /// Takes the numbers off what came, and with them what is heard no more; how many buffers are left.
    pub(super) fn unwrap(&mut self, mishap: Mishap, batch: &mut RecvBatch, filled: usize) -> usize {
        let all: Vec<_> = batch.datagrams(filled).map(|(meta, bytes)| (*meta, bytes.to_vec())).collect();
        let (buffers, metas) = batch.fill();
        let mut left = 0;
        for (meta, bytes) in all {
            let Some(bytes) = self.unwrap_one(mishap, meta.from, &bytes) else { continue };
            let (Some(buffer), Some(slot)) = (buffers.get_mut(left), metas.get_mut(left)) else { break };
            buffer[..bytes.len()].copy_from_slice(bytes);
            *slot = meta;
            (slot.len, slot.stride) = (bytes.len(), bytes.len());
            left += 1;
        }
        left
    }

    fn unwrap_one<'a>(&mut self, mishap: Mishap, from: SocketAddr, bytes: &'a [u8]) -> Option<&'a [u8]> {
        if is_stun(bytes) {
            return Some(bytes);
        }
        let (rest, sum) = bytes.split_last_chunk::<4>()?;
        let is_whole = u32::from_be_bytes(*sum) == checksum(rest);
        let (content, number) = rest.split_last_chunk::<4>()?;
        let number = u32::from_be_bytes(*number);
        let heard = self.heard.entry(from).or_default();
        let overtaken = heard.last().is_some_and(|last| *last > number);
        let doubled = is_whole && !heard.insert(number);
        self.is_deaf |= match mishap {
            Mishap::Damaged => !is_whole,
            Mishap::Doubled => doubled,
            Mishap::Overtaken => is_whole && overtaken && !doubled,
        };
        (!self.is_deaf).then_some(content)
    }
}

/// By the first byte, as RFC 7983 tells them apart.
fn is_stun(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first < 4)
}

/// Enough to see a changed bit.
fn checksum(bytes: &[u8]) -> u32 {
    bytes.iter().fold(1, |sum: u32, byte| sum.wrapping_mul(0x0100_0193) ^ u32::from(*byte))
}
