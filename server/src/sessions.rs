//! Translates between the wire's messages about sessions and the engine's, and answers the questions that need no job.

use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::sync::Arc;

use remora_engine::{Carried, Session, SessionChange, SessionError, SessionInfo, SessionName, Wanted};
use remora_identity::Authenticated;
use remora_wire::limits;
use remora_wire::native::proto;

use crate::job;
use crate::settings::Settings;

/// What becomes of a question.
pub(crate) enum Replied {
    /// It is answered.
    Now(proto::answer::Answer),
    /// The file system must be asked, which may take its time.
    Later(Box<dyn FnOnce() -> proto::answer::Answer + Send>),
}

/// Answers a question, or says how to.
pub(crate) fn reply(ask: &proto::Ask, who: &Authenticated, settings: &Settings) -> Replied {
    match try_reply(ask, who, settings) {
        Ok(replied) => replied,
        Err(why) => Replied::Now(proto::answer::Answer::Refused(why)),
    }
}

fn try_reply(
    ask: &proto::Ask,
    who: &Authenticated,
    settings: &Settings,
) -> Result<Replied, proto::NotStarted> {
    let sessions = settings.engine.sessions();
    let list = |list: Vec<proto::SessionInfo>| {
        Ok(Replied::Now(proto::answer::Answer::Sessions(proto::SessionList { sessions: list })))
    };
    match &ask.question {
        Some(proto::ask::Question::OpenSession(open)) => {
            let (session, made) = find(open.session.as_ref(), who, settings)?;
            list(vec![info(&session.info(), settings, made)])
        }
        Some(proto::ask::Question::ListSessions(_)) => {
            let permitted = settings.policy.permit(who, ()).map_err(|refusal| job::refused(&refusal))?;
            list(sessions.list(permitted).iter().map(|one| info(one, settings, false)).collect())
        }
        Some(proto::ask::Question::EndSession(end)) => {
            let wanted = name(end.session.as_ref())?;
            let permitted = settings.policy.permit(who, wanted).map_err(|refusal| job::refused(&refusal))?;
            let ended = sessions.end(permitted).map_err(|error| absent(&error))?;
            list(vec![info(&ended, settings, false)])
        }
        Some(proto::ask::Question::Complete(complete)) => {
            let (session, _) = find(complete.session.as_ref(), who, settings)?;
            let wanted = match complete.kind() {
                proto::CompletionKind::Directory => Wanted::Directory,
                proto::CompletionKind::Command => Wanted::Command,
                proto::CompletionKind::Variable => Wanted::Variable,
                proto::CompletionKind::Path | proto::CompletionKind::Unspecified => Wanted::Path,
            };
            let full =
                || job::unsuitable(proto::NotStartedClass::HostFull, "too many completions are looked for");
            let permit = Arc::clone(&settings.completions).try_acquire_owned().map_err(|_| full())?;
            let shell = settings.policy.served().shell.clone();
            let word = complete.word.clone();
            Ok(Replied::Later(Box::new(move || {
                let found = session.complete(wanted, &word, &shell);
                drop(permit);
                let completions = proto::Completions { words: found.words, more: found.more };
                proto::answer::Answer::Completions(completions)
            })))
        }
        // Those about jobs are answered elsewhere.
        _ => {
            let text = "this host knows no answer to that";
            Err(job::unsuitable(proto::NotStartedClass::Incompatible, text))
        }
    }
}

/// The session that a message names, and whether it was made.
pub(crate) fn find(
    wanted: Option<&proto::SessionName>,
    who: &Authenticated,
    settings: &Settings,
) -> Result<(Session, bool), proto::NotStarted> {
    let permitted = settings.policy.permit(who, name(wanted)?).map_err(|refusal| job::refused(&refusal))?;
    settings.engine.sessions().open(permitted).map_err(|error| absent(&error))
}

fn name(wanted: Option<&proto::SessionName>) -> Result<SessionName, proto::NotStarted> {
    let wanted = wanted.filter(|wanted| wanted.name.len() <= limits::SESSION_NAME);
    let wanted = wanted.ok_or_else(|| absent(&SessionError::Name))?;
    Ok(SessionName { name: wanted.name.clone(), existing: wanted.existing })
}

fn absent(error: &SessionError) -> proto::NotStarted {
    let class = match error {
        SessionError::Absent => proto::NotStartedClass::Refused,
        SessionError::TooMany(_) => proto::NotStartedClass::HostFull,
        SessionError::Name => proto::NotStartedClass::Incompatible,
        _ => proto::NotStartedClass::Internal,
    };
    proto::NotStarted { step: "session".to_owned(), ..job::unsuitable(class, &error.to_string()) }
}

fn info(info: &SessionInfo, settings: &Settings, made: bool) -> proto::SessionInfo {
    let account = settings.policy.served();
    proto::SessionInfo {
        id: info.id.clone(),
        name: info.name.clone(),
        working_directory: info.working_directory.as_os_str().as_bytes().to_vec(),
        home: account.home.as_os_str().as_bytes().to_vec(),
        shell: account.shell.as_os_str().as_bytes().to_vec(),
        created_unix_ns: job::unix_ns(info.created),
        used_unix_ns: job::unix_ns(info.used),
        jobs: u32::try_from(info.jobs).unwrap_or(u32::MAX),
        made,
    }
}

/// What is told of a session to a job that is detached: where it was then, and that what the job changes is its own.
pub(crate) fn apart(session: &Session) -> proto::SessionChange {
    proto::SessionChange {
        carried: proto::Carried::Detached as i32,
        working_directory: session.working_directory().into_os_string().into_vec(),
        name: session.name().to_owned(),
        ..proto::SessionChange::default()
    }
}

/// What a job did to its session, for its receipt.
pub(crate) fn change(change: &SessionChange) -> proto::SessionChange {
    let carried = match change.carried {
        Carried::Simulated => proto::Carried::Simulated,
        Carried::Captured => proto::Carried::Captured,
        Carried::Unchanged => proto::Carried::Unchanged,
        Carried::NotCaptured => proto::Carried::NotCaptured,
        Carried::Lost => proto::Carried::Lost,
    };
    proto::SessionChange {
        carried: carried as i32,
        working_directory: change.working_directory.clone().into_os_string().into_vec(),
        left: change.left,
        note: change.note.clone(),
        name: change.name.clone(),
    }
}
