//! Login: node and server prove to each other that they hold the user's token, without sending it, and the
//! identities that they claim. What follows is sealed under a key that only the two of them have.
//!
//! ```text
//! node                                                         server
//!  LoginHello      versions, user, node, node key, nonce, X  ->
//!                  <-  version, server key, nonce, Y, server signature     LoginChallenge
//!  LoginProof      client MAC, node signature                ->
//!                  <-  server MAC, ...                  sealed, LoginDone
//! ```
//!
//! X and Y are the shares of SPAKE2 (Abdalla and Pointcheval 2005; Ed25519 group, the `spake2` crate's
//! hashing, which is not RFC 9382's) over the token. Whoever does not know the token learns from a login
//! only whether one guess was right, and nothing that could be searched later.
//!
//! The **transcript** is a running SHA-256 over every message as it was sent, header included, each with
//! its length before it. A message that is changed on the way, by as much as a bit, makes the login fail.
//!
//! 1. The server's identity signs the hello's transcript and its own version, key, nonce and share: both
//!    shares. The node compares the key with its pin and checks the signature *before* it answers, so an
//!    impostor gets not even that one guess from a node that has a pin.
//! 2. With K, the result of SPAKE2, and T1, the transcript of hello and challenge, the node computes
//!    `HMAC(HKDF(T1, K, "client mac"), T1)`, and its identity signs T1.
//! 3. The server checks both. T2 is the transcript with the proof. `HKDF(T2, K, ...)` gives the key of the
//!    server's own MAC over T2, the seal of either direction, and further keys for whoever needs some.
//! 4. The node opens the server's answer and checks that MAC: only now it knows that the server holds the
//!    token too.
//!
//! A user that is not known meets a share of a random token, and fails like one with a wrong token, at the
//! same step. Refusals before the proof are in clear, and so could come from anybody on the way; those after
//! it are sealed.
//!
//! Left to others: the pace of failed logins, pins and names (`server`, `agent`), connections (the driver).

use ed25519_dalek::VerifyingKey;
use sha2::{Digest, Sha256};
use spake2::{Ed25519Group, Identity as SpakeIdentity, Password, Spake2};
use zeroize::Zeroizing;

use crate::auth::key::Key;
use crate::auth::seal::{Exporter, Opener, Sealer, SecureChannel};
use crate::auth::token::Token;
use crate::ids::PublicKey;
use crate::wire::message::{Code, LoginChallenge, LoginHello, Message, Refused};
use crate::wire::{Envelope, MAX_CLEAR, Malformed, VERSION};

mod client;
mod server;

pub use client::{ClientLogin, ClientProof};
pub use server::{ServerLogin, ServerProved};

/// Why a login failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// A message could not be read.
    #[error("a login message could not be read ({0}): check that both sides are INP2P of the same version")]
    Malformed(#[from] Malformed),
    /// No version in common.
    #[error(
        "the other side speaks the protocol versions {theirs:?}, this one {VERSION}: update the older of the two"
    )]
    Version {
        /// What the other side offered, or chose.
        theirs: Vec<u8>,
    },
    /// The other side's SPAKE2 share is not a usable point of the curve.
    #[error("the other side sent a key share that no INP2P program sends: it is broken, or an attacker")]
    BadShare,
    /// To the node: the server said no.
    #[error("the server refused the login: {0}{advice}", advice = advice(.0.code))]
    Refused(Refused),
    /// To the node: the server is not the one that is pinned.
    #[error(
        "the server's identity is {got}, but {pinned} is pinned: if the server was set up anew, accept it with \
         `-server-key {got}`; if not, somebody stands between this node and the server"
    )]
    ServerKeyChanged {
        /// The identity that was expected.
        pinned: PublicKey,
        /// The one that the server claims.
        got: PublicKey,
    },
    /// To the node: the server does not hold the identity that it claims.
    #[error(
        "the server did not prove the identity {0} that it claims: somebody may stand between this node and the \
         server; try again from another network"
    )]
    BadServerSignature(PublicKey),
    /// To the node: the server does not hold the token, or its answer was changed on the way.
    #[error(
        "the server did not prove that it knows the token: it is not your server, or somebody stands between; \
         check the server's address and try again from another network"
    )]
    BadServerProof,
    /// To the server: the node does not hold the token of its user, or there is no such user.
    #[error("the node does not hold the token of the user that it names: check its -token and -user")]
    WrongToken,
    /// To the server: the node holds the token, but not the identity that it claims.
    #[error("the node did not prove the identity that it claims: check its key file")]
    BadNodeSignature,
}

impl LoginError {
    /// What the server tells the node. It does not tell an unknown user from a wrong token.
    pub fn refusal(&self) -> Refused {
        match self {
            Self::Version { .. } => Refused::new(Code::Version, self.to_string()),
            Self::WrongToken => Refused::new(Code::WrongToken, "wrong token, or no such user"),
            Self::Refused(refused) => refused.clone(),
            Self::Malformed(_)
            | Self::BadShare
            | Self::ServerKeyChanged { .. }
            | Self::BadServerSignature(_)
            | Self::BadServerProof
            | Self::BadNodeSignature => Refused::new(Code::BadRequest, self.to_string()),
        }
    }
}

/// What somebody at the node can do about a refusal, where the server's own text does not say it.
fn advice(code: Code) -> &'static str {
    match code {
        Code::WrongToken => "; check that -token and -user are the same here and at the server",
        Code::Version => "; update the older of the two",
        Code::TooManyFailures | Code::Busy => "; this node will try again",
        Code::Unsupported
        | Code::BadRequest
        | Code::NameTaken
        | Code::KeyInUse
        | Code::Replaced
        | Code::UnknownNode
        | Code::Offline
        | Code::Oneself
        | Code::NotAllowed
        | Code::Timeout
        | Code::NotFound
        | Code::Failed
        | Code::Other => "",
    }
}

/// The hash of all messages so far.
#[derive(Debug, Clone)]
struct Transcript(Sha256);

impl Transcript {
    fn new(hello: &[u8]) -> Self {
        Self(Sha256::new_with_prefix("inp2p login v1")).with(hello)
    }

    fn with(&self, message: &[u8]) -> Self {
        let length = (message.len() as u64).to_be_bytes();
        Self(self.0.clone().chain_update(length).chain_update(message))
    }

    fn hash(&self) -> [u8; 32] {
        self.0.clone().finalize().into()
    }
}

/// K, the secret that SPAKE2 agreed on: the same on both sides if the token is.
struct Agreed(Zeroizing<Vec<u8>>);

impl Agreed {
    fn client_mac_key(&self, transcript: &Transcript) -> Key {
        Key::extract(&transcript.hash(), &self.0).child("client mac")
    }

    /// What both sides have once the proof is known.
    fn finish(self, transcript: &Transcript) -> Keys {
        let hash = transcript.hash();
        let root = Key::extract(&hash, &self.0);
        Keys {
            server_mac: root.child("server mac").mac(&hash),
            client_to_server: root.derive("client to server"),
            server_to_client: root.derive("server to client"),
            exporter: Exporter(root.child("exporter")),
        }
    }
}

struct Keys {
    server_mac: [u8; 32],
    client_to_server: Zeroizing<[u8; 32]>,
    server_to_client: Zeroizing<[u8; 32]>,
    exporter: Exporter,
}

impl Keys {
    fn client_channel(self) -> SecureChannel {
        SecureChannel {
            sealer: Sealer::new(&self.client_to_server),
            opener: Opener::new(&self.server_to_client),
            exporter: self.exporter,
        }
    }

    fn server_channel(self) -> SecureChannel {
        SecureChannel {
            sealer: Sealer::new(&self.server_to_client),
            opener: Opener::new(&self.client_to_server),
            exporter: self.exporter,
        }
    }
}

/// A clear message of the login: bounded, of the right kind, with the request id of its step.
fn read<M: Message>(message: &[u8], request: u32) -> Result<M, LoginError> {
    if message.len() > MAX_CLEAR {
        return Err(Malformed::TooLong.into());
    }
    let envelope = Envelope::parse(message)?;
    if envelope.request != request {
        return Err(Malformed::Request { expected: request, got: envelope.request }.into());
    }
    Ok(envelope.decode()?)
}

/// What SPAKE2 takes for the password. Hashed, so that its copies in memory are not the token itself.
fn password(token: &Token) -> Password {
    let number = Zeroizing::new(token.reveal().to_be_bytes());
    let hash: Zeroizing<[u8; 32]> = Key::extract(b"inp2p login v1 token", &*number).derive("");
    Password::new(hash.as_slice())
}

/// Who the two sides of SPAKE2 are: a share for one node is of no use to another one.
fn spake_identities(hello: &LoginHello) -> (SpakeIdentity, SpakeIdentity) {
    // No name has a zero byte in it.
    let (user, node) = (hello.user.as_str().as_bytes(), hello.node.as_str().as_bytes());
    let client = [b"inp2p login v1 client\0", user, b"\0", node, b"\0", hello.key.0.as_slice()].concat();
    (SpakeIdentity::new(&client), SpakeIdentity::new(b"inp2p login v1 server"))
}

/// Refuses a share that no honest side sends: none of the curve, or of small order (which the `spake2` crate
/// would take, and which an honest side hits with a chance of 2^-250).
fn check_share(share: &[u8]) -> Result<(), LoginError> {
    // An Ed25519 public key is any point of the same curve, so its reader can judge the share's.
    let point = share.get(1..).and_then(|point| point.try_into().ok());
    let point = point.and_then(|point| VerifyingKey::from_bytes(point).ok());
    if point.is_none_or(|point| point.is_weak()) {
        return Err(LoginError::BadShare);
    }
    Ok(())
}

/// K, from the own state and the other side's share.
fn agree(own: Spake2<Ed25519Group>, share: &[u8]) -> Result<Agreed, LoginError> {
    check_share(share)?;
    Ok(Agreed(Zeroizing::new(own.finish(share).map_err(|_| LoginError::BadShare)?)))
}

/// What the server's identity signs.
fn server_statement(hello: &Transcript, challenge: &LoginChallenge) -> Vec<u8> {
    let mut statement = hello.hash().to_vec();
    statement.push(challenge.version);
    statement.extend_from_slice(&challenge.key.0);
    statement.extend_from_slice(challenge.nonce.as_slice());
    // Of variable length, so the last.
    statement.extend_from_slice(&challenge.share);
    statement
}

/// The request id of [`LoginHello`] and its answer: the first of a connection.
pub const HELLO_REQUEST: u32 = 1;
/// The request id of [`crate::wire::message::LoginProof`] and its answer.
pub const PROOF_REQUEST: u32 = 2;
/// Where the server's identity signs.
const SERVER_LABEL: &str = "inp2p login v1 server";
/// Where the node's identity signs.
const NODE_LABEL: &str = "inp2p login v1 node";

#[cfg(test)]
mod tests;
