//! STUN (RFC 8489): how a node learns the address that the world sees it at.
//!
//! [`server`] answers Binding requests, for any client; [`limit`] says how many, when there are too many.
//! [`client`] makes the requests of a node and reads the answers; what is asked, and what the answers mean
//! for the NATs between, is the prober's business ([`crate::nat`]).
//!
//! RFC 5780 lets a client ask for answers from the server's other address and port (CHANGE-REQUEST), if the
//! server has one (OTHER-ADDRESS). Beyond it, three comprehension-optional attributes are ours; any other
//! server passes over them, and nobody who does not send them gets anything of them:
//! - ADDRESS-PROOF ([`proof`]): the request asks by an attribute of any content, and the answer holds 16
//!   bytes by which the server later knows that it itself saw this address. Given only if the answer is
//!   not longer than the request, so the content is padding.
//! - OTHER-PORT: answer from the server's other port at the same address. It does for servers with one
//!   address what CHANGE-REQUEST must not do there.
//! - RETURN-TO: answer to another port of the address that the request comes from. The request must hold the
//!   proof of that port, so nobody is written to who was not there. It is RFC 5780's RESPONSE-PORT, made
//!   safe, and shows whether an idle mapping still lives.

pub(crate) mod attribute;
pub mod client;
pub mod limit;
pub mod proof;
pub mod server;
