//! Attributes as bytes: those that the library does not have, and how one is read from a message.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use nom::bytes::complete::take;
use nom::combinator::{all_consuming, map, verify};
use nom::number::complete::{be_u8, be_u16};
use nom::sequence::preceded;
use nom::{IResult, Parser};
use smallvec::SmallVec;
use stun_types::attribute::AttributeType;

/// One attribute: type, length, value, padding to four bytes (RFC 8489 section 14).
pub(crate) fn attribute(input: &[u8]) -> IResult<&[u8], (AttributeType, &[u8])> {
    let (input, (kind, length)) = (be_u16, be_u16).parse(input)?;
    let (input, value) = take(length)(input)?;
    let (input, _) = take(length.wrapping_neg() % 4)(input)?;
    Ok((input, (AttributeType::new(kind), value)))
}

/// The value of an address attribute that is not exclusive-ored (RFC 8489 section 14.1).
pub(crate) fn address_value(address: SocketAddr) -> SmallVec<[u8; 20]> {
    let mut value = SmallVec::from_slice(&[0, if address.is_ipv4() { IPV4 } else { IPV6 }]);
    value.extend_from_slice(&address.port().to_be_bytes());
    match address.ip() {
        IpAddr::V4(ip) => value.extend_from_slice(&ip.octets()),
        IpAddr::V6(ip) => value.extend_from_slice(&ip.octets()),
    }
    value
}

/// Reads such a value.
pub(crate) fn address_of(value: &[u8]) -> Option<SocketAddr> {
    let address: IResult<&[u8], SocketAddr> = all_consuming(preceded(
        be_u8,
        nom::branch::alt((
            map((family(IPV4), be_u16, take(4_usize)), |(_, port, ip)| {
                (<[u8; 4]>::try_from(ip).map(Ipv4Addr::from).unwrap_or(Ipv4Addr::UNSPECIFIED), port).into()
            }),
            map((family(IPV6), be_u16, take(16_usize)), |(_, port, ip)| {
                (<[u8; 16]>::try_from(ip).map(Ipv6Addr::from).unwrap_or(Ipv6Addr::UNSPECIFIED), port).into()
            }),
        )),
    ))
    .parse(value);
    address.ok().map(|(_, address)| address)
}

fn family<'i>(wanted: u8) -> impl Parser<&'i [u8], Output = u8, Error = nom::error::Error<&'i [u8]>> {
    verify(be_u8, move |family| *family == wanted)
}

/// The families' numbers.
const IPV4: u8 = 1;
const IPV6: u8 = 2;

/// RFC 5780 section 7.2: answer from another address (bit [`CHANGE_IP`]), another port ([`CHANGE_PORT`]).
pub(crate) const CHANGE_REQUEST: AttributeType = AttributeType::new(0x0003);
/// RFC 5780 section 7.5: answer to another port of the host that asks.
pub(crate) const RESPONSE_PORT: AttributeType = AttributeType::new(0x0027);
/// RFC 5780 section 7.3: where an answer came from.
pub(crate) const RESPONSE_ORIGIN: AttributeType = AttributeType::new(0x802b);
/// RFC 5780 section 7.4: the address and port that both differ from those that were asked.
pub(crate) const OTHER_ADDRESS: AttributeType = AttributeType::new(0x802c);

/// The flags of CHANGE-REQUEST.
pub(crate) const CHANGE_IP: u8 = 4;
/// The same.
pub(crate) const CHANGE_PORT: u8 = 2;

/// Ours, see the module `stun`. The numbers are out of IANA's range for attributes that need no standard
/// (0xC000 to 0xFFFF) and not assigned there.
pub(crate) const ADDRESS_PROOF: AttributeType = AttributeType::new(0xc2f0);
/// Ours: the answer is to come from the server's other port.
pub(crate) const OTHER_PORT: AttributeType = AttributeType::new(0xc2f1);
/// Ours: the answer is to go to another port, whose proof is the value: port, two zero bytes, 16 of proof.
pub(crate) const RETURN_TO: AttributeType = AttributeType::new(0xc2f2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_read_as_they_were_written() {
        for text in ["192.0.2.1:32853", "[2001:db8::7]:1"] {
            let address: SocketAddr = text.parse().unwrap();
            let value = address_value(address);
            assert_eq!(address_of(&value), Some(address));
            assert_eq!(address_of(&value[1..]), None);
            assert_eq!(address_of(&[&value[..], &[0]].concat()), None);
        }
        assert_eq!(address_of(&[0, 3, 0, 1, 1, 2, 3, 4]), None);
        assert_eq!(address_of(&[]), None);
    }
}
