//! What this server notes of a detached job in the job's folder, so that each later one knows whose it is and what it tells of it.

use prost::Message;
use remora_wire::native::proto;

use crate::job::Subject;
pub(crate) use crate::record::Owner;

/// The note, as it is written. Numbers of fields are never used anew.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Note {
    /// Its owner: the account, and what they logged in with.
    #[prost(string, tag = "1")]
    pub(crate) user: String,
    #[prost(string, tag = "2")]
    pub(crate) authority: String,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) id: Vec<u8>,
    #[prost(string, tag = "4")]
    pub(crate) name: String,
    /// The start message, without what may be secret or matters to its connection alone.
    #[prost(message, optional, tag = "5")]
    pub(crate) start: Option<proto::Start>,
    #[prost(bytes = "vec", tag = "6")]
    pub(crate) working_directory: Vec<u8>,
    /// BLAKE3 of the request.
    #[prost(bytes = "vec", tag = "7")]
    pub(crate) request: Vec<u8>,
    #[prost(uint64, tag = "8")]
    pub(crate) started_unix_ns: u64,
    #[prost(uint64, tag = "9")]
    pub(crate) pid: u64,
    /// The boot that it was started in.
    #[prost(bytes = "vec", tag = "10")]
    pub(crate) boot_id: Vec<u8>,
    /// Its session, as that was when the job was started or detached.
    #[prost(message, optional, tag = "11")]
    pub(crate) session: Option<proto::SessionChange>,
}

impl Note {
    pub(crate) fn new(
        owner: &Owner,
        start: &proto::Start,
        request: [u8; 32],
        subject: &Subject,
        boot_id: [u8; 16],
    ) -> Self {
        Note {
            user: owner.user.clone(),
            authority: owner.authority.clone(),
            id: start.job_id.clone(),
            name: start.detach.as_ref().map(|detach| detach.name.clone()).unwrap_or_default(),
            start: Some(crate::record::kept(start)),
            working_directory: subject.working_directory.clone(),
            request: request.to_vec(),
            started_unix_ns: crate::job::unix_ns(std::time::SystemTime::now()),
            pid: 0,
            boot_id: boot_id.to_vec(),
            session: subject.session.clone(),
        }
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner { user: self.user.clone(), authority: self.authority.clone() }
    }

    /// What its receipt says besides its end; `is_signed` by who asks for it, and by that alone.
    pub(crate) fn subject(&self, is_signed: bool) -> Subject {
        let command = self.start.as_ref().and_then(|start| start.command.clone());
        let start = proto::Start { command, sign_receipt: is_signed, ..proto::Start::default() };
        Subject {
            job_id: self.id.clone(),
            user: self.user.clone(),
            working_directory: self.working_directory.clone(),
            evidence: crate::evidence::Evidence::new(&start),
            boot_id: self.boot_id.as_slice().try_into().ok(),
            session: self.session.clone(),
        }
    }
}
