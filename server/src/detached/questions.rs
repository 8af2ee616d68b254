//! Questions about detached jobs, and what is asked of them.

use std::sync::Arc;
use std::time::Duration;

use remora_engine::{EndReason, LogPiece, Output, Signal};
use remora_identity::Authenticated;
use remora_identity::statement::ReceiptKey;
use remora_wire::native::proto;
use tokio::time::{Instant, timeout_at};

use super::meant::{self, Meant, detached, find};
use super::{DetachedJobs, Entry, Looking, Owner};
use crate::job;
use crate::settings::Settings;

/// Bytes of one answer at the most: less than a message may have.
const MOST: usize = 512 * 1024;

/// How long a job is waited for whose keeper doesn't answer, milliseconds.
const SILENT_WAIT: u32 = 1_000;

/// How long an answer may be waited for.
const LONGEST_WAIT: Duration = Duration::from_secs(60);

type Answer = Result<proto::answer::Answer, proto::NotStarted>;

/// Answers a question, if it is about jobs.
pub(crate) fn reply(
    ask: &proto::Ask,
    who: &Authenticated,
    host_key: Option<&ReceiptKey>,
    settings: &Arc<Settings>,
) -> Option<impl Future<Output = proto::answer::Answer> + Send + 'static + use<>> {
    use proto::ask::Question;
    let question = ask.question.clone()?;
    let is_ours = matches!(
        question,
        Question::ListJobs(_)
            | Question::FindJob(_)
            | Question::ReadLog(_)
            | Question::SignalJob(_)
            | Question::StopJob(_)
            | Question::ForgetJob(_)
            | Question::DetachJob(_)
            | Question::RenewJob(_)
    );
    if !is_ours {
        return None;
    }
    let permitted = settings.policy.permit(who, ()).map_err(|refusal| job::refused(&refusal));
    let asked = Asked {
        owner: Owner::of(who),
        who: who.clone(),
        host_key: host_key.cloned(),
        settings: Arc::clone(settings),
    };
    Some(async move {
        let answer = match permitted {
            Ok(_) => answer(question, &asked).await,
            Err(why) => Err(why),
        };
        answer.unwrap_or_else(proto::answer::Answer::Refused)
    })
}

/// Who asks, and where.
struct Asked {
    owner: Owner,
    who: Authenticated,
    host_key: Option<ReceiptKey>,
    settings: Arc<Settings>,
}

async fn answer(question: proto::ask::Question, asked: &Asked) -> Answer {
    use proto::ask::Question;
    let Asked { owner, who, host_key, settings } = asked;
    let host_key = host_key.as_ref();
    let jobs: &DetachedJobs = &settings.detached;
    let one = |entry: &Entry| Ok(list(vec![entry.info(settings, true)], false));
    match question {
        Question::ListJobs(_) => {
            let attached = meant::attached(owner, settings);
            let mut all: Vec<_> =
                jobs.list(owner).iter().map(|entry| entry.info(settings, false)).chain(attached).collect();
            all.sort_by_key(|info| std::cmp::Reverse((info.started_unix_ns, info.id.clone())));
            // One that is being detached just now is both.
            all.dedup_by(|second, first| second.id == first.id);
            let (mut told, mut size, mut more) = (Vec::new(), 0, false);
            for info in all {
                size += prost::Message::encoded_len(&info) + 8;
                more = size > MOST;
                if more {
                    break;
                }
                told.push(info);
            }
            Ok(list(told, more))
        }
        Question::FindJob(find) => {
            let (wait_ms, is_signed) = (find.wait_ms, find.sign_receipt);
            let entry = match meant::find(owner, &find.job, settings)? {
                Meant::Detached(entry) => entry,
                Meant::Recent(recent) => {
                    let info = meant::recent(&recent, settings, host_key, is_signed);
                    return Ok(list(vec![info], false));
                }
                Meant::Attached(attached) => {
                    let limit = Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
                    let info = meant::wait(&attached, limit, settings, host_key, is_signed).await;
                    match jobs.of_id(owner, &info.id) {
                        // It was detached meanwhile.
                        Some(entry) => entry,
                        None => return Ok(list(vec![info], false)),
                    }
                }
            };
            // Once its keeper answers, another one stands for the job.
            let wait_ms = if entry.is_silent() { wait_ms.min(SILENT_WAIT) } else { wait_ms };
            until(&entry, wait_ms, |entry| entry.over().is_some()).await;
            let receipt = entry.receipt(settings, host_key, is_signed);
            Ok(list(vec![entry.info_with(receipt, true)], false))
        }
        Question::ReadLog(read) => {
            let entry = detached(owner, &read.job, settings)?;
            self::read(entry, read).await
        }
        Question::SignalJob(ask) => {
            let meant = find(owner, &ask.job, settings)?;
            let signal = Signal::from_name(&ask.signal).ok_or_else(|| {
                let name: String = ask.signal.chars().take(32).collect();
                refused(&format!("the host knows no signal {}", name.escape_debug()))
            })?;
            let (job, info) = match &meant {
                Meant::Detached(entry) => {
                    entry.answers()?;
                    (entry.running(), entry.info(settings, true))
                }
                Meant::Attached(entry) => {
                    (Some(&entry.job).filter(|job| job.finished().is_none()), meant::info(entry, true))
                }
                Meant::Recent(_) => (None, proto::JobInfo::default()),
            };
            job.ok_or_else(|| refused("the job is over"))?.signal(signal);
            Ok(list(vec![info], false))
        }
        Question::StopJob(ask) => {
            match find(owner, &ask.job, settings)? {
                Meant::Detached(entry) => {
                    entry.answers()?;
                    entry.close(EndReason::Stop);
                    one(&entry)
                }
                Meant::Attached(entry) => {
                    // Whoever stops it wants to know how it ended.
                    entry.await_end();
                    entry.job.close(EndReason::Stop);
                    Ok(list(vec![meant::info(&entry, true)], false))
                }
                Meant::Recent(recent) => {
                    Ok(list(vec![meant::recent(&recent, settings, host_key, false)], false))
                }
            }
        }
        Question::ForgetJob(ask) => {
            let entry = detached(owner, &ask.job, settings)?;
            if entry.over().is_none() {
                return Err(refused("the job runs: stop it first"));
            }
            let info = entry.info(settings, true);
            jobs.forget(&settings.engine, &entry)
                .map_err(|error| internal(&format!("its folder can't be removed: {error}")))?;
            Ok(list(vec![info], false))
        }
        Question::DetachJob(ask) => one(&*super::detach::detach(ask, owner, who, settings).await?),
        Question::RenewJob(ask) => {
            let entry = detached(owner, &ask.job, settings)?;
            entry.answers()?;
            if entry.over().is_some() {
                return Err(refused("the job is over"));
            }
            if ask.lease_ms == 0 && entry.lease().is_none() {
                return Err(refused("it has no lease; --lease gives it one"));
            }
            entry.renew((ask.lease_ms > 0).then(|| Duration::from_millis(ask.lease_ms)));
            one(&entry)
        }
        _ => Err(job::unsuitable(proto::NotStartedClass::Incompatible, "this host knows no answer to that")),
    }
}

fn refused(text: &str) -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Refused, text)
}

fn internal(text: &str) -> proto::NotStarted {
    job::unsuitable(proto::NotStartedClass::Internal, text)
}

fn list(jobs: Vec<proto::JobInfo>, more: bool) -> proto::answer::Answer {
    proto::answer::Answer::Jobs(proto::JobList { jobs, more })
}

/// Waits until something is so, for the time that was asked for.
async fn until(entry: &Arc<Entry>, wait_ms: u32, is_so: impl Fn(&Entry) -> bool) {
    if wait_ms == 0 {
        return;
    }
    let _looking = Looking::at(entry);
    let end = Instant::now() + Duration::from_millis(wait_ms.into()).min(LONGEST_WAIT);
    loop {
        let changed = entry.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        if is_so(entry) || timeout_at(end, changed).await.is_err() {
            return;
        }
    }
}

async fn read(entry: Arc<Entry>, ask: proto::ReadLog) -> Answer {
    let output = match ask.stream() {
        proto::Stream::Unspecified => None,
        proto::Stream::Stdout => Some(Output::Stdout),
        proto::Stream::Stderr => Some(Output::Stderr),
        proto::Stream::Stdin => return Err(refused("what was typed into a job is not kept")),
    };
    let most = usize::try_from(ask.max_bytes).unwrap_or(MOST);
    let most = if most == 0 { MOST } else { most.min(MOST) };
    let mut from = ask.offset;
    if ask.tail_lines > 0 {
        let (log, is_over) = (entry.log.clone(), entry.over().is_some());
        from = blocking(move || log.tail(output, ask.tail_lines, is_over)).await?;
    }
    let end = Instant::now() + Duration::from_millis(ask.wait_ms.into()).min(LONGEST_WAIT);
    let looking = (ask.wait_ms > 0).then(|| Looking::at(&entry));
    let log = loop {
        let changed = entry.changed.notified();
        tokio::pin!(changed);
        changed.as_mut().enable();
        let (log, is_over) = (entry.log.clone(), entry.over().is_some());
        let read = blocking(move || match output {
            Some(output) => {
                let start = log.start(output)?;
                let part = log.read(output, from.max(start), most)?;
                // What was dropped while it was read is gone on behind.
                let at = from.max(start);
                let next = if at < part.start { part.start } else { at + part.bytes.len() as u64 };
                let over = is_over && next >= part.end;
                let piece = LogPiece { output, offset: at, bytes: part.bytes };
                Ok((vec![piece], part.start, next, over))
            }
            None => {
                let (pieces, next) = log.read_both(from, most, is_over)?;
                let over = is_over && next == from;
                Ok((pieces, 0, next, over))
            }
        })
        .await?;
        let (_, _, next, over) = read;
        if next > from || over || timeout_at(end, changed).await.is_err() {
            break read;
        }
    };
    drop(looking);
    let (pieces, start, next, over) = log;
    let pieces = pieces.into_iter().filter(|piece| !piece.bytes.is_empty());
    Ok(proto::answer::Answer::Log(proto::Log {
        pieces: pieces
            .map(|piece| proto::LogPiece {
                stream: match piece.output {
                    Output::Stdout => proto::Stream::Stdout,
                    Output::Stderr => proto::Stream::Stderr,
                } as i32,
                offset: piece.offset,
                bytes: piece.bytes,
            })
            .collect(),
        start,
        next,
        over,
    }))
}

/// Does what reads files, on another thread.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, proto::NotStarted> {
    let failed =
        |error: &dyn std::fmt::Display| internal(&format!("what the job printed can't be read: {error}"));
    match tokio::task::spawn_blocking(read).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(failed(&error)),
        Err(error) => Err(failed(&error)),
    }
}
