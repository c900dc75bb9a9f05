//! REST: `/api/v1` on the signalling port.
//!
//! `health` is open to all. All else is served over TLS or to loopback, never to web pages, and needs the
//! admin key. The checks come in this order, and before a path is looked up: whoever has no key learns
//! nothing, not even which paths there are. What a call means is the control task's to decide
//! ([`AdminRequest`]); this file only reads and writes HTTP.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use futures_io::{AsyncRead, AsyncWrite};
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{HeaderMap, Request, StatusCode};
use inp2p_core::ids::{NodeName, PeerName, UserName};
use inp2p_core::server::io::{AdminReply, AdminRequest};
use inp2p_core::tunnel::AllowRule;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::json;

use crate::net::Net;
use crate::web::front::{Peer, Shared};
use crate::web::http::{Answer, BadBody, body, failure, json, json_text, typed};
use crate::web::identity::sender;
use crate::web::openapi::{self, MAX_FORWARD_NAME, MAX_RULE};
use crate::web::origin::{host_is_sane, origin_is_ours};
use crate::web::routes::{self, BASE, Match, Op};
use crate::web::upgrade::{self, Endpoint, one};

/// Answers one request.
pub(crate) async fn answer<N, S>(shared: Arc<Shared<N>>, peer: Peer, request: Request<Incoming>) -> Answer
where
    N: Net,
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if !host_is_sane(&request) {
        return bad_request("the Host header is missing, there twice, or no host").into();
    }
    let endpoint = match (request.uri().path(), &shared.relay) {
        (SIGNALLING, _) => Some(Endpoint::Signalling),
        (RELAY, Some(relay)) => Some(Endpoint::Relay(relay.clone())),
        _ => None,
    };
    if let Some(endpoint) = endpoint {
        return upgrade::answer::<N, S>(&shared, &peer, request, endpoint);
    }
    let path = request.uri().path().strip_prefix(BASE).filter(|path| path.starts_with('/'));
    let Some(found) = path.map(|path| routes::find(request.method(), path)) else {
        return not_found().into();
    };
    let open = matches!(&found, Match::Route(route, _) if route.open);
    if !open && let Err(refusal) = authorise(&shared, &peer, request.headers()) {
        return refusal.into();
    }
    match found {
        Match::Route(route, parameters) => {
            call(&shared, route.op, &parameters, request).await.unwrap_or_else(Answer::from)
        }
        Match::OtherMethods(allow) => {
            let message = format!("use {allow}");
            let mut answer = failure(StatusCode::METHOD_NOT_ALLOWED, "method-not-allowed", &message);
            if let Ok(allow) = HeaderValue::try_from(allow) {
                answer.headers_mut().insert(ALLOW, allow);
            }
            answer
        }
        Match::None => not_found().into(),
        Match::BadPath => bad_request("the path is not percent-encoded UTF-8").into(),
    }
}

/// Why a request is not carried out.
#[derive(Debug)]
struct Refusal {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// `WWW-Authenticate`, where the key would help.
    challenge: Option<&'static str>,
}

impl Refusal {
    fn new(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self { status, code, message: message.to_owned(), challenge: None }
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = failure(refusal.status, refusal.code, &refusal.message);
        if let Some(challenge) = refusal.challenge {
            answer.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
        }
        answer
    }
}

/// Whether a request may use what is not open to all.
fn authorise<N: Net>(shared: &Shared<N>, peer: &Peer, headers: &HeaderMap) -> Result<(), Refusal> {
    if !peer.tls && !sender(peer.address, headers, &shared.trusted_proxies).local {
        return Err(Refusal::new(
            StatusCode::FORBIDDEN,
            "tls-required",
            "only health is served without TLS: use https://, or call from the server's own machine",
        ));
    }
    if !origin_is_ours(headers, peer.tls) {
        return Err(Refusal::new(StatusCode::FORBIDDEN, "origin", "not for web pages of other sites"));
    }
    let (challenge, message) = match bearer(headers) {
        Some(key) if shared.admin_key.matches(key) => return Ok(()),
        Some(_) => ("Bearer error=\"invalid_token\"", "the admin key is wrong"),
        None => ("Bearer", "send `Authorization: Bearer KEY`, KEY being what admin.key holds"),
    };
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, "unauthorized", message);
    Err(Refusal { challenge: Some(challenge), ..refusal })
}

/// The credentials of RFC 6750 section 2.1.
fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let value = one(headers, AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked(BEARER.len())?;
    scheme.eq_ignore_ascii_case(BEARER).then(|| key.trim_ascii())
}

async fn call<N: Net>(
    shared: &Shared<N>,
    op: Op,
    parameters: &[String],
    request: Request<Incoming>,
) -> Result<Answer, Refusal> {
    let asked = match op {
        Op::Health => return Ok(health(shared)),
        Op::OpenApi => return Ok(json(StatusCode::OK, &openapi::document())),
        Op::Relays => AdminRequest::Relays,
        Op::Metrics => AdminRequest::Metrics,
        Op::Shares => AdminRequest::Shares,
        Op::PutShare => {
            let (user, node) = names(parameters)?;
            let to = to_user(parameters)?;
            let targets: Vec<AllowRule> = read_body(shared, request).await?;
            AdminRequest::Share { user, node, to, targets: Some(targets) }
        }
        Op::DeleteShare => {
            let (user, node) = names(parameters)?;
            AdminRequest::Share { user, node, to: to_user(parameters)?, targets: None }
        }
        Op::Nodes => AdminRequest::Nodes,
        Op::Node => {
            let (user, node) = names(parameters)?;
            AdminRequest::Node(user, node)
        }
        Op::ForgetKey => {
            let (user, node) = names(parameters)?;
            AdminRequest::ForgetKey(user, node)
        }
        Op::PutForward => {
            let (user, node) = names(parameters)?;
            let name = forward_name(parameters)?;
            let rule = Some(rule(shared, &name, request).await?);
            AdminRequest::PushForward { user, node, name, rule }
        }
        Op::DeleteForward => {
            let (user, node) = names(parameters)?;
            AdminRequest::PushForward { user, node, name: forward_name(parameters)?, rule: None }
        }
    };
    ask(shared, asked).await
}

/// Scripts compare it byte by byte, so it is not left to a serialiser's taste.
fn health<N: Net>(shared: &Shared<N>) -> Answer {
    let nodes = shared.online.load(Ordering::Relaxed);
    let version = env!("CARGO_PKG_VERSION");
    json_text(StatusCode::OK, format!(r#"{{"status":"ok","version":"{version}","nodes":{nodes}}}"#))
}

async fn ask<N: Net>(shared: &Shared<N>, request: AdminRequest) -> Result<Answer, Refusal> {
    match shared.admin.ask(&shared.net, request).await {
        Ok(AdminReply::Nodes(nodes)) => Ok(json(StatusCode::OK, &json!({ "nodes": nodes }))),
        Ok(AdminReply::Node(node)) => Ok(json(StatusCode::OK, &node)),
        Ok(AdminReply::Listening(listen)) => Ok(json(StatusCode::OK, &json!({ "listen": listen }))),
        Ok(AdminReply::Done) => Ok(json(StatusCode::OK, &json!({}))),
        Ok(AdminReply::Relays(relays)) => Ok(json(StatusCode::OK, &json!({ "relays": relays }))),
        Ok(AdminReply::Shares(shares)) => Ok(json(StatusCode::OK, &json!({ "shares": shares }))),
        Ok(AdminReply::Metrics(text)) => Ok(typed(StatusCode::OK, PROMETHEUS, text)),
        Err(error) => {
            let status = StatusCode::from_u16(error.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            Err(Refusal::new(status, error.code, &error.message))
        }
    }
}

/// The `{user}` and `{node}` of a path.
fn names(parameters: &[String]) -> Result<(UserName, NodeName), Refusal> {
    let [user, node, ..] = parameters else { return Err(not_found()) };
    let user = user.parse().map_err(|error| bad_request(&format!("user: {error}")))?;
    let node = node.parse().map_err(|error| bad_request(&format!("node: {error}")))?;
    Ok((user, node))
}

/// The `{to-user}` of a path, behind `{user}` and `{node}`.
fn to_user(parameters: &[String]) -> Result<UserName, Refusal> {
    let Some(name) = parameters.get(2) else { return Err(not_found()) };
    name.parse().map_err(|error| bad_request(&format!("to-user: {error}")))
}

/// The `{name}` of a path, behind `{user}` and `{node}`.
fn forward_name(parameters: &[String]) -> Result<String, Refusal> {
    let Some(name) = parameters.get(2) else { return Err(not_found()) };
    if !is_line(name, MAX_FORWARD_NAME) {
        return Err(bad_request("a forward's name is 1 to 256 bytes without control characters"));
    }
    Ok(name.clone())
}

/// A forward as a body describes it: in parts, with the keys of config.json, or as a rule.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forward {
    rule: Option<String>,
    listen: Option<String>,
    node: Option<PeerName>,
    target: Option<String>,
    protocol: Option<String>,
    name: Option<String>,
    enabled: Option<bool>,
}

/// The rule that a request's body asks for, in the syntax of `-forward`. Whether it is a rule that makes
/// sense is the node's to say, which knows its own policy too.
async fn rule<N: Net>(shared: &Shared<N>, name: &str, request: Request<Incoming>) -> Result<String, Refusal> {
    let forward: Forward = read_body(shared, request).await?;
    if forward.name.as_ref().is_some_and(|other| other != name) {
        return Err(bad_request("the body names another forward than the path"));
    }
    if forward.protocol.as_ref().is_some_and(|protocol| protocol != "tcp") {
        return Err(bad_request("the only protocol is tcp"));
    }
    if forward.enabled == Some(false) {
        return Err(bad_request("a forward that is not enabled is not pushed: DELETE takes it away"));
    }
    let rule = match (forward.rule, forward.listen, forward.node, forward.target) {
        (Some(rule), None, None, None) => rule,
        (None, Some(listen), Some(node), Some(target)) => format!("{listen}:{node}:{target}"),
        _ => return Err(bad_request("the body needs listen, node and target, or rule alone")),
    };
    if !is_line(&rule, MAX_RULE) {
        return Err(bad_request("a rule is 1 to 512 bytes without control characters"));
    }
    Ok(rule)
}

/// What a request's body says, in JSON.
async fn read_body<N: Net, T: DeserializeOwned>(
    shared: &Shared<N>,
    request: Request<Incoming>,
) -> Result<T, Refusal> {
    if !is_json(request.headers()) {
        return Err(Refusal::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "send `Content-Type: application/json`",
        ));
    }
    let content: Bytes = body(&shared.net, request.into_body()).await.map_err(|error| match error {
        BadBody::TooLong => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "too-large", "a body has at most 64 KiB")
        }
        BadBody::TooSlow => {
            Refusal::new(StatusCode::REQUEST_TIMEOUT, "timeout", "the body took more than 10 s")
        }
        BadBody::Broken => bad_request("the body was cut off"),
    })?;
    serde_json::from_slice(&content).map_err(|error| bad_request(&format!("the body: {error}")))
}

fn is_json(headers: &HeaderMap) -> bool {
    let value = one(headers, CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = value.split(';').next().unwrap_or_default();
    media_type.trim().eq_ignore_ascii_case("application/json")
}

/// One line of text that is safe in a log and in a file.
fn is_line(text: &str, longest: usize) -> bool {
    (1..=longest).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn bad_request(message: &str) -> Refusal {
    Refusal::new(StatusCode::BAD_REQUEST, "bad-request", message)
}

fn not_found() -> Refusal {
    Refusal::new(
        StatusCode::NOT_FOUND,
        "not-found",
        "there is nothing at this path: see /api/v1/openapi.json",
    )
}

/// The media type of Prometheus text.
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";
/// Where nodes log in.
const SIGNALLING: &str = "/ws";
/// The server's relay, inside a WebSocket.
const RELAY: &str = "/relay";
/// The scheme of RFC 6750, and the space behind it.
const BEARER: &[u8] = b"Bearer ";
