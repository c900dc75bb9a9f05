//! The server's side of the login: challenge, then the check of the proof. What follows (pins, names,
//! [`LoginDone`](crate::wire::message::LoginDone) or a refusal, sealed) is the server machine's.

use std::fmt;

use spake2::{Ed25519Group, Spake2};

use super::{
    HELLO_REQUEST, LoginError, NODE_LABEL, PROOF_REQUEST, SERVER_LABEL, Transcript, agree, check_share,
    password, read, server_statement, spake_identities,
};
use crate::auth::identity::{Identity, verify};
use crate::auth::seal::SecureChannel;
use crate::auth::token::Token;
use crate::ids::UserName;
use crate::rng::Rng;
use crate::wire::message::{LoginChallenge, LoginHello, LoginProof};
use crate::wire::{VERSION, encode};

/// The challenge is under way.
pub struct ServerLogin {
    hello: LoginHello,
    transcript: Transcript,
    spake: Spake2<Ed25519Group>,
}

/// The node has proven token and identity.
#[derive(Debug)]
pub struct ServerProved {
    /// Who it is.
    pub hello: LoginHello,
    /// What seals everything from now on.
    pub channel: SecureChannel,
    /// The server's own proof: `mac` of [`LoginDone`](crate::wire::message::LoginDone), whose request id is
    /// [`PROOF_REQUEST`].
    pub mac: [u8; 32],
}

impl ServerLogin {
    /// Answers a hello. `token` finds the user's token; a user without one is led on to the same failure as
    /// a wrong token. The bytes are the message to send.
    ///
    /// # Errors
    /// If the hello cannot be understood, or has no version in common with this side. The connection is to end then.
    pub fn challenge(
        hello: &[u8],
        token: impl FnOnce(&UserName) -> Option<Token>,
        identity: &Identity,
        rng: &mut Rng,
    ) -> Result<(Self, Vec<u8>), LoginError> {
        let transcript = Transcript::new(hello);
        let hello: LoginHello = read(hello, HELLO_REQUEST)?;
        if !hello.versions.contains(&VERSION) {
            return Err(LoginError::Version { theirs: hello.versions });
        }
        check_share(&hello.share)?;
        // Drawn in any case, so that an unknown user costs the same.
        let nobody = Token::random(rng);
        let token = token(&hello.user).unwrap_or(nobody);
        let nonce = rng.bytes().into();
        let (client, server) = spake_identities(&hello);
        let (spake, share) = Spake2::start_b_with_rng(&password(&token), &client, &server, rng);
        let mut challenge = LoginChallenge {
            version: VERSION,
            key: identity.public(),
            nonce,
            share: share.into(),
            signature: [0; 64].into(),
        };
        challenge.signature = identity.sign(SERVER_LABEL, &server_statement(&transcript, &challenge)).into();
        let message = encode(HELLO_REQUEST, &challenge);
        Ok((Self { hello, transcript: transcript.with(&message), spake }, message))
    }

    /// Who claims to be logging in.
    pub fn hello(&self) -> &LoginHello {
        &self.hello
    }

    /// Checks the node's proof: the token first, then the identity.
    ///
    /// # Errors
    /// If the proof cannot be understood, or proves less than both. The connection is to end then.
    pub fn prove(self, proof: &[u8]) -> Result<ServerProved, LoginError> {
        let transcript = self.transcript.with(proof);
        let proof: LoginProof = read(proof, PROOF_REQUEST)?;
        let agreed = agree(self.spake, &self.hello.share)?;
        let hash = self.transcript.hash();
        if !agreed.client_mac_key(&self.transcript).verify_mac(&hash, &proof.mac) {
            return Err(LoginError::WrongToken);
        }
        if !verify(&self.hello.key, NODE_LABEL, &hash, &proof.signature) {
            return Err(LoginError::BadNodeSignature);
        }
        let keys = agreed.finish(&transcript);
        Ok(ServerProved { mac: keys.server_mac, hello: self.hello, channel: keys.server_channel() })
    }
}

impl fmt::Debug for ServerLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerLogin").field("hello", &self.hello).finish_non_exhaustive()
    }
}
