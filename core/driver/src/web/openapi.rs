//! The description of REST in OpenAPI 3.1, made from the table of routes.

use inp2p_core::wire::message::MAX_TARGETS;
use serde_json::{Map, Value, json};

use crate::web::routes::{BASE, ROUTES, Route};

/// The document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| {
            let names =
                route.path.split('/').filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'));
            let parameters: Vec<_> = names.map(parameter).collect();
            if parameters.is_empty() { json!({}) } else { json!({ "parameters": parameters }) }
        });
        path[route.method.as_str().to_ascii_lowercase()] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "INP2P signalling server",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "All but health is served over TLS or to loopback only.",
        },
        "servers": [{ "url": BASE }],
        "security": [{ "adminKey": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "adminKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The 64 hexadecimal digits in admin.key of the server's data folder",
                },
            },
            "schemas": schemas(),
        },
    })
}

fn parameter(name: &str) -> Value {
    let schema = if name == "name" {
        json!({ "type": "string", "minLength": 1, "maxLength": MAX_FORWARD_NAME })
    } else {
        json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

fn operation(route: &Route) -> Value {
    let mut responses = Map::new();
    if let Some(schema) = route.success {
        let done =
            if schema == METRICS { text("Done as asked", schema) } else { content("Done as asked", schema) };
        responses.insert("200".to_owned(), done);
    }
    for status in statuses(route) {
        responses.insert(status.to_string(), content(meaning(status), "Error"));
    }
    let mut operation = json!({
        "operationId": route.id,
        "summary": route.summary,
        "responses": responses,
    });
    if route.open {
        operation["security"] = json!([]);
    }
    if let Some(schema) = route.body {
        operation["requestBody"] = content("", schema);
        operation["requestBody"]["required"] = json!(true);
        if let Some(body) = operation["requestBody"].as_object_mut() {
            body.remove("description");
        }
    }
    operation
}

/// The errors of a route: its own, and those that all have.
pub(crate) fn statuses(route: &Route) -> Vec<u16> {
    let mut all = vec![400];
    if !route.open {
        all.extend([401, 403]);
    }
    all.extend(route.errors);
    all.sort_unstable();
    all
}

fn meaning(status: u16) -> &'static str {
    match status {
        400 => "The request is not in order",
        401 => "The admin key is missing or wrong",
        403 => "Neither over TLS nor from loopback, or from a web page; or the node does not allow it",
        404 => "There is no such node, user or share, or the node has no such forward",
        408 => "The body did not come in time",
        409 => "The node is not online, or refused; or there are too many shares",
        413 => "The body is too long",
        415 => "The body is not application/json",
        501 => "Not built yet in the node",
        502 => "The node left, or its answer makes no sense",
        503 => "Too much to do, or stopping",
        504 => "No answer in time",
        _ => "Error",
    }
}

fn text(description: &str, schema: &str) -> Value {
    json!({
        "description": description,
        "content": { "text/plain": { "schema": reference(schema) } },
    })
}

fn content(description: &str, schema: &str) -> Value {
    json!({
        "description": description,
        "content": { "application/json": { "schema": reference(schema) } },
    })
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

fn schemas() -> Value {
    let name = json!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" });
    let optional_text = json!({ "type": ["string", "null"] });
    json!({
        "Health": object(&json!({
            "status": { "type": "string", "const": "ok" },
            "version": { "type": "string" },
            "nodes": { "type": "integer", "minimum": 0, "description": "Nodes that are online" },
        }), &["status", "version", "nodes"]),
        "OpenApi": { "type": "object" },
        "Node": object(&json!({
            "user": name,
            "node": name,
            "key": { "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "The pinned Ed25519 key" },
            "online": { "type": "boolean" },
            "remote": { "type": ["string", "null"], "description": "Address and port; null while offline" },
            "since": { "type": ["integer", "null"], "description": "Latest login, in seconds since 1970" },
            "software": optional_text,
            "platform": optional_text,
        }), &["user", "node", "key", "online", "remote", "since", "software", "platform"]),
        "Nodes": object(&json!({
            "nodes": { "type": "array", "items": reference("Node") },
        }), &["nodes"]),
        "Forward": {
            "description": "A forward, in parts as config.json has it, or as a rule in the syntax of -forward",
            "oneOf": [
                object(&json!({
                    "listen": { "type": "string", "description": "127.0.0.1:2222" },
                    "node": { "type": "string", "description": "nodeB, or NODE@USER" },
                    "target": { "type": "string", "description": "127.0.0.1:22" },
                    "protocol": { "type": "string", "const": "tcp" },
                    "name": { "type": "string", "description": "If there, the same as in the path" },
                    "enabled": { "type": "boolean", "const": true },
                }), &["listen", "node", "target"]),
                object(&json!({
                    "rule": { "type": "string", "description": "2222:nodeB:22", "maxLength": MAX_RULE },
                }), &["rule"]),
            ],
        },
        "Listening": object(&json!({
            "listen": { "type": "string", "description": "Where the node listens now" },
        }), &["listen"]),
        "Done": { "type": "object", "additionalProperties": false },
        "Relay": object(&json!({
            "user": name,
            "node": name,
            "key": { "type": "string", "pattern": "^[0-9a-f]{64}$", "description": "Its Ed25519 key" },
            "super": { "type": "boolean", "description": "Whether it serves all users" },
            "address": { "type": "string", "description": "Where the server looks for it" },
            "reachable": { "type": "boolean", "description": "If not, it is offered to nobody" },
            "reason": { "type": ["string", "null"], "description": "Why it is not reachable" },
            "rtt_ms": { "type": ["integer", "null"], "description": "How long it took to answer the server" },
            "limit_mbps": { "type": "integer", "minimum": 0, "description": "0 for no limit" },
            "sessions": { "type": "integer", "minimum": 0, "description": "Pairs, as it said last" },
            "mbps": { "type": "integer", "minimum": 0, "description": "What it carries, as it said last" },
            "bytes": { "type": "integer", "minimum": 0, "description": "Since it started, as it said last" },
            "stun": {
                "type": "array",
                "items": { "type": "string" },
                "description": "UDP addresses at which it answers STUN, as the server found",
            },
        }), &[
            "user", "node", "key", "super", "address", "reachable", "reason", "rtt_ms", "limit_mbps", "sessions",
            "mbps", "bytes", "stun",
        ]),
        "Relays": object(&json!({
            "relays": { "type": "array", "items": reference("Relay") },
        }), &["relays"]),
        "Share": object(&json!({
            "user": name,
            "node": name,
            "to": { "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$", "description": "Whose nodes may reach it" },
            "targets": reference("Targets"),
        }), &["user", "node", "to", "targets"]),
        "Shares": object(&json!({
            "shares": { "type": "array", "items": reference("Share") },
        }), &["shares"]),
        "Targets": {
            "type": "array",
            "maxItems": MAX_TARGETS,
            "items": { "type": "string", "description": "HOST-OR-CIDR:PORTS, like 127.0.0.1:22" },
        },
        "Metrics": { "type": "string", "description": "The text format of Prometheus, version 0.0.4" },
        "Error": object(&json!({
            "error": object(&json!({
                "code": { "type": "string", "description": "For programs" },
                "message": { "type": "string", "description": "For people" },
            }), &["code", "message"]),
        }), &["error"]),
    })
}

fn object(properties: &Value, required: &[&str]) -> Value {
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

/// The one schema that is no JSON.
const METRICS: &str = "Metrics";
/// The longest name of a forward: a rule's text is a usual one.
pub(crate) const MAX_FORWARD_NAME: usize = 256;
/// The longest rule: a bind address, `NODE@USER` and a host name of 253 characters fit.
pub(crate) const MAX_RULE: usize = 512;
