//! `Host` and `Origin`: what keeps web pages away from REST.
//!
//! A page that somebody visits can make their browser send requests to a server that only they reach. It
//! cannot make it leave out `Origin`, so a request whose origin is not the server itself is refused. The
//! key would stop it too; this stops it before.

use hyper::HeaderMap;
use hyper::header::{HOST, ORIGIN};
use hyper::http::uri::Authority;
use hyper::{Request, Version};

use crate::web::upgrade::one;

/// Whether the request names its host as RFC 9112 section 3.2 wants it: once, and in a form that makes
/// sense. HTTP/1.0 may leave it out.
pub(crate) fn host_is_sane<B>(request: &Request<B>) -> bool {
    if !request.headers().contains_key(HOST) {
        return request.version() < Version::HTTP_11;
    }
    let Some(host) = host(request.headers()) else { return false };
    // A request line with a whole URL must not say otherwise.
    request.uri().authority().is_none_or(|authority| authority.as_str().eq_ignore_ascii_case(host.as_str()))
}

/// Whether the request comes from no web page, or from one of this very server.
pub(crate) fn origin_is_ours(headers: &HeaderMap, tls: bool) -> bool {
    if !headers.contains_key(ORIGIN) {
        return true;
    }
    let (scheme, usual_port) = if tls { ("https", 443) } else { ("http", 80) };
    let Some(host) = host(headers) else { return false };
    let origin = one(headers, ORIGIN).and_then(|origin| origin.to_str().ok());
    let Some((origin_scheme, origin)) = origin.and_then(|origin| origin.split_once("://")) else {
        return false;
    };
    let Some(origin) = authority(origin) else { return false };
    let port = |authority: &Authority| authority.port_u16().unwrap_or(usual_port);
    origin_scheme.eq_ignore_ascii_case(scheme)
        && origin.host().eq_ignore_ascii_case(host.host())
        && port(&origin) == port(&host)
}

fn host(headers: &HeaderMap) -> Option<Authority> {
    authority(one(headers, HOST)?.to_str().ok()?)
}

/// A host, with or without a port, and nothing else.
fn authority(text: &str) -> Option<Authority> {
    let authority: Authority = text.parse().ok()?;
    let colon_without_port = authority.port().is_none() && authority.as_str().len() != authority.host().len();
    (!authority.host().is_empty() && !text.contains('@') && !colon_without_port).then_some(authority)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(host: &[&str]) -> Request<()> {
        let mut request = Request::new(());
        for host in host {
            request.headers_mut().append(HOST, host.parse().unwrap());
        }
        request
    }

    #[test]
    fn one_host_in_a_form_that_makes_sense_is_wanted() {
        for good in
            ["localhost", "localhost:27183", "192.0.2.1:1", "[2001:db8::1]:27183", "[::1]", "a.example"]
        {
            assert!(host_is_sane(&request(&[good])), "{good}");
        }
        for bad in ["", "a b", "user@host", "host:", "host:99999", "host:12x", "a/b", "http://host", "[::1"] {
            assert!(!host_is_sane(&request(&[bad])), "{bad}");
        }
        assert!(!host_is_sane(&request(&[])));
        assert!(!host_is_sane(&request(&["a", "a"])));
        let mut old = request(&[]);
        *old.version_mut() = Version::HTTP_10;
        assert!(host_is_sane(&old));
    }

    #[test]
    fn only_the_servers_own_origin_passes() {
        let passes = |host: &str, origin: &[&str], tls| {
            let mut request = request(&[host]);
            for origin in origin {
                request.headers_mut().append(ORIGIN, origin.parse().unwrap());
            }
            origin_is_ours(request.headers(), tls)
        };
        assert!(passes("server:27183", &[], true));
        assert!(passes("server:27183", &["https://server:27183"], true));
        assert!(passes("SERVER", &["https://server"], true));
        assert!(passes("server", &["https://server:443"], true));
        assert!(passes("[::1]:27183", &["http://[::1]:27183"], false));
        for foreign in [
            "http://server:27183",
            "https://server:27184",
            "https://server",
            "https://evil.example",
            "https://server:27183.evil.example",
            "https://server:27183@evil.example",
            "https://evil.example/server:27183",
            "null",
            "",
            "server:27183",
        ] {
            assert!(!passes("server:27183", &[foreign], true), "{foreign}");
        }
        assert!(!passes("server", &["https://server", "https://server"], true));
    }
}
