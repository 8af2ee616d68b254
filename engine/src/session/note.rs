//! What is noted of a session's job with its keeper, so that another server can merge what it changes.

use super::Sessions;
use super::dialect::Dialect;
use super::running::{Ear, Means, Running};
use super::store::{state_fields, state_of};
use crate::keeping::JobKey;
use crate::keeping::fields::{Fields, Found};

const DIALECTS: [Dialect; 5] = [Dialect::Bash, Dialect::Dash, Dialect::Zsh, Dialect::Fish, Dialect::Other];

fn number_of(dialect: Dialect) -> u64 {
    match dialect {
        Dialect::Bash => 1,
        Dialect::Dash => 2,
        Dialect::Zsh => 3,
        Dialect::Fish => 4,
        Dialect::Other => 5,
    }
}

impl Running {
    /// What another server needs to settle this job.
    pub(crate) fn note(&self) -> Vec<u8> {
        let fields =
            Fields::new().bytes(1, self.session.info().id.as_bytes()).nested(2, state_fields(&self.before));
        let fields = match &self.means {
            Means::Program => fields.number(3, 1),
            Means::Told { dialect, may_exit, .. } => {
                fields.number(3, 2).number(4, number_of(*dialect)).flag(5, *may_exit)
            }
            Means::Untold => fields.number(3, 3),
            Means::Lost(why) => fields.number(3, 4).bytes(6, why.as_bytes()),
        };
        fields.into_bytes()
    }

    /// The job of a note; none where its session is no more.
    pub(crate) fn noted(note: &[u8], key: JobKey, sessions: &Sessions) -> Option<Self> {
        let found = Found::parse(note)?;
        let session = sessions.by_id(std::str::from_utf8(found.bytes(1)).ok()?)?;
        let before = state_of(found.nested(2)?)?;
        let means = match found.number(3) {
            1 => Means::Program,
            2 => Means::Told {
                ear: Ear::Keeper,
                dialect: DIALECTS.into_iter().find(|dialect| number_of(*dialect) == found.number(4))?,
                may_exit: found.flag(5),
            },
            3 => Means::Untold,
            4 => Means::Lost(String::from_utf8(found.bytes(6).to_vec()).ok()?),
            _ => return None,
        };
        session.begin_job();
        Some(Running { session, key: Some(key), before, means })
    }
}

#[cfg(test)]
mod tests {
    use super::super::state::tests::state;
    use super::super::store::tests::saved;
    use super::super::{SessionLimits, store::Store};
    use super::*;
    use crate::config::BaseEnvironment;

    #[test]
    fn no_bytes_of_a_note_are_a_panic_or_take_more_room_than_they_have() {
        let root = tempfile::tempdir().unwrap();
        let (folder, saved) = (root.path().join("sessions"), saved());
        Store::open(folder.clone()).unwrap().write(&saved.id, &saved.compose()).unwrap();
        let sessions = Sessions::kept(BaseEnvironment::default(), SessionLimits::default(), folder).unwrap();
        let key = JobKey([1; 16]);
        let before = state("/a\nb", &[("A", "1"), ("EMPTY", "")]);
        let mut count = 0;
        for means in 1..=4 {
            let whole = Fields::new()
                .bytes(1, saved.id.as_bytes())
                .nested(2, state_fields(&before))
                .number(3, means)
                .number(4, 3)
                .flag(5, true)
                .bytes(6, b"why")
                .into_bytes();
            assert!(Running::noted(&whole, key, &sessions).is_some());
            for bytes in remora_testkit::mutants(means, &whole, 20_000) {
                if let Some(running) = Running::noted(&bytes, key, &sessions) {
                    let size = running.note().len();
                    assert!(size <= bytes.len() + 100, "{size} bytes of {bytes:?}");
                    count += 1;
                }
            }
        }
        assert!(count > 1000, "only {count} made sense");
    }
}
