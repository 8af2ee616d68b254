//! Whose sessions they are, how many, and for how long.

use std::time::Duration;

use remora_engine::{SessionError, SessionName};
use remora_identity::{Authenticated, Permitted, Policy};

use super::common::Host;

fn named(name: &str, existing: bool) -> SessionName {
    SessionName { name: name.to_owned(), existing }
}

/// Another identity that may use the same account: here, root's.
fn other<R>(host: &Host, request: R) -> Permitted<R> {
    let who = Authenticated::without_proof(&host.account);
    Policy::serving(host.account.clone()).permit(&who, request).unwrap()
}

#[tokio::test]
async fn anothers_session_looks_absent() {
    let host = Host::new("/bin/bash");
    let sessions = host.engine.sessions();
    let mine = host.session("build");
    host.run(&mine, "cd /usr").await;
    let id = mine.info().id;
    for wanted in [id.as_str(), "0123456789abcdef0123456789abcdef"] {
        for existing in [false, true] {
            assert_eq!(
                sessions.open(other(&host, named(wanted, existing))).unwrap_err(),
                SessionError::Absent
            );
        }
        assert_eq!(sessions.end(other(&host, named(wanted, true))).unwrap_err(), SessionError::Absent);
    }
    assert_eq!(sessions.open(other(&host, named("build", true))).unwrap_err(), SessionError::Absent);
    assert_eq!(sessions.list(other(&host, ())), []);
    // The same name is another session.
    let (theirs, made) = sessions.open(other(&host, named("build", false))).unwrap();
    assert!(made && theirs != mine && theirs.working_directory() == host.home());
    // Its owner finds it by name and id.
    for wanted in ["build", &id] {
        assert_eq!(sessions.open(host.permit(named(wanted, true))).unwrap(), (mine.clone(), false));
    }
    assert_eq!(sessions.end(host.permit(named("build", true))).unwrap().id, id);
    assert_eq!(sessions.list(host.permit(())), []);
    assert_eq!(sessions.list(other(&host, ())).len(), 1);
}

#[tokio::test]
async fn they_are_bounded_in_number_and_forgotten_when_idle() {
    let host = Host::with("/bin/bash", |config| {
        config.sessions.per_owner = 2;
        config.sessions.idle = Duration::from_millis(200);
    });
    let sessions = host.engine.sessions();
    let first = host.session("one");
    host.session("two");
    let error = sessions.open(host.permit(named("three", false))).unwrap_err();
    assert_eq!(error, SessionError::TooMany(2));
    // One with a job isn't idle, however long that runs.
    let running = host.start(&first, "sleep 0.6").unwrap();
    remora_testkit::eventually_async(super::common::PATIENCE, "the idle one is forgotten", || {
        let names: Vec<String> = sessions.list(host.permit(())).into_iter().map(|info| info.name).collect();
        names == ["one"]
    })
    .await;
    running.collect().await;
    remora_testkit::eventually_async(super::common::PATIENCE, "and the other, once idle", || {
        sessions.list(host.permit(())).is_empty()
    })
    .await;
}

#[test]
fn names_are_plain() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let _inside = runtime.enter();
    let host = Host::new("/bin/bash");
    let long = "x".repeat(65);
    for name in ["", "-x", "a b", "a/b", "é", "a\n", &long] {
        let error = host.engine.sessions().open(host.permit(named(name, false))).unwrap_err();
        assert_eq!(error, SessionError::Name, "{name}");
    }
    assert!(host.engine.sessions().open(host.permit(named("a.B_c-9", false))).is_ok());
}
