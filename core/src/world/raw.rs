//! Connections of the test's own, on which it says what it likes.

use std::net::SocketAddr;

use super::{Wire, World, identity, token};
use crate::auth::SecureChannel;
use crate::auth::login::ClientLogin;
use crate::ids::{ConnId, UserName};
use crate::server::io::Input as ServerInput;
use crate::wire::encode;
use crate::wire::message::{Message, kind};

/// What came to one.
#[derive(Default)]
pub(crate) struct Raw {
    pub(crate) received: Vec<Vec<u8>>,
    pub(crate) closed: Option<(u16, &'static str)>,
}

impl World {
    /// A connection of the test's own.
    pub(crate) fn connect_raw(&mut self, from: &str) -> ConnId {
        let conn = ConnId(1_000_000 + self.next_seq());
        self.wires.insert(conn, Wire { owner: None });
        self.raw.insert(conn, Raw::default());
        let remote = SocketAddr::new(from.parse().unwrap(), 5000);
        self.tell_server(ServerInput::Opened { conn, remote });
        conn
    }

    /// Sends a message as it is, and gives what has come back.
    pub(crate) fn send_raw(&mut self, conn: ConnId, message: &[u8]) -> &mut Raw {
        self.tell_server(ServerInput::Received { conn, message });
        self.raw.get_mut(&conn).unwrap()
    }

    pub(crate) fn raw(&mut self, conn: ConnId) -> &mut Raw {
        self.raw.get_mut(&conn).unwrap()
    }

    /// Logs a connection of the test's own in; `Err` with the last message if the server does not want it.
    pub(crate) fn log_in_raw(
        &mut self,
        from: &str,
        who: (&str, u8, &str),
    ) -> Result<(ConnId, SecureChannel), String> {
        self.log_in_raw_as(from, UserName::default().as_str(), who)
    }

    /// The same as a node of that user.
    pub(crate) fn log_in_raw_as(
        &mut self,
        from: &str,
        user: &str,
        (node, key, given): (&str, u8, &str),
    ) -> Result<(ConnId, SecureChannel), String> {
        let conn = self.connect_raw(from);
        let identity = identity(key);
        let (user, node) = (user.parse().unwrap(), node.parse().unwrap());
        let (login, hello) =
            ClientLogin::start(user, node, &identity, &token(given), None, None, &mut self.rng);
        let answer = self.send_raw(conn, &hello).received.pop().ok_or("turned away")?;
        let (proof, message) = login.challenge(&answer, &identity).map_err(|error| error.to_string())?;
        let raw = self.send_raw(conn, &message);
        let answer = raw.received.pop().ok_or("no answer")?;
        let (channel, _, _) = proof.done(&answer).map_err(|error| error.to_string())?;
        Ok((conn, channel))
    }

    /// Sends a sealed message and opens what has come since.
    pub(crate) fn ask_raw(
        &mut self,
        (conn, channel): &mut (ConnId, SecureChannel),
        message: &[u8],
    ) -> Vec<Vec<u8>> {
        let sealed = channel.sealer.seal(message);
        let received = std::mem::take(&mut self.send_raw(*conn, &sealed).received);
        received.iter().map(|message| channel.opener.open(message).unwrap()).collect()
    }

    /// Sends a request and gives its answer, whose request id must be the same.
    pub(crate) fn request_raw<R: Message>(
        &mut self,
        raw: &mut (ConnId, SecureChannel),
        request: &R,
    ) -> Vec<u8> {
        let answers = self.ask_raw(raw, &encode(77, request));
        let ours = |plain: &&Vec<u8>| {
            let envelope = crate::wire::Envelope::parse(plain).unwrap();
            envelope.request == 77 && envelope.kind & kind::REPLY != 0
        };
        answers.iter().find(ours).expect("every request is answered").clone()
    }
}
