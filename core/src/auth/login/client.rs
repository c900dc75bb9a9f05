//! The node's side of the login: hello, then proof, then the sealed channel. Each step consumes the one
//! before, so none can be left out or done twice.

use std::fmt;

use spake2::{Ed25519Group, Spake2};
use subtle::ConstantTimeEq;

use super::{
    HELLO_REQUEST, Keys, LoginError, NODE_LABEL, PROOF_REQUEST, SERVER_LABEL, Transcript, agree, password,
    read, server_statement, spake_identities,
};
use crate::auth::identity::{Identity, verify};
use crate::auth::seal::{SealError, SecureChannel};
use crate::auth::token::Token;
use crate::ids::{NodeName, PublicKey, UserName};
use crate::rng::Rng;
use crate::wire::message::{LoginChallenge, LoginDone, LoginHello, LoginProof, Refused, kind};
use crate::wire::{Envelope, Malformed, VERSION, encode};

/// The hello is under way.
pub struct ClientLogin {
    transcript: Transcript,
    spake: Spake2<Ed25519Group>,
    server_pin: Option<PublicKey>,
}

/// The proof is under way.
pub struct ClientProof {
    keys: Keys,
    server: PublicKey,
}

impl ClientLogin {
    /// Begins a login. The bytes are the message to send, [`HELLO_REQUEST`] its request id.
    ///
    /// With a `server_pin` no other server gets any further than this. `instance` is random and one a process.
    pub fn start(
        user: UserName,
        node: NodeName,
        identity: &Identity,
        token: &Token,
        server_pin: Option<PublicKey>,
        instance: Option<[u8; 16]>,
        rng: &mut Rng,
    ) -> (Self, Vec<u8>) {
        let mut hello = LoginHello {
            versions: vec![VERSION],
            user,
            node,
            key: identity.public(),
            nonce: rng.bytes().into(),
            share: Default::default(),
            instance: instance.map(Into::into),
        };
        let (client, server) = spake_identities(&hello);
        let (spake, share) = Spake2::start_a_with_rng(&password(token), &client, &server, rng);
        hello.share = share.into();
        let message = encode(HELLO_REQUEST, &hello);
        (Self { transcript: Transcript::new(&message), spake, server_pin }, message)
    }

    /// Takes the server's answer to the hello. The bytes are the next message to send, [`PROOF_REQUEST`] its
    /// request id. `identity` is the one of [`Self::start`].
    ///
    /// # Errors
    /// If the server refuses, cannot be understood, or is not the one that is pinned. The login is over then.
    pub fn challenge(
        self,
        message: &[u8],
        identity: &Identity,
    ) -> Result<(ClientProof, Vec<u8>), LoginError> {
        if let Some(refused) = clear_refusal(message, HELLO_REQUEST) {
            return Err(LoginError::Refused(refused));
        }
        let challenge: LoginChallenge = read(message, HELLO_REQUEST)?;
        if challenge.version != VERSION {
            return Err(LoginError::Version { theirs: vec![challenge.version] });
        }
        // Both checks come before anything is made of the token: see the module's first rule.
        if let Some(pinned) = self.server_pin.filter(|pinned| *pinned != challenge.key) {
            return Err(LoginError::ServerKeyChanged { pinned, got: challenge.key });
        }
        let statement = server_statement(&self.transcript, &challenge);
        if !verify(&challenge.key, SERVER_LABEL, &statement, &challenge.signature) {
            return Err(LoginError::BadServerSignature(challenge.key));
        }

        let agreed = agree(self.spake, &challenge.share)?;
        let transcript = self.transcript.with(message);
        let hash = transcript.hash();
        let proof = LoginProof {
            mac: agreed.client_mac_key(&transcript).mac(&hash).into(),
            signature: identity.sign(NODE_LABEL, &hash).into(),
        };
        let message = encode(PROOF_REQUEST, &proof);
        let keys = agreed.finish(&transcript.with(&message));
        Ok((ClientProof { keys, server: challenge.key }, message))
    }
}

impl ClientProof {
    /// Takes the server's answer to the proof: [`LoginDone`], sealed; or a refusal, sealed (the server knows
    /// the token) or in clear (it says that the proof failed).
    ///
    /// Also gives the server's identity, to be pinned if none was.
    ///
    /// # Errors
    /// If the server refuses, cannot be understood, or does not prove that it knows the token.
    pub fn done(self, message: &[u8]) -> Result<(SecureChannel, LoginDone, PublicKey), LoginError> {
        if let Some(refused) = clear_refusal(message, PROOF_REQUEST) {
            return Err(LoginError::Refused(refused));
        }
        let server_mac = self.keys.server_mac;
        let mut channel = self.keys.client_channel();
        // An honest server's answer opens: another key means another token, or another transcript.
        let plain = channel.opener.open(message).map_err(|error| match error {
            SealError::TooLong => LoginError::Malformed(Malformed::TooLong),
            SealError::Broken | SealError::UsedUp => LoginError::BadServerProof,
        })?;
        if let Some(refused) = clear_refusal(&plain, PROOF_REQUEST) {
            return Err(LoginError::Refused(refused));
        }
        let done: LoginDone = read(&plain, PROOF_REQUEST)?;
        if !bool::from(done.mac.as_slice().ct_eq(&server_mac)) {
            return Err(LoginError::BadServerProof);
        }
        Ok((channel, done, self.server))
    }
}

/// The refusal that `message` is, if it is one. A sealed message looks like one by chance once in 2^56:
/// version, kind and request id would all have to fit.
fn clear_refusal(message: &[u8], request: u32) -> Option<Refused> {
    let envelope = Envelope::parse(message).ok()?;
    let ours = envelope.kind == kind::REFUSED && envelope.request == request;
    ours.then(|| envelope.decode().ok()).flatten()
}

impl fmt::Debug for ClientLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientLogin").field("server_pin", &self.server_pin).finish_non_exhaustive()
    }
}
impl fmt::Debug for ClientProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientProof").field("server", &self.server).finish_non_exhaustive()
    }
}
