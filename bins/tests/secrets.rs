//! The token is on no wire, in no log, in no process list that it was kept out of.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed check panics")]

mod lab;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, Mutex};
use std::thread;

use lab::process::Program;
use lab::{Lab, connect, echo, target};

/// Every byte of it is another one, so that no encoding of it turns up by chance.
const TOKEN: u64 = 0xa1b2_c3d4_e5f6_0718;

/// What passed a proxy, both ways of all connections.
type Transcript = Arc<Mutex<Vec<Vec<u8>>>>;

/// A proxy before `server` that writes down everything.
fn recording_proxy(server: SocketAddr) -> (SocketAddr, Transcript) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let transcript = Transcript::default();
    let written = Arc::clone(&transcript);
    thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(server).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (from, to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                let written = Arc::clone(&written);
                thread::spawn(move || record(from, to, &written));
            }
        }
    });
    (address, transcript)
}

fn record(mut from: TcpStream, mut to: TcpStream, written: &Transcript) {
    let index = {
        let mut written = written.lock().unwrap();
        written.push(Vec::new());
        written.len() - 1
    };
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        written.lock().unwrap()[index].extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// Every form in which the token could be written, with a name for each.
fn encodings() -> Vec<(String, Vec<u8>)> {
    let decimal = TOKEN.to_string();
    let mut forms = vec![("decimal".to_owned(), decimal.clone().into_bytes())];
    for (order, bytes) in [("big-endian", TOKEN.to_be_bytes()), ("little-endian", TOKEN.to_le_bytes())] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        forms.push((order.to_owned(), bytes.to_vec()));
        forms.push((format!("{order} hex"), hex.clone().into_bytes()));
        forms.push((format!("{order} HEX"), hex.to_uppercase().into_bytes()));
        forms.extend(base64(&bytes).map(|form| (format!("{order} base64"), form)));
    }
    forms.extend(base64(decimal.as_bytes()).map(|form| ("decimal base64".to_owned(), form)));
    forms
}

/// Base64 of `bytes` at each of the three places in a longer text that it may begin at, without the
/// characters that depend on the neighbours; in the usual alphabet.
fn base64(bytes: &[u8]) -> [Vec<u8>; 3] {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    [0, 1, 2].map(|before| {
        let padded = [vec![0; before], bytes.to_vec()].concat();
        let whole = padded.len() / 3 * 3;
        let text: Vec<u8> = padded[..whole]
            .chunks(3)
            .flat_map(|three| {
                let bits = u32::from_be_bytes([0, three[0], three[1], three[2]]);
                [18, 12, 6, 0].map(|shift| ALPHABET[(bits >> shift) as usize & 63])
            })
            .collect();
        text[if before == 0 { 0 } else { 4 }..].to_vec()
    })
}

fn holds(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|window| window == needle)
}

#[test]
fn the_search_finds_what_is_there() {
    for (name, form) in encodings() {
        assert!(form.len() >= 4, "{name} is too short to mean anything");
        assert!(holds(&[b"before".to_vec(), form.clone(), b"after".to_vec()].concat(), &form));
    }
    let text = base64(b"\x00\x01\x02\x03\x04\x05");
    assert_eq!(text[0], b"AAECAwQF");
}

#[test]
fn a_token_is_on_no_wire_and_in_no_log() {
    let lab = Lab::new("secrets");
    let file = lab.file("token", TOKEN.to_string());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let file = file.display().to_string();
    let any = ["-stun-udp1", "0", "-stun-udp2", "0", "-stun-tcp1", "0", "-stun-tcp2", "0", "-ws-port", "0"];
    let own = ["-bind", "127.0.0.1", "-data", "d", "-token-file", &file, "-log-level", "trace"];
    let server = Program::start("inp2ps", lab.inp2ps(&[own.as_slice(), &any].concat()));
    let line = server.wait_for_log("inp2ps listens");
    let ws = line.split(" ws=").nth(1).and_then(|rest| rest.split(' ').next()).unwrap().parse().unwrap();

    let (proxy, transcript) = recording_proxy(ws);
    let node = |name: &str| {
        let flags = ["-insecure", "-token-file", &file, "-log-level", "trace", "-newconfig"];
        lab.node_at(&proxy, name).no_token().with(&flags)
    };
    let b = node("b").online();
    let a = node("a").forward("b", target::echo()).online();
    echo(&mut connect(a.listens()), b"through the forward").unwrap();
    // A login that fails shows no more than one that succeeds.
    let (code, _) = lab.node_at(&proxy, "c").token("4711").with(&["-insecure"]).refused();
    assert_eq!(code, 1);

    let transcript = transcript.lock().unwrap();
    assert!(
        transcript.len() >= 6 && transcript.iter().all(|bytes| !bytes.is_empty()),
        "nothing was recorded"
    );
    let mut places: Vec<(String, Vec<u8>)> = transcript
        .iter()
        .enumerate()
        .map(|(index, bytes)| (format!("stream {index}"), bytes.clone()))
        .collect();
    for (name, program) in [("server", &server), ("a", &a.program), ("b", &b.program)] {
        places.push((format!("log of {name}"), program.log().into_bytes()));
        places.push((format!("command line of {name}"), program.proc("cmdline").into_bytes()));
        places.push((format!("environment of {name}"), program.proc("environ").into_bytes()));
    }
    let (_, json) = inp2p_bins::client::status::fetch(&a.path("inp2pc.sock")).unwrap();
    places.push(("status".to_owned(), json.into_bytes()));
    places.push(("config.json".to_owned(), fs::read(a.path("config.json")).unwrap()));
    for (place, bytes) in &places {
        for (form, needle) in encodings() {
            assert!(!holds(bytes, &needle), "the token is in {place} as {form}");
        }
    }
}
