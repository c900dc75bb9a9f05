//! The token: 64 bits that all nodes of a user and the server know.
//!
//! It can be derived from a user name and a password by the CRC that OpenP2P uses, for those who come from
//! there. A CRC hides nothing: whoever has such a token can compute a password that fits. So a token is
//! treated as the password itself: it is never sent, never shown, and erased from memory when dropped; the
//! better token is a random one.

use std::fmt;
use std::str::FromStr;

use crc::{CRC_64_GO_ISO, Crc};
use rand_core::RngCore;
use subtle::ConstantTimeEq;
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::rng::Rng;

/// A token; never 0.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Token(u64);

/// Why a token was refused. No text repeats the input: it may be the token but for a typing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadToken {
    /// Something else than decimal digits.
    #[error("the token is not a number: give a whole number from 1 to 18446744073709551615, in digits only")]
    NotANumber,
    /// 0, which stands for "no token" in the original.
    #[error("the token is 0, which is not allowed: give a number from 1 to 18446744073709551615")]
    Zero,
    /// More than 64 bits.
    #[error("the token is too big: give a number from 1 to 18446744073709551615")]
    TooBig,
    /// The derived token is 0 (one pair of 2^64).
    #[error("this user name and password give the token 0, which is not allowed: choose another password")]
    DerivedZero,
}

impl Token {
    /// The token of a user name and password: CRC-64/GO-ISO over the name, then the password.
    ///
    /// There is no separator, because the original has none: `ab` with `c` and `a` with `bc` are the same.
    ///
    /// # Errors
    /// [`BadToken::DerivedZero`], for one pair of 2^64.
    pub fn derive(user: &str, password: &str) -> Result<Self, BadToken> {
        let mut digest = CRC.digest();
        digest.update(user.as_bytes());
        digest.update(password.as_bytes());
        match digest.finalize() {
            0 => Err(BadToken::DerivedZero),
            token => Ok(Self(token)),
        }
    }

    /// A random token.
    pub fn random(rng: &mut Rng) -> Self {
        loop {
            let token = rng.next_u64();
            if token != 0 {
                return Self(token);
            }
        }
    }

    /// The number itself, for the one who asked for it (`inp2pc token`) and for the user's own files.
    pub fn reveal(&self) -> u64 {
        self.0
    }
}

impl FromStr for Token {
    type Err = BadToken;
    fn from_str(text: &str) -> Result<Self, BadToken> {
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadToken::NotANumber);
        }
        // Digits only: what is left to go wrong is the size.
        match text.parse() {
            Ok(0) => Err(BadToken::Zero),
            Ok(token) => Ok(Self(token)),
            Err(_) => Err(BadToken::TooBig),
        }
    }
}

impl PartialEq for Token {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}
impl Eq for Token {}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// What Go's `crc64.ISO` computes.
const CRC: Crc<u64> = Crc::<u64>::new(&CRC_64_GO_ISO);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    // Proptest has a trait of that name.
    use crate::rng::Rng;

    #[test]
    fn derived_tokens_are_those_of_openp2p() {
        assert_eq!(Token::derive("123456789", "").unwrap().reveal(), 0xb909_56c7_75a4_1001);
        assert_eq!(Token::derive("1234", "56789").unwrap().reveal(), 0xb909_56c7_75a4_1001);
        assert_eq!(Token::derive("admin", "admin").unwrap().reveal(), 5_189_669_952_497_224_095);
    }

    #[test]
    fn a_derived_zero_is_refused() {
        // The start value and the final inversion cancel when there is nothing between them.
        assert_eq!(Token::derive("", ""), Err(BadToken::DerivedZero));
    }

    #[test]
    fn numbers_from_one_to_the_largest_are_tokens() {
        assert_eq!("12345678".parse::<Token>().unwrap().reveal(), 12_345_678);
        assert_eq!("1".parse::<Token>().unwrap().reveal(), 1);
        assert_eq!("18446744073709551615".parse::<Token>().unwrap().reveal(), u64::MAX);
        assert_eq!("0012".parse::<Token>().unwrap().reveal(), 12);
    }

    #[test]
    fn everything_else_is_refused_for_its_own_reason() {
        for text in ["", " 1", "1 ", "+1", "-1", "0x10", "1e3", "1_000", "abc", "\u{0661}"] {
            assert_eq!(text.parse::<Token>(), Err(BadToken::NotANumber), "{text:?}");
        }
        assert_eq!("0".parse::<Token>(), Err(BadToken::Zero));
        assert_eq!("000".parse::<Token>(), Err(BadToken::Zero));
        assert_eq!("18446744073709551616".parse::<Token>(), Err(BadToken::TooBig));
        assert_eq!("9".repeat(1000).parse::<Token>(), Err(BadToken::TooBig));
    }

    #[test]
    fn nothing_shows_a_token() {
        let token: Token = "12345678".parse().unwrap();
        assert_eq!(format!("{token} {token:?}"), "*** ***");
        let error = "secret77x".parse::<Token>().unwrap_err();
        assert!(!format!("{error} {error:?}").contains("77"));
    }

    #[test]
    fn random_tokens_differ() {
        let mut rng = Rng::new([1; 32]);
        assert_ne!(Token::random(&mut rng), Token::random(&mut rng));
    }

    proptest! {
        #[test]
        fn parsing_never_panics_and_keeps_the_number(text in ".{0,30}", number in 1..=u64::MAX) {
            let _ = text.parse::<Token>();
            prop_assert_eq!(number.to_string().parse::<Token>().unwrap().reveal(), number);
        }
    }
}
