//! What is known of a job besides its process, as it is noted with its keeper: so that another server can go on with it.

use std::time::Duration;

use prost::Message;
use remora_engine::JobKey;
use remora_identity::Authenticated;
use remora_wire::limits;
use remora_wire::native::proto;

use crate::evidence::Evidence;
use crate::job::Subject;

/// Who a job belongs to: ids are scoped to the account and what it was logged in with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) user: String,
    /// What it was logged in with, by what tells it from all others.
    pub(crate) authority: String,
}

impl Owner {
    pub(crate) fn of(who: &Authenticated) -> Self {
        Owner { user: who.user().to_owned(), authority: who.authority().id() }
    }

    /// The key of one of its jobs: another owner's job of the same id has another.
    pub(crate) fn key(&self, id: &JobId) -> JobKey {
        let mut hasher = blake3::Hasher::new_derive_key("remora 2026-11 key of a job");
        for part in [self.user.as_bytes(), self.authority.as_bytes()] {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
        }
        let mut key = [0; 16];
        hasher.update(id).finalize_xof().fill(&mut key);
        JobKey(key)
    }
}

/// A job's id.
pub(crate) type JobId = [u8; limits::JOB_ID];

/// What doesn't change of a job.
#[derive(Clone, Debug)]
pub(crate) struct Record {
    pub(crate) owner: Owner,
    pub(crate) id: JobId,
    pub(crate) subject: Subject,
    /// BLAKE3 of the request (`request_digest`).
    pub(crate) request: [u8; 32],
    /// How long it is kept while nobody is attached.
    pub(crate) linger: Duration,
    /// Its start, as it is [`kept`].
    pub(crate) start: proto::Start,
    pub(crate) started_unix_ns: u64,
}

/// A record as bytes. Fields are only ever added.
#[derive(Clone, PartialEq, Message)]
struct Note {
    #[prost(string, tag = "1")]
    user: String,
    #[prost(string, tag = "2")]
    authority: String,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    request: Vec<u8>,
    #[prost(uint64, tag = "5")]
    linger_ms: u64,
    #[prost(bytes = "vec", tag = "6")]
    working_directory: Vec<u8>,
    /// The command and no more, where its receipt is to be signed.
    #[prost(message, optional, tag = "7")]
    to_sign: Option<proto::Start>,
    #[prost(message, optional, tag = "8")]
    start: Option<proto::Start>,
    #[prost(uint64, tag = "9")]
    started_unix_ns: u64,
}

impl Record {
    /// What is noted of it, where this is its start.
    pub(crate) fn note(&self, start: &proto::Start) -> Vec<u8> {
        let to_sign = start.sign_receipt.then(|| proto::Start {
            command: start.command.clone(),
            sign_receipt: true,
            ..proto::Start::default()
        });
        let note = Note {
            user: self.owner.user.clone(),
            authority: self.owner.authority.clone(),
            id: self.id.to_vec(),
            request: self.request.to_vec(),
            linger_ms: u64::try_from(self.linger.as_millis()).unwrap_or(u64::MAX),
            working_directory: self.subject.working_directory.clone(),
            to_sign,
            start: Some(self.start.clone()),
            started_unix_ns: self.started_unix_ns,
        };
        note.encode_to_vec()
    }

    /// The record of a note; none of one that makes no sense, or belongs to nobody who may ask.
    pub(crate) fn noted(note: &[u8]) -> Option<Self> {
        let note = Note::decode(note).ok().filter(|note| !note.user.is_empty())?;
        let subject = Subject {
            job_id: note.id.clone(),
            user: note.user.clone(),
            working_directory: note.working_directory,
            evidence: Evidence::new(&note.to_sign.unwrap_or_default()),
            boot_id: None,
            session: None,
        };
        Some(Record {
            owner: Owner { user: note.user, authority: note.authority },
            id: note.id.try_into().ok()?,
            subject,
            request: note.request.try_into().ok()?,
            linger: Duration::from_millis(note.linger_ms),
            start: note.start.unwrap_or_default(),
            started_unix_ns: note.started_unix_ns,
        })
    }
}

/// A start message without what may be secret or matters to its connection alone.
pub(crate) fn kept(start: &proto::Start) -> proto::Start {
    proto::Start { environment: Vec::new(), epoch: Vec::new(), resume: None, ..start.clone() }
}

/// What is the same in each repetition of a start.
pub(crate) fn request_digest(start: &proto::Start) -> [u8; 32] {
    let same = proto::Start { resume: None, epoch: Vec::new(), ..start.clone() };
    *blake3::hash(&same.encode_to_vec()).as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(sign_receipt: bool) -> (Record, proto::Start) {
        let owner = Owner { user: "root".to_owned(), authority: "uid 0".to_owned() };
        let command = Some(proto::start::Command::Line(b"ls \xff".to_vec()));
        let start = proto::Start { job_id: vec![7; 16], command, sign_receipt, ..proto::Start::default() };
        let subject = Subject {
            job_id: vec![7; 16],
            user: "root".to_owned(),
            working_directory: b"/a\xfe".to_vec(),
            evidence: Evidence::new(&start),
            boot_id: None,
            session: None,
        };
        let (id, request, linger) = ([7; 16], request_digest(&start), Duration::from_secs(600));
        let record = Record { owner, id, subject, request, linger, start: kept(&start), started_unix_ns: 5 };
        (record, start)
    }

    #[test]
    fn a_record_is_the_same_for_the_next_server() {
        for sign_receipt in [false, true] {
            let (record, start) = record(sign_receipt);
            let noted = Record::noted(&record.note(&start)).unwrap();
            assert_eq!(format!("{noted:?}"), format!("{record:?}"));
        }
        assert!(Record::noted(b"").is_none() && Record::noted(b"\xff").is_none());
    }

    /// What a damaged note says is taken or not, and never more than it says.
    #[test]
    fn no_bytes_of_a_note_are_a_panic_or_take_more_room_than_they_have() {
        for sign_receipt in [false, true] {
            let (record, start) = record(sign_receipt);
            let whole = record.note(&start);
            for bytes in remora_testkit::mutants(5, &whole, 20_000) {
                if let Some(noted) = Record::noted(&bytes) {
                    let size = noted.note(&noted.start).len();
                    // The id and the request are as long as they are; the command stands there twice.
                    assert!(size <= 2 * bytes.len() + 100, "{size} bytes of {bytes:?}");
                }
                if let Ok(note) = crate::detached::Note::decode(bytes.as_slice()) {
                    let _ = (note.owner(), note.subject(true));
                    assert!(note.encoded_len() <= 2 * bytes.len() + 100, "{bytes:?}");
                }
            }
        }
    }

    #[test]
    fn a_key_is_one_job_of_one_owner() {
        let (Record { owner, .. }, _) = record(false);
        let key = |user: &str, authority: &str, id| {
            Owner { user: user.to_owned(), authority: authority.to_owned() }.key(&id)
        };
        assert_eq!(owner.key(&[7; 16]), key("root", "uid 0", [7; 16]));
        for other in
            [key("roo", "tuid 0", [7; 16]), key("root", "uid 1", [7; 16]), key("root", "uid 0", [8; 16])]
        {
            assert_ne!(owner.key(&[7; 16]), other);
        }
    }
}
