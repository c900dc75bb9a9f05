//! Links over TCP as the driver sees them: connections made or accepted, bytes in, bytes out.

use std::net::SocketAddr;
use std::time::Instant;

use super::carrier::{Carrier, Slot, Stage, Tcp};
use super::lane::Lane;
use super::{Ending, LinkId, MAX_LINKS, Session};
use crate::link::{LinkError, Preface, TcpLink};
use crate::mux::{self, Decoder};
use crate::path::Transport;
use crate::relay::DialError;

impl Session {
    /// A dial succeeded.
    pub fn connected(&mut self, now: Instant, link: LinkId) {
        if let Err(error) = self.open(now, link) {
            self.end(now, link, &error.to_string());
        }
    }

    /// A connection came in that opens with the preface of one of this session's attempts. None turns it away.
    pub fn accepted(&mut self, now: Instant, preface: &Preface, remote: SocketAddr) -> Option<LinkId> {
        let run = self.runs.iter().find(|run| run.id() == preface.attempt)?;
        if self.links.len() >= MAX_LINKS || !preface.proves(&run.attempt.punch_key, self.role.other()) {
            return None;
        }
        let direct = run.attempt.is_host(Transport::Tcp, remote);
        let link = self.add_slot(now, preface.attempt, Some(remote), Carrier::Dialled);
        let opened = self.open(now, link).and_then(|()| match self.slot_mut(link) {
            Some(Slot { carrier: Carrier::Tcp(tcp), direct: seen, .. }) => {
                *seen = direct;
                tcp.link.preface(preface)
            }
            Some(_) | None => Ok(()),
        });
        if opened.is_err() {
            self.links.retain(|slot| slot.id != link);
            return None;
        }
        Some(link)
    }

    /// Takes bytes that came over a link; how many of them are done with. The rest, which is less than a
    /// record, must be offered again with more behind it.
    pub fn receive(&mut self, now: Instant, link: LinkId, input: &mut [u8]) -> usize {
        match self.at_the_door(now, link, input) {
            Ok((used, false)) => used,
            Ok((used, true)) => {
                let rest = input.get_mut(used..).unwrap_or_default();
                used + self.receive_from_peer(now, link, rest)
            }
            Err(error) => {
                self.turned_away(now, link, &error);
                input.len()
            }
        }
    }

    /// Appends what is to be written to a link's connection, until `out` holds `limit` bytes or more.
    pub fn transmit(&mut self, now: Instant, link: LinkId, out: &mut Vec<u8>, limit: usize) {
        let Self { links, nomination, record, .. } = self;
        let slot = links.iter_mut().find(|slot| slot.id == link);
        let Some(Slot { carrier: Carrier::Tcp(tcp), .. }) = slot else { return };
        let Tcp { link: tls, lane, early, .. } = &mut **tcp;
        out.append(early);
        if !tls.is_up() {
            return;
        }
        let mut error = None;
        while out.len() < limit {
            let mut n = lane.fill(now, &mut record[..]);
            // Never ahead of what this link itself has yet to say: the peer takes no frame of a stream before
            // it has the whole of this side's RESUME.
            let room = record.len() - n >= mux::MIN_TRANSMIT && !lane.wants_transmit();
            if nomination.carries(link) && room {
                let streams = nomination.mux.transmit(now, &mut record[n..]);
                if streams > 0 {
                    lane.sent_data(now);
                }
                n += streams;
            }
            if n == 0 {
                break;
            }
            if let Err(failed) = tls.seal(&record[..n], out) {
                error = Some(failed);
                break;
            }
        }
        if let Some(error) = error {
            self.end(now, link, &error.to_string());
        }
    }

    /// Takes what a relay says on a connection to one: how much of `input` that was, and whether the rest is the
    /// peer's.
    fn at_the_door(&mut self, now: Instant, link: LinkId, input: &[u8]) -> Result<(usize, bool), DialError> {
        let Some(slot) = self.links.iter_mut().find(|slot| slot.id == link) else { return Ok((0, true)) };
        let Carrier::Tcp(tcp) = &mut slot.carrier else { return Ok((0, true)) };
        let Some(door) = &mut tcp.door else { return Ok((0, true)) };
        let (used, through) = door.receive(now, input, &mut tcp.early)?;
        if through {
            tcp.door = None;
        }
        if used > 0 {
            self.entered(now, link);
        }
        Ok((used, through))
    }

    fn receive_from_peer(&mut self, now: Instant, link: LinkId, input: &mut [u8]) -> usize {
        let Self { links, nomination, .. } = self;
        let slot = links.iter_mut().find(|slot| slot.id == link);
        let Some(Slot { carrier: Carrier::Tcp(tcp), stage, direct, doubted, .. }) = slot else {
            return input.len();
        };
        *doubted = false;
        let Tcp { link: tls, decoder, lane, early, .. } = &mut **tcp;
        let mut ending = None;
        let received = tls.receive(input, early, &mut |bytes| {
            if ending.is_none() {
                ending = lane.take(now, link, decoder, bytes, nomination).err();
            }
        });
        if *stage == Stage::Handshake && tls.is_up() {
            *stage = Stage::Greeted;
            lane.say(&nomination.hello(*direct));
        }
        let used = match received {
            Ok(used) => used,
            Err(error) => {
                ending.get_or_insert(Ending::Link(error));
                input.len()
            }
        };
        self.greeted(now, link);
        self.settle(now);
        if let Some(ending) = ending {
            let by_peer = ending == Ending::Link(LinkError::Closed);
            self.end_by(now, link, &ending.to_string(), by_peer);
        }
        used
    }

    /// A TCP connection is up.
    fn open(&mut self, now: Instant, link: LinkId) -> Result<(), LinkError> {
        let Self { links, runs, config, role, .. } = self;
        let Some(slot) = links.iter_mut().find(|slot| slot.id == link) else { return Ok(()) };
        let Some(run) = runs.iter().find(|run| run.id() == slot.attempt) else {
            return Err(LinkError::Preface);
        };
        let mut early = Vec::new();
        let punch_key = &run.attempt.punch_key;
        let link = TcpLink::new(&config.keys, *role, &config.peer, slot.attempt, punch_key, &mut early)?;
        let door = slot.enter(now, (&config.keys, config.own, config.peer), &mut early);
        let (decoder, lane) = (Decoder::new(), Lane::new(now));
        slot.carrier = Carrier::Tcp(Box::new(Tcp { link, decoder, lane, early, door }));
        Ok(())
    }
}
