//! Names to addresses: the system's `getaddrinfo`, which blocks, on threads of its own.
//!
//! It is the one that knows `/etc/hosts`, `nsswitch.conf` and whatever else the administrator set up. Threads
//! come with work and go when there is none. Both their number and the queue are bounded, because peers
//! may ask for names.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_channel::oneshot;

use super::opts;

/// Looks names up. Dropping the returned future forgets the lookup.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Lookup>,
    threads: usize,
}

#[derive(Debug)]
struct Lookup {
    host: String,
    port: u16,
    answer: oneshot::Sender<io::Result<Vec<SocketAddr>>>,
}

impl Resolver {
    /// The addresses of `host`: a name, or an address (an IPv6 one with or without brackets).
    pub(super) fn resolve(
        self: &Arc<Self>,
        host: &str,
        port: u16,
    ) -> impl Future<Output = io::Result<Vec<SocketAddr>>> + Send + use<> {
        let begun = match literal(host) {
            Some(ip) => Ok(Err(SocketAddr::new(ip.to_canonical(), port))),
            None => self.ask(host, port).map(Ok),
        };
        async move {
            match begun? {
                Err(address) => Ok(vec![address]),
                Ok(answer) => {
                    answer.await.unwrap_or_else(|_| Err(io::Error::other("the lookup was dropped")))
                }
            }
        }
    }

    fn ask(
        self: &Arc<Self>,
        host: &str,
        port: u16,
    ) -> io::Result<oneshot::Receiver<io::Result<Vec<SocketAddr>>>> {
        let (answer, answered) = oneshot::channel();
        let mut queue = self.lock();
        if queue.waiting.len() >= MAX_WAITING {
            return Err(io::Error::new(io::ErrorKind::QuotaExceeded, "too many name lookups are waiting"));
        }
        queue.waiting.push_back(Lookup { host: host.to_owned(), port, answer });
        if queue.threads < MAX_THREADS {
            let resolver = Arc::clone(self);
            let spawned = std::thread::Builder::new().name("resolve".into()).spawn(move || resolver.work());
            match spawned {
                Ok(_) => queue.threads += 1,
                // The threads that run will come to it; only with none it would wait for ever.
                Err(error) if queue.threads == 0 => {
                    queue.waiting.pop_back();
                    return Err(error);
                }
                Err(_) => {}
            }
        }
        Ok(answered)
    }

    fn work(&self) {
        while let Some(lookup) = self.next() {
            if !lookup.answer.is_canceled() {
                let _ = lookup.answer.send(look_up(&lookup.host, lookup.port));
            }
        }
    }

    /// The next lookup; none ends the thread, which is counted out under the same lock.
    fn next(&self) -> Option<Lookup> {
        let mut queue = self.lock();
        let next = queue.waiting.pop_front();
        if next.is_none() {
            queue.threads -= 1;
        }
        next
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn literal(host: &str) -> Option<IpAddr> {
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    bare.parse().ok()
}

fn look_up(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let mut addresses = Vec::new();
    for address in (host, port).to_socket_addrs()?.map(opts::canonical).take(MAX_ADDRESSES) {
        if !addresses.contains(&address) {
            addresses.push(address);
        }
    }
    if addresses.is_empty() {
        return Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no address")));
    }
    Ok(addresses)
}

/// Lookups at the same time: a resolver that does not answer holds a thread for 5 to 30 s, and a few such
/// must not stop the others.
const MAX_THREADS: usize = 8;

/// Lookups that wait for a thread.
const MAX_WAITING: usize = 1024;

/// More addresses of one name than anyone would try.
const MAX_ADDRESSES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_no_lookup() {
        let resolver = Arc::new(Resolver::default());
        for (host, expected) in
            [("192.0.2.1", "192.0.2.1:7"), ("[2001:db8::1]", "[2001:db8::1]:7"), ("::1", "[::1]:7")]
        {
            let future = std::pin::pin!(resolver.resolve(host, 7));
            let found = futures_util::FutureExt::now_or_never(future).unwrap().unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
        assert_eq!(resolver.lock().threads, 0);
    }
}
