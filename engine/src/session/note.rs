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
