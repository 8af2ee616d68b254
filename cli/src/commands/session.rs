//! What a job did to its session, in words and as JSON.

use remora_client::proto::{Carried, SessionChange};
use serde_json::{Value, json};

use super::receipt::text;
use crate::printable::escape;

/// What became of the session, as `-v` tells it.
pub(super) fn told(change: &SessionChange) -> String {
    let name = escape(&change.name);
    let place = escape(&String::from_utf8_lossy(&change.working_directory));
    match change.carried() {
        Carried::Simulated => format!("session {name}: carried out by the host, no process; in {place}"),
        Carried::Captured => format!("session {name}: captured; now in {place}"),
        Carried::Unchanged => format!("session {name}: unchanged"),
        Carried::NotCaptured | Carried::Unspecified if change.note.is_empty() => {
            format!("session {name}: nothing was captured")
        }
        Carried::NotCaptured | Carried::Unspecified => {
            format!("session {name}: nothing was captured: {}", escape(&change.note))
        }
        Carried::Detached => format!("session {name}: detached; what the command changes is its own"),
        Carried::Lost => format!("session {name}: what the line changed is lost: {}", escape(&change.note)),
    }
}

/// What a person should know without having asked.
pub(super) fn loud_note(change: &SessionChange) -> Option<String> {
    (change.carried() == Carried::Lost).then(|| told(change))
}

/// The `session` of a receipt.
pub(super) fn object(change: &SessionChange) -> Value {
    json!({
        "name": change.name,
        "working_directory": text(&change.working_directory),
        "carried": match change.carried() {
            Carried::Simulated => "simulated",
            Carried::Captured => "captured",
            Carried::Unchanged => "unchanged",
            Carried::NotCaptured | Carried::Unspecified => "not-captured",
            Carried::Detached => "detached",
            Carried::Lost => "lost",
        },
        "note": (!change.note.is_empty()).then_some(&change.note),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_says_of_a_session_is_escaped() {
        let change = SessionChange {
            carried: Carried::Lost.into(),
            working_directory: b"/a\x1b[2J".to_vec(),
            note: "11 MiB\n".to_owned(),
            name: "build\u{1b}".to_owned(),
            ..SessionChange::default()
        };
        for text in [told(&change), loud_note(&change).unwrap()] {
            assert!(!text.chars().any(char::is_control), "{text:?}");
        }
        let change = SessionChange { carried: Carried::Captured.into(), ..change };
        assert!(!told(&change).contains('\u{1b}'));
        let quiet = SessionChange { note: "the line has a trap of its own".to_owned(), ..change };
        assert_eq!(loud_note(&quiet), None);
    }
}
