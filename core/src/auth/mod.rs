//! Who is who: the token that a user's nodes share, the identities of nodes and servers, the login that
//! proves both, and the seal on everything that follows it.

pub mod identity;
pub(crate) mod key;
pub mod login;
pub mod seal;
pub mod token;

pub use identity::{BadIdentity, Identity, verify};
pub use login::LoginError;
pub use seal::SecureChannel;
pub use token::{BadToken, Token};
