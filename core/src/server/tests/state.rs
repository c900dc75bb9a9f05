//! What the server keeps, and what it shows of it to the admin.

use super::super::io::{AdminReply, AdminRequest};
use super::*;

#[test]
fn rest_calls_show_nodes_and_forget_keys() {
    let mut world = World::new(1);
    let node = |node: &str| AdminRequest::Node(Default::default(), node.parse().unwrap());
    assert_eq!(world.ask_admin(AdminRequest::Nodes), Ok(AdminReply::Nodes(vec![])));
    assert_eq!(world.ask_admin(node("a")).unwrap_err().status, 404);
    let mut a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    world.request_raw(&mut a, &report(&[]));
    let Ok(AdminReply::Node(view)) = world.ask_admin(node("a")) else { panic!("no view") };
    assert_eq!((view.online, view.key.0), (true, key(1)));
    assert_eq!((view.remote.unwrap().ip().to_string(), view.since), (HERE.to_owned(), Some(1_700_000_022)));
    assert_eq!((view.software.as_deref(), view.platform.as_deref()), (Some("0.1.0"), Some("linux x86_64")));
    world.tell_server(Input::Closed { conn: a.0 });
    let Ok(AdminReply::Nodes(views)) = world.ask_admin(AdminRequest::Nodes) else { panic!("no views") };
    assert_eq!((views.len(), views[0].online, views[0].since), (1, false, Some(1_700_000_022)));
    assert_eq!((&views[0].remote, &views[0].software), (&None, &None));

    // Forgetting the key of a node that is there ends its connection.
    let a = world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let forget = || AdminRequest::ForgetKey(Default::default(), "a".parse().unwrap());
    assert_eq!(world.ask_admin(forget()), Ok(AdminReply::Done));
    assert_eq!(world.raw(a.0).closed, Some((4002, "the key was forgotten")));
    assert_eq!(world.ask_admin(forget()).unwrap_err().status, 404);
    assert!(world.log_in_raw(HERE, ("a", 9, TOKEN)).is_ok());
}

#[test]
fn pins_are_saved_at_once_and_then_once_a_second() {
    let mut world = World::new(1);
    world.log_in_raw(HERE, ("a", 1, TOKEN)).unwrap();
    let first = world.state.clone().unwrap();
    world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    world.log_in_raw(HERE, ("c", 3, TOKEN)).unwrap();
    assert_eq!(world.state, Some(first.clone()));
    world.run(secs(1));
    let second = world.state.clone().unwrap();
    assert!(second.len() > 2 * first.len());
    // Known nodes change nothing.
    world.state = None;
    world.log_in_raw(HERE, ("b", 2, TOKEN)).unwrap();
    world.run(secs(5));
    assert_eq!(world.state, None);
    // The end of the server waits for nothing.
    world.log_in_raw(HERE, ("d", 4, TOKEN)).unwrap();
    world.log_in_raw(HERE, ("e", 5, TOKEN)).unwrap();
    world.tell_server(Input::Shutdown);
    let text = String::from_utf8(world.state.clone().unwrap()).unwrap();
    assert!(text.contains(&key(5).to_string()), "{text}");
    assert_eq!(world.server().online(), 0);
}

#[test]
fn damaged_state_is_refused_with_advice() {
    let world = World::new(1);
    let good = format!(r#"{{"user":"default","node":"a","key":"{}"}}"#, key(1));
    let file = |nodes: &str| format!(r#"{{"version":1,"nodes":[{nodes}]}}"#);
    let load = |content: &str| pins::Pins::load(Some(content.as_bytes()));
    assert!(load(&file(&good)).is_ok());
    for content in [
        String::new(),
        "[]".to_owned(),
        file("7"),
        file(&good).replace("version\":1", "version\":2"),
        file(&format!("{good},{good}")),
        file(&format!("{good},{}", good.replace("\"a\"", "\"b\""))),
        file(&format!("{good},{}", good.replace(&key(1).to_string(), &key(2).to_string()))),
        file(&good.replace(&key(1).to_string(), "12")),
        file(&good.replace("\"a\"", "\"a b\"")),
    ] {
        let error = load(&content).unwrap_err().to_string();
        assert!(error.contains("nodes.json is damaged") && error.contains("backup"), "{error}");
    }
    drop(world);
}
