//! The receipt as JSON, versioned: `--json` and `--status-file`. `remora receipt`, and receipts in files, are in the folder of this name.

mod keep;
pub(super) mod read;
pub(crate) mod show;
pub(crate) mod verify;

use std::path::Path;

use remora_client::{Outcome, outcome_of, proto};
use serde_json::{Map, Value, json};

pub(super) use keep::Keep;
pub(super) use show::quoted;

/// Version of both schemas; a change that breaks readers raises it.
pub(super) const SCHEMA: u32 = 1;

/// What `--status-file` holds; `why` where something failed that isn't the command's doing.
pub(crate) fn status(
    outcome: &Outcome,
    status: u8,
    target: &str,
    why: Option<&crate::terminal::Failure>,
) -> Value {
    let mut object = Map::new();
    object.insert("schema".into(), SCHEMA.into());
    object.insert("target".into(), target.into());
    object.insert("status".into(), status.into());
    // `raw` and `length` don't tell how a command ended: a reply that is whole is all there is to know.
    let untold = ["raw://", "length://"].iter().any(|wire| target.starts_with(wire));
    let outcome = match outcome {
        Outcome::Exited(_) if untold => Value::Null,
        outcome => self::outcome(outcome),
    };
    object.insert("outcome".into(), outcome);
    if untold || target.starts_with("header://") {
        object.insert("unproven".into(), true.into());
    }
    if let Some(why) = why {
        object.insert("text".into(), why.text.clone().into());
        object.insert("hint".into(), why.hint.clone().into());
    }
    Value::Object(object)
}

fn outcome(outcome: &Outcome) -> Value {
    match outcome {
        Outcome::Exited(status) => json!({ "class": "exited", "status": status }),
        Outcome::Signaled { signal, by } => json!({ "class": "signaled", "signal": signal, "by": by }),
        other => json!({ "class": other.name() }),
    }
}

/// Captured output of one stream.
pub(crate) struct Captured<'a> {
    pub(crate) bytes: &'a [u8],
    /// Bytes there were in all, after decoding.
    pub(crate) seen: u64,
}

/// What `--json` prints for a job that has a receipt; with its output, where that was captured.
pub(crate) fn receipt(
    target: &str,
    command: Value,
    receipt: &proto::Receipt,
    captured: Option<[&Captured<'_>; 2]>,
    kept: Option<&Path>,
) -> Value {
    let how = outcome_of(receipt);
    // A host that lost the command says so, and that is all.
    let is_proven = how != Outcome::Failed(remora_client::Class::Lost);
    let mut outcome = self::outcome(&how);
    let [stdout, stderr] = captured.map_or([None; 2], |captured| captured.map(Some));
    if let (Some(proto::receipt::Outcome::NotStarted(why)), Value::Object(object)) =
        (&receipt.outcome, &mut outcome)
    {
        object.insert("step".into(), why.step.clone().into());
        object.insert("errno".into(), why.errno.into());
        object.insert("text".into(), why.text.clone().into());
    }
    json!({
        "schema": SCHEMA,
        "target": target,
        "proven": is_proven,
        "outcome": outcome,
        "job_id": hex(&receipt.job_id),
        "command": command,
        "host": {
            "name": receipt.host_name,
            "boot_id": hex(&receipt.boot_id),
            "key": (!receipt.host_key_fingerprint.is_empty()).then_some(&receipt.host_key_fingerprint),
        },
        "receipt": kept.map(|file| json!({
            "file": file.display().to_string(),
            "signed": !receipt.sshsig.is_empty(),
        })),
        "user": receipt.user,
        "working_directory": text(&receipt.working_directory),
        "pid": receipt.pid,
        "started": time(receipt.started_unix_ns),
        "ended": time(receipt.ended_unix_ns),
        "wall_seconds": receipt.wall_ns as f64 / 1e9,
        "user_seconds": receipt.user_us as f64 / 1e6,
        "system_seconds": receipt.system_us as f64 / 1e6,
        "peak_memory_bytes": (receipt.peak_memory_bytes > 0).then_some(receipt.peak_memory_bytes),
        "memory_limit_by": receipt.memory_limit_by,
        "spool": receipt.spool.as_ref().map(spool),
        "session": receipt.session.as_ref().map(super::session::object),
        "stdin": receipt.stdin.as_ref().map(|report| stream(report, None)),
        "stdout": receipt.stdout.as_ref().map(|report| stream(report, stdout)),
        "stderr": receipt.stderr.as_ref().map(|report| stream(report, stderr)),
    })
}

/// What is done when a stream is full, in the word of `--on-full`.
pub(super) fn on_full(on_full: proto::OnFull) -> &'static str {
    match on_full {
        proto::OnFull::Unspecified | proto::OnFull::Wait => "wait",
        proto::OnFull::Kill => "kill",
        proto::OnFull::DropOldest => "drop-oldest",
    }
}

fn spool(spool: &proto::SpoolReport) -> Value {
    json!({
        "on_full": on_full(spool.on_full()),
        "limit": spool.limit,
        "was_full": spool.was_full,
        "disk_was_full": spool.disk_was_full,
        "stdout_start": spool.stdout_start,
        "stderr_start": spool.stderr_start,
        "stdout_lost": spool.stdout_lost,
        "stderr_lost": spool.stderr_lost,
    })
}

fn stream(report: &proto::StreamReport, captured: Option<&Captured<'_>>) -> Value {
    let mut object = Map::new();
    object.insert("length".into(), report.length.into());
    object.insert("blake3".into(), hex(&report.blake3).into());
    object.insert("held_open".into(), report.held_open.into());
    object.insert("closed_early".into(), report.closed_early.into());
    if let Some(captured) = captured {
        output(&mut object, captured);
    }
    Value::Object(object)
}

/// What `--json` prints where there is no receipt: why, and what came of the output.
pub(crate) fn failed(
    target: &str,
    command: Value,
    failure: &crate::terminal::Failure,
    output: Option<(&Captured<'_>, &Captured<'_>)>,
) -> Value {
    let mut outcome = self::outcome(&failure.outcome);
    if let Value::Object(object) = &mut outcome {
        object.insert("text".into(), failure.text.clone().into());
        object.insert("hint".into(), failure.hint.clone().into());
    }
    let stream = |captured: &Captured<'_>| {
        let mut object = Map::new();
        self::output(&mut object, captured);
        Value::Object(object)
    };
    json!({
        "schema": SCHEMA,
        "target": target,
        "proven": false,
        "outcome": outcome,
        "command": command,
        "stdout": output.map(|(stdout, _)| stream(stdout)),
        "stderr": output.map(|(_, stderr)| stream(stderr)),
    })
}

/// What `--json` prints of a reply on a plain wire: nothing there is proven but what came.
pub(crate) fn unproven(
    target: &str,
    command: Value,
    outcome: Option<&Outcome>,
    stdout: &Captured<'_>,
    stderr: Option<&Captured<'_>>,
) -> Value {
    let stream = |captured: &Captured<'_>| {
        let mut object = Map::new();
        output(&mut object, captured);
        Value::Object(object)
    };
    json!({
        "schema": SCHEMA,
        "target": target,
        "proven": false,
        "unproven": true,
        "outcome": outcome.map(self::outcome),
        "command": command,
        "stdout": stream(stdout),
        "stderr": stderr.map(stream),
    })
}

fn output(object: &mut Map<String, Value>, captured: &Captured<'_>) {
    let mut bytes = captured.bytes;
    // What the limit cut within a character is text all the same, up to that character.
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
        && captured.seen > bytes.len() as u64
    {
        bytes = bytes.get(..error.valid_up_to()).unwrap_or_default();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert("text".into(), text.into()),
        Err(_) => object.insert("base64".into(), base64(bytes).into()),
    };
    object.insert("cut_bytes".into(), captured.seen.saturating_sub(bytes.len() as u64).into());
}

/// Bytes that are mostly text: themselves, or in base64 under another name.
pub(crate) fn text(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => text.into(),
        Err(_) => json!({ "base64": base64(bytes) }),
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn time(unix_ns: u64) -> Option<String> {
    let time = jiff::Timestamp::from_nanosecond(i128::from(unix_ns)).ok()?;
    (unix_ns > 0).then(|| time.to_string())
}

fn base64(bytes: &[u8]) -> String {
    data_encoding::BASE64.encode(bytes)
}
