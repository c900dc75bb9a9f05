//! Port forwards: what a node listens for ([`ForwardRule`]), what it dials for its peers ([`Allow`]), and
//! the places that both speak of ([`Target`]).

mod allow;
mod rule;
mod target;

pub use allow::{Allow, AllowRule, BadAllow};
pub use rule::{BadRule, ForwardRule};
pub use target::{BadTarget, Host, Target};
