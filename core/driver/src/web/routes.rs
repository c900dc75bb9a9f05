//! The routes of REST: one table, which answers requests (`rest`) and describes itself (`openapi`), so
//! that what is documented and what is served cannot differ.

use hyper::Method;

/// All routes are below this.
pub(crate) const BASE: &str = "/api/v1";

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Op {
    Health,
    OpenApi,
    Nodes,
    Node,
    PutForward,
    DeleteForward,
    ForgetKey,
    Shares,
    PutShare,
    DeleteShare,
    Relays,
    Metrics,
}

/// One route.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) op: Op,
    pub(crate) method: Method,
    /// Below [`BASE`]; `{name}` takes one segment.
    pub(crate) path: &'static str,
    /// Whether everybody may use it, over anything.
    pub(crate) open: bool,
    /// Its `operationId`.
    pub(crate) id: &'static str,
    pub(crate) summary: &'static str,
    /// The schema of the body that it takes.
    pub(crate) body: Option<&'static str>,
    /// The schema of what a success brings.
    pub(crate) success: Option<&'static str>,
    /// The errors that are its own.
    pub(crate) errors: &'static [u16],
}

/// The whole interface.
pub(crate) const ROUTES: &[Route] = &[
    Route {
        op: Op::Health,
        method: Method::GET,
        path: "/health",
        open: true,
        id: "health",
        summary: "Whether the server is up, and how many nodes are online",
        body: None,
        success: Some("Health"),
        errors: &[],
    },
    Route {
        op: Op::OpenApi,
        method: Method::GET,
        path: "/openapi.json",
        open: false,
        id: "openapi",
        summary: "This description",
        body: None,
        success: Some("OpenApi"),
        errors: &[],
    },
    Route {
        op: Op::Nodes,
        method: Method::GET,
        path: "/nodes",
        open: false,
        id: "nodes",
        summary: "All nodes that are online or have a key pinned",
        body: None,
        success: Some("Nodes"),
        errors: &[503, 504],
    },
    Route {
        op: Op::Node,
        method: Method::GET,
        path: "/nodes/{user}/{node}",
        open: false,
        id: "node",
        summary: "One node",
        body: None,
        success: Some("Node"),
        errors: &[404, 503, 504],
    },
    Route {
        op: Op::PutForward,
        method: Method::PUT,
        path: "/nodes/{user}/{node}/forwards/{name}",
        open: false,
        id: "putForward",
        summary: "Push a forward to a node; the node's answer is the response",
        body: Some("Forward"),
        success: Some("Listening"),
        errors: &[404, 408, 409, 413, 415, 501, 502, 503, 504],
    },
    Route {
        op: Op::DeleteForward,
        method: Method::DELETE,
        path: "/nodes/{user}/{node}/forwards/{name}",
        open: false,
        id: "deleteForward",
        summary: "Take a pushed forward away from a node",
        body: None,
        success: Some("Done"),
        errors: &[404, 409, 501, 502, 503, 504],
    },
    Route {
        op: Op::ForgetKey,
        method: Method::DELETE,
        path: "/nodes/{user}/{node}/key",
        open: false,
        id: "forgetKey",
        summary: "Forget a node's pinned key, so that the name can be taken by another",
        body: None,
        success: Some("Done"),
        errors: &[404, 503, 504],
    },
    Route {
        op: Op::PutShare,
        method: Method::PUT,
        path: "/shares/{user}/{node}/{to-user}",
        open: false,
        id: "putShare",
        summary: "Share a node with another user, for these targets and no others",
        body: Some("Targets"),
        success: Some("Done"),
        errors: &[404, 408, 409, 413, 415, 503, 504],
    },
    Route {
        op: Op::Shares,
        method: Method::GET,
        path: "/shares",
        open: false,
        id: "shares",
        summary: "Which nodes are shared with which users, and for which targets",
        body: None,
        success: Some("Shares"),
        errors: &[503, 504],
    },
    Route {
        op: Op::DeleteShare,
        method: Method::DELETE,
        path: "/shares/{user}/{node}/{to-user}",
        open: false,
        id: "deleteShare",
        summary: "Stop sharing a node with another user; its streams end at once",
        body: None,
        success: Some("Done"),
        errors: &[404, 503, 504],
    },
    Route {
        op: Op::Relays,
        method: Method::GET,
        path: "/relays",
        open: false,
        id: "relays",
        summary: "The nodes that serve as relays",
        body: None,
        success: Some("Relays"),
        errors: &[503, 504],
    },
    Route {
        op: Op::Metrics,
        method: Method::GET,
        path: "/metrics",
        open: false,
        id: "metrics",
        summary: "Figures for Prometheus",
        body: None,
        success: Some("Metrics"),
        errors: &[503, 504],
    },
];

/// What the table says of a request.
#[derive(Debug)]
pub(crate) enum Match {
    /// The route, and what stands for the `{names}` of its path, in their order.
    Route(&'static Route, Vec<String>),
    /// The path is one, but not with this method; those that it has, as `Allow` lists them.
    OtherMethods(String),
    /// No such path.
    None,
    /// A segment of the path cannot be decoded.
    BadPath,
}

/// Looks a path up, which is taken below [`BASE`] and still percent-encoded.
pub(crate) fn find(method: &Method, path: &str) -> Match {
    let mut segments = Vec::new();
    for segment in path.strip_prefix('/').unwrap_or(path).split('/').take(MAX_SEGMENTS + 1) {
        let Some(segment) = percent_decode(segment) else { return Match::BadPath };
        segments.push(segment);
    }
    // A body that is not wanted is left out by hyper.
    let wanted = if method == Method::HEAD { &Method::GET } else { method };
    let mut others = Vec::new();
    for route in ROUTES {
        let Some(parameters) = parameters(route.path, &segments) else { continue };
        if route.method == wanted {
            return Match::Route(route, parameters);
        }
        others.push(route.method.as_str());
        if route.method == Method::GET {
            others.push("HEAD");
        }
    }
    if others.is_empty() { Match::None } else { Match::OtherMethods(others.join(", ")) }
}

fn parameters(template: &str, segments: &[String]) -> Option<Vec<String>> {
    let template = template.strip_prefix('/').unwrap_or(template);
    if template.split('/').count() != segments.len() {
        return None;
    }
    let mut parameters = Vec::new();
    for (expected, segment) in template.split('/').zip(segments) {
        if expected.starts_with('{') {
            parameters.push(segment.clone());
        } else if expected != segment {
            return None;
        }
    }
    Some(parameters)
}

/// Percent-decoding (RFC 3986 section 2.1) of one path segment. A plus is a plus. None where an escape is
/// no escape, or the bytes are not UTF-8.
fn percent_decode(segment: &str) -> Option<String> {
    let mut decoded = Vec::with_capacity(segment.len());
    let mut bytes = segment.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            decoded.push(byte);
            continue;
        }
        let high = char::from(bytes.next()?).to_digit(16)?;
        let low = char::from(bytes.next()?).to_digit(16)?;
        decoded.push(u8::try_from(high * 16 + low).ok()?);
    }
    String::from_utf8(decoded).ok()
}

/// The longest path has five; a path of thousands is not worth decoding to its end.
const MAX_SEGMENTS: usize = 8;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(method: Method, path: &str) -> Option<(Op, Vec<String>)> {
        match find(&method, path) {
            Match::Route(route, parameters) => Some((route.op, parameters)),
            Match::OtherMethods(_) | Match::None | Match::BadPath => None,
        }
    }

    #[test]
    fn segments_are_decoded_after_they_are_split() {
        let found =
            found(Method::PUT, "/nodes/default/nodeA/forwards/127.0.0.1%3A80%2Fa%20b%C3%A9+").unwrap();
        assert_eq!(
            found,
            (Op::PutForward, vec!["default".into(), "nodeA".into(), "127.0.0.1:80/a bé+".into()])
        );
    }

    #[test]
    fn an_encoded_slash_makes_no_segment() {
        assert!(matches!(find(&Method::GET, "/nodes%2Fdefault%2FnodeA"), Match::None));
    }

    #[test]
    fn a_bad_escape_is_a_bad_path() {
        for bad in ["/nodes/%", "/nodes/%4", "/nodes/%zz/a", "/nodes/%ff/a", "/nodes/%+1/a"] {
            assert!(matches!(find(&Method::GET, bad), Match::BadPath), "{bad}");
        }
    }

    #[test]
    fn a_path_without_the_method_lists_those_it_has() {
        let Match::OtherMethods(allow) = find(&Method::POST, "/nodes") else { panic!() };
        assert_eq!(allow, "GET, HEAD");
        let Match::OtherMethods(allow) = find(&Method::GET, "/nodes/a/b/forwards/c") else { panic!() };
        assert_eq!(allow, "PUT, DELETE");
    }

    #[test]
    fn nothing_else_is_found() {
        for path in ["", "/", "/node", "/nodes/", "/nodes/a", "/nodes/a/b/c", "//nodes", "/Nodes"] {
            assert!(matches!(find(&Method::GET, path), Match::None), "{path}");
        }
        assert!(matches!(find(&Method::GET, &"/nodes".repeat(10_000)), Match::None));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(text in "\\PC{0,40}") {
            let encoded: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
            prop_assert_eq!(percent_decode(&encoded), Some(text));
        }

        #[test]
        fn any_text_decodes_or_is_refused(text in "\\PC*") {
            let _ = find(&Method::GET, &text);
        }
    }
}
