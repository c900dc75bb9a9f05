use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use super::Config;
use crate::failure::Failure;

/// A file in a folder of its own, which is removed with it.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str, content: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("inp2p-config-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        let scratch = Self(folder);
        fs::write(scratch.path(), content).unwrap();
        fs::set_permissions(scratch.path(), fs::Permissions::from_mode(0o600)).unwrap();
        scratch
    }

    fn path(&self) -> PathBuf {
        self.0.join("config.json")
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const WHOLE: &str = r#"{
  "server": {"host": "example.org", "port": 27183, "insecure": false, "ca": null, "key": null},
  "node": "nodeA",
  "token": "12345678",
  "relay": {"enabled": true, "super": false, "port": 27185, "bandwidth_mbps": 10},
  "forwards": [{"name": "ssh", "listen": "127.0.0.1:2222", "node": "nodeB", "target": "127.0.0.1:22",
                "protocol": "tcp", "enabled": true}],
  "allow": ["127.0.0.0/8:*"],
  "rungs": ["tcp-direct"]
}"#;

fn load(name: &str, content: &str) -> Result<Config, Failure> {
    let scratch = Scratch::new(name, content);
    Config::load(&scratch.path()).map(Option::unwrap_or_default)
}

/// The refusal without the path.
fn refusal(name: &str, content: &str) -> String {
    match load(name, content) {
        Err(Failure::Usage(text)) => {
            text.split_once("config.json, ").map(|(_, rest)| rest.to_owned()).unwrap_or(text)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_documented_file_is_read() {
    let page = include_str!("../../../docs/deployment.md");
    let (_, block) = page.split_once("```json\n").unwrap();
    let (file, _) = block.split_once("```").unwrap();
    let config = load("documented", file).unwrap();
    assert_eq!(config.server.host.as_deref(), Some("your-server.com"));
    assert_eq!(config.relay.enabled, Some(true));
    let forwards = config.forwards();
    assert_eq!(forwards[0].name, "ssh");
    assert_eq!(forwards[0].listen.port(), 2222);
    assert_eq!(forwards[0].target, "127.0.0.1:22");
}

#[test]
fn what_is_written_is_read_again_as_it_was() {
    let config = load("again", WHOLE).unwrap();
    let scratch = Scratch::new("written", "");
    config.save(&scratch.path()).unwrap();
    assert_eq!(Config::load(&scratch.path()).unwrap().unwrap(), config);
    let mode = fs::metadata(scratch.path()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert!(fs::read_to_string(scratch.path()).unwrap().contains("\"token\": \"12345678\""));
}

#[test]
fn a_token_may_be_a_number() {
    let number = load("number", r#"{"token": 12345678}"#).unwrap();
    assert_eq!(number.token, load("string", r#"{"token": "12345678"}"#).unwrap().token);
}

#[test]
fn no_error_repeats_a_token() {
    for (name, content) in [
        ("t1", r#"{"token": "12345678x"}"#),
        ("t2", r#"{"token": -12345678}"#),
        ("t3", r#"{"token": 12345678.5}"#),
        ("t4", r#"{"token": 1234567812345678123456781234567812345678}"#),
        ("t5", r#"{"token": ["12345678"]}"#),
        ("t6", r#"{"token": {"12345678": 1}}"#),
        ("t7", r#"{"token": 0}"#),
        ("t8", r#"{"token": "12345678}"#),
    ] {
        let text = refusal(name, content);
        assert!(!text.contains("12345678"), "{content}: {text}");
        assert!(text.starts_with("line 1, column "), "{content}: {text}");
    }
}

#[test]
fn an_unknown_key_is_named_with_its_line() {
    let text = refusal("unknown", "{\n  \"node\": \"a\",\n  \"tokn\": \"1\"\n}");
    assert!(text.starts_with("line 3, column 8: unknown key `tokn`"), "{text}");
    let text = refusal("inner", "{\n  \"server\": {\n    \"hots\": \"x\"}}");
    assert!(text.starts_with("line 3, column 10: unknown key `hots`"), "{text}");
    let text = refusal("forward", "{\"forwards\": [\n{\"listen\": \"127.0.0.1:1\", \"nod\": \"b\"}]}");
    assert!(text.starts_with("line 2, column "), "{text}");
}

#[test]
fn a_key_given_twice_is_an_error() {
    let text = refusal("twice", "{\"node\": \"a\",\n \"node\": \"b\"}");
    assert!(text.starts_with("line 2, column 7: duplicate key `node`"), "{text}");
}

#[test]
fn values_are_checked_where_they_stand() {
    for (name, content) in [
        ("v1", "{\n\"node\": \"a b\"}"),
        ("v2", "{\n\"rungs\": [\"carrier-pigeon\"]}"),
        ("v3", "{\n\"server\": {\"port\": 65536}}"),
        ("v4", "{\n\"server\": {\"key\": \"00\"}}"),
        ("v5", "{\n\"forwards\": [{\"listen\": \"here\", \"node\": \"b\", \"target\": \"127.0.0.1:1\"}]}"),
        (
            "v6",
            "{\n\"forwards\": [{\"listen\": \"127.0.0.1:1\", \"node\": \"b\", \"target\": \"127.0.0.1\"}]}",
        ),
        ("v7", "{\n\"allow\": [\"10.0.0.0/33:*\"]}"),
        ("v8", "{\n\"node\": \"a\""),
        ("v9", "{\n}{"),
    ] {
        let text = refusal(name, content);
        assert!(text.starts_with("line 2, column "), "{content}: {text}");
    }
}

#[test]
fn an_empty_file_is_malformed_and_a_missing_one_is_none() {
    assert!(refusal("empty", "").starts_with("line 1, column 0: "));
    assert_eq!(Config::load(&std::env::temp_dir().join("inp2p-there-is-none/config.json")), Ok(None));
}

#[test]
fn a_folder_is_no_file() {
    let scratch = Scratch::new("folder", "");
    assert!(matches!(Config::load(&scratch.0), Err(Failure::Usage(text)) if text.starts_with("cannot read")));
}
