//! Which addresses may be called when a user names them: the guard against requests that are forged to reach what is
//! near us and not meant for anyone. Resolves a name once, and lets only what it has seen be connected to.

mod ranges;
mod resolver;

use std::error::Error;
use std::fmt;
use std::net::IpAddr;

use url::{Host, Url};

pub use ranges::NotAnAddress;
pub(crate) use resolver::Guarded;

use ranges::{Range, is_link_local, is_public};

/// Longer addresses are refused.
const LONGEST: usize = 2000;

/// What may be called: anything public, and what was listed.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Networks of ours that may be called.
    ranges: Vec<Range>,
    /// Hosts that may be called although they are in a private network.
    hosts: Vec<String>,
    /// Whether `http://` is enough.
    plain: bool,
}

/// Why an address may not be called. Holds no part of a URL but its host's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Forbidden {
    /// It is no address that can be called.
    NotAnUrl(&'static str),
    /// It would be sent unencrypted.
    Plain,
    /// It is in a range that is not public, and not listed.
    NotPublic(IpAddr),
    /// The name leads nowhere.
    Unknown,
}

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnUrl(why) => f.write_str(why),
            Self::Plain => f.write_str("must be https:// outside dev and test"),
            Self::NotPublic(ip) => write!(
                f,
                "leads to {ip}, which is not public: list it in WEBHOOK_ALLOW if that is meant"
            ),
            Self::Unknown => f.write_str("has a host that cannot be resolved"),
        }
    }
}

impl Error for Forbidden {}

impl Egress {
    /// Lets these be called beside what is public: addresses, networks like `10.1.0.0/16`, hosts by their name. A host that
    /// is listed by name may still not lead to a link-local address: there clouds keep their secrets.
    ///
    /// # Errors
    /// When one of them is none of these.
    pub fn new(listed: &[String], plain: bool) -> Result<Self, NotAnAddress> {
        let mut egress = Self {
            plain,
            ..Self::default()
        };
        for text in listed {
            if let Some(range) = Range::parse(text)? {
                egress.ranges.push(range);
            } else {
                egress.hosts.push(text.to_ascii_lowercase());
            }
        }
        Ok(egress)
    }

    /// Checks an address as it is written: what its name leads to is checked when it is called.
    ///
    /// # Errors
    /// When it may not be called, with why.
    pub fn check(&self, text: &str) -> Result<Url, Forbidden> {
        if text.len() > LONGEST {
            return Err(Forbidden::NotAnUrl("must have at most 2000 characters"));
        }
        let url = Url::parse(text).map_err(|_| {
            Forbidden::NotAnUrl("must be an absolute address like https://example.com/hook")
        })?;
        match url.scheme() {
            "https" => {}
            "http" if self.plain => {}
            "http" => return Err(Forbidden::Plain),
            _ => return Err(Forbidden::NotAnUrl("must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Forbidden::NotAnUrl("must not bear a user or a password"));
        }
        if url.fragment().is_some() {
            return Err(Forbidden::NotAnUrl("must not have a fragment"));
        }
        let literal = match url.host() {
            Some(Host::Ipv4(ip)) => Some(IpAddr::V4(ip)),
            Some(Host::Ipv6(ip)) => Some(IpAddr::V6(ip)),
            Some(Host::Domain(_)) => None,
            None => return Err(Forbidden::NotAnUrl("must name a host")),
        };
        if let Some(ip) = literal {
            self.check_ip(ip, None)?;
        }
        Ok(url)
    }

    /// Checks one address that a name has led to, or that was written instead of a name.
    pub(crate) fn check_ip(&self, ip: IpAddr, host: Option<&str>) -> Result<(), Forbidden> {
        // An IPv4 address in an IPv6 coat is the IPv4 address.
        let ip = ip.to_canonical();
        let host_is_listed = host.is_some_and(|host| {
            let host = host.trim_end_matches('.');
            self.hosts
                .iter()
                .any(|listed| listed.eq_ignore_ascii_case(host))
        });
        let allowed = is_public(ip)
            || self.ranges.iter().any(|range| range.holds(ip))
            || (host_is_listed && !is_link_local(ip));
        if allowed {
            Ok(())
        } else {
            Err(Forbidden::NotPublic(ip))
        }
    }
}

/// Why a call was refused, if the guard refused it: it stands among the causes of the client's error.
pub fn refusal<'error>(error: &'error (dyn Error + 'static)) -> Option<&'error Forbidden> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            return Some(forbidden);
        }
        cause = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn egress(listed: &[&str]) -> Egress {
        let listed: Vec<String> = listed.iter().map(|text| (*text).to_owned()).collect();
        Egress::new(&listed, false).expect("right")
    }

    #[test]
    fn what_is_near_us_is_refused_however_it_is_written() {
        for url in [
            "https://127.0.0.1/",
            "https://127.1/",
            "https://2130706433/",
            "https://0x7f000001/",
            "https://0177.0.0.1/",
            "https://0.0.0.0/",
            "https://10.0.0.1/",
            "https://172.16.0.1/",
            "https://192.168.1.1/",
            "https://100.64.0.1/",
            "https://169.254.169.254/latest/meta-data",
            "https://192.0.2.1/",
            "https://224.0.0.1/",
            "https://255.255.255.255/",
            "https://[::1]/",
            "https://[::]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:169.254.169.254]/",
            "https://[::127.0.0.1]/",
            "https://[64:ff9b::7f00:1]/",
            "https://[2002:7f00:1::]/",
            "https://[fe80::1]/",
            "https://[fd00:ec2::254]/",
            "https://[ff02::1]/",
            "https://[2001:db8::1]/",
        ] {
            assert!(
                matches!(egress(&[]).check(url), Err(Forbidden::NotPublic(_))),
                "{url}"
            );
        }
        for url in [
            "https://93.184.215.14/",
            "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
            "https://example.com:8443/hook?x=1",
        ] {
            assert!(egress(&[]).check(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn what_is_no_address_to_call_is_refused_with_why() {
        for (url, part) in [
            ("", "absolute"),
            ("/hook", "absolute"),
            ("file:///etc/passwd", "https://"),
            ("ftp://example.com/", "https://"),
            ("http://example.com/", "https://"),
            ("https://user:canary@example.com/", "user"),
            ("https://allowed@evil.example/", "user"),
            ("https://example.com/#canary", "fragment"),
        ] {
            let why = egress(&[]).check(url).expect_err(url).to_string();
            assert!(why.contains(part) && !why.contains("canary"), "{why}");
        }
        let long = format!("https://example.com/{}", "a".repeat(2000));
        assert!(egress(&[]).check(&long).is_err());
        let plain = Egress::new(&[], true).expect("right");
        assert!(plain.check("http://example.com/").is_ok());
        assert!(plain.check("http://127.0.0.1/").is_err());
    }

    #[test]
    fn what_is_listed_may_be_called_and_its_neighbours_may_not() {
        let listed = egress(&["10.1.0.0/16", "::1", "192.168.7.7", "Hooks.Internal"]);
        for url in [
            "https://10.1.255.1/",
            "https://[::1]/",
            "https://192.168.7.7/",
            "https://[::ffff:10.1.0.1]/",
        ] {
            assert!(listed.check(url).is_ok(), "{url}");
        }
        for url in [
            "https://10.2.0.1/",
            "https://127.0.0.1/",
            "https://192.168.7.8/",
        ] {
            assert!(listed.check(url).is_err(), "{url}");
        }
        let private: IpAddr = "10.9.9.9".parse().expect("an address");
        let metadata: IpAddr = "169.254.169.254".parse().expect("an address");
        assert!(listed.check_ip(private, Some("hooks.internal.")).is_ok());
        assert!(listed.check_ip(private, Some("hooks.example")).is_err());
        assert!(listed.check_ip(metadata, Some("hooks.internal")).is_err());
        assert!(egress(&["169.254.0.0/16"]).check_ip(metadata, None).is_ok());
    }

    #[test]
    fn a_list_that_makes_no_sense_is_refused() {
        for wrong in [
            "10.0.0.0/33",
            "10.0.0.0/x",
            "::1/129",
            "https://h/",
            "a b",
            "h:80",
            "-",
        ] {
            assert!(Egress::new(&[wrong.to_owned()], false).is_err(), "{wrong}");
        }
    }
}
