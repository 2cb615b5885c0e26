//! Ranges of addresses: which are public, and those that a user lists. Pure.

use std::error::Error;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What was listed is neither an address nor a network nor a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotAnAddress;

impl fmt::Display for NotAnAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("holds what is neither an address, nor a network like 10.1.0.0/16, nor a host")
    }
}

impl Error for NotAnAddress {}

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Range {
    first: IpAddr,
    bits: u32,
}

impl Range {
    /// Reads an address or a network; `None` for what may be a host.
    pub(super) fn parse(text: &str) -> Result<Option<Self>, NotAnAddress> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let Ok(first) = address.parse::<IpAddr>() else {
            return if bits.is_none() && is_host(text) {
                Ok(None)
            } else {
                Err(NotAnAddress)
            };
        };
        let width = if first.is_ipv4() { 32 } else { 128 };
        let bits = match bits {
            None => width,
            Some(bits) => bits
                .parse()
                .ok()
                .filter(|bits| *bits <= width)
                .ok_or(NotAnAddress)?,
        };
        Ok(Some(Self { first, bits }))
    }

    /// Whether an address is in it.
    pub(super) fn holds(self, ip: IpAddr) -> bool {
        match (self.first, ip) {
            (IpAddr::V4(first), IpAddr::V4(ip)) => same(
                u32::from(first).into(),
                u32::from(ip).into(),
                32 - self.bits,
            ),
            (IpAddr::V6(first), IpAddr::V6(ip)) => same(first.into(), ip.into(), 128 - self.bits),
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
        }
    }
}

/// Whether two addresses are the same but for their last bits.
fn same(one: u128, other: u128, last_bits: u32) -> bool {
    one.checked_shr(last_bits).unwrap_or(0) == other.checked_shr(last_bits).unwrap_or(0)
}

fn is_host(text: &str) -> bool {
    let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'.' || b == b'-' || b == b'_';
    text.len() <= 253
        && text.bytes().all(fits)
        && text
            .bytes()
            .next()
            .is_some_and(|b| b.is_ascii_alphanumeric())
}

/// IPv4 ranges that are not for anyone to call: this network, private, shared, loopback, link-local, protocols,
/// documentation, relays, benchmarks, multicast, reserved.
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// Of IPv6 only this is for anyone to call …
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// … but for protocols (with tunnels to IPv4), documentation, and 6to4, which wraps IPv4.
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether anyone may call an address, in its plain form.
pub(super) fn is_public(ip: IpAddr) -> bool {
    let is_in = |(first, bits): (IpAddr, u32)| Range { first, bits }.holds(ip);
    match ip {
        IpAddr::V4(_) => !NOT_PUBLIC_V4
            .into_iter()
            .any(|(first, bits)| is_in((first.into(), bits))),
        IpAddr::V6(_) => {
            is_in((PUBLIC_V6.0.into(), PUBLIC_V6.1))
                && !NOT_PUBLIC_V6
                    .into_iter()
                    .any(|(first, bits)| is_in((first.into(), bits)))
        }
    }
}

/// Where clouds answer their machines, with secrets too.
pub(super) fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        // One cloud keeps its metadata in a unique local address.
        IpAddr::V6(ip) => {
            ip.is_unicast_link_local() || ip == Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)
        }
    }
}
