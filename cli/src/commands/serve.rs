//! `remora serve`: the daemon, from flags and file to the last handler.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use remora_client::{Class, Outcome, exit_status};
use remora_server::{
    EngineConfig, FileConfig, JobLimits, KeyPathError, ListenUrl, Listener, ListenerChange, OnlyFront,
    SessionLimits, Settings, Warden, WardenEnd, WardenError, WardenLink, bind, load_host_keys, own_account,
    serve,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};

use crate::arguments::Serve;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, say};
use crate::{home, log, notify};

/// Threads for what blocks, most of it reading authorized_keys and /proc: more than the readings that may hang.
const BLOCKING_THREADS: usize = 32;
/// How long such a thread waits for more to do. Making one anew costs a login 0.2 ms.
const KEEP_ALIVE: Duration = Duration::from_secs(24 * 60 * 60);

/// Serves until SIGTERM or SIGINT, the second of which ends running commands at once, and gives the process' exit status.
///
/// The process that is started is the warden: it starts this program anew, as the front, and that is what serves. Commands go on when
/// either ends, unless it is told to end them.
pub(crate) fn run(flags: Serve) -> u8 {
    match flags.warden_link {
        None if !flags.no_keepers => watch(&flags).unwrap_or_else(|failure| {
            failure.print();
            exit_status(&failure.outcome, false)
        }),
        link => front(&flags, link),
    }
}

/// The warden's life.
fn watch(flags: &Serve) -> Result<u8, Failure> {
    let state_dir = state_dir(flags, file(flags)?.state_dir)?;
    let warden = Warden::new(&state_dir, EngineConfig::default()).map_err(|error| {
        let failure = Failure::usage(chain(&error));
        match error {
            WardenError::Taken(_) => failure.with_hint("end that one first, or name another --state-dir"),
            WardenError::Open { .. } => {
                failure.with_hint("chmod go-w, or name a directory of your own: what is in there is trusted")
            }
            WardenError::Folder { .. } => {
                failure.with_hint("name another with --state-dir, or mend that one")
            }
            _ => failure,
        }
    })?;
    let start = |link: i32| {
        let mut command = std::process::Command::new("/proc/self/exe");
        command.args(std::env::args_os().skip(1)).arg(format!("--warden-link={link}"));
        command.arg0("remora").env_remove(notify::SOCKET);
        // A Ctrl-C is for the warden alone, who passes it on.
        command.process_group(0).spawn()
    };
    let end = warden.run(start, say, notify::tell).map_err(|error| {
        Failure::new(Class::Internal, "", format!("the server can't be started: {error}"))
    })?;
    Ok(match end {
        WardenEnd::Status(status) => u8::try_from(status).unwrap_or(u8::MAX),
        WardenEnd::Signaled(signal) => {
            say(&format!("the server was killed by signal {signal} before it served anybody"));
            exit_status(&Outcome::Failed(Class::Internal), false)
        }
    })
}

fn front(flags: &Serve, link: Option<i32>) -> u8 {
    log::start();
    let link = match link.map(WardenLink::inherited).transpose() {
        Ok(link) => link,
        Err(error) => {
            say(&format!("no warden has started this: {error}"));
            return exit_status(&Outcome::Failed(Class::Usage), false);
        }
    };
    let mut builder = tokio::runtime::Builder::new_current_thread();
    builder.enable_all().max_blocking_threads(BLOCKING_THREADS).thread_keep_alive(KEEP_ALIVE);
    let runtime = match builder.build() {
        Ok(runtime) => runtime,
        Err(error) => {
            say(&format!("no runtime: {error}"));
            return exit_status(&Outcome::Failed(Class::Internal), false);
        }
    };
    // The first connection finds a thread, too.
    runtime.spawn_blocking(|| ());
    let ended = runtime.block_on(daemon(flags, link.as_ref()));
    // A thread that waits for a file system that doesn't answer holds up no end.
    runtime.shutdown_background();
    match ended {
        Ok(()) => 0,
        Err(failure) => {
            failure.print();
            exit_status(&failure.outcome, false)
        }
    }
}

/// Flags and file, joined: flags win.
struct Configuration {
    listen: Vec<ListenUrl>,
    settings: Settings,
    new_host_key: Option<PathBuf>,
}

fn file(flags: &Serve) -> Result<FileConfig, Failure> {
    match &flags.config {
        Some(path) => FileConfig::read(path).map_err(|error| Failure::usage(chain(&error))),
        None => Ok(FileConfig::default()),
    }
}

fn state_dir(flags: &Serve, file: Option<PathBuf>) -> Result<PathBuf, Failure> {
    let folder = flags.state_dir.clone().or(file).or_else(home::state);
    folder.ok_or_else(|| Failure::usage("no home directory to keep state in; name a --state-dir"))
}

fn configuration(flags: &Serve, link: Option<&WardenLink>) -> Result<Configuration, Failure> {
    let file = file(flags)?;
    for (value, name) in [
        (file.limits.wall_seconds, "limits.wall_seconds"),
        (file.limits.memory_bytes, "limits.memory_bytes"),
        (file.limits.open_files, "limits.open_files"),
        (file.limits.output_bytes, "limits.output_bytes"),
        (file.max_connections.map(|max| max as u64), "max_connections"),
        (file.max_unauthenticated.map(|max| max as u64), "max_unauthenticated"),
        (file.max_sessions.map(|max| max as u64), "max_sessions"),
        (file.session_idle_seconds, "session_idle_seconds"),
    ] {
        if value == Some(0) {
            return Err(Failure::usage(format!(
                "{name} = 0 would serve nobody; leave it out for no limit of your own"
            )));
        }
    }
    let account = own_account().ok_or_else(|| {
        Failure::usage("the user database doesn't know the account this runs as, so there is nobody to serve")
    })?;
    let or = |flag: &Vec<String>, file: Option<Vec<String>>, default: &str| match (flag.is_empty(), file) {
        (false, _) => flag.clone(),
        (true, Some(list)) => list,
        (true, None) => vec![default.to_owned()],
    };
    let listen = or(&flags.listen, file.listen, "native://0.0.0.0:7366")
        .iter()
        .map(|url| url.parse().map_err(|error: remora_server::UrlError| Failure::usage(error.to_string())))
        .collect::<Result<Vec<ListenUrl>, _>>()?;
    let allow_network = flags.allow_plaintext_network || file.allow_plaintext_network == Some(true);
    let allow_root = flags.allow_plaintext_root || file.allow_plaintext_root == Some(true);
    for url in &listen {
        permit_plain(url, account.uid == 0, allow_network, allow_root)?;
    }
    let state_dir = state_dir(flags, file.state_dir)?;
    let host_key_files =
        if flags.host_key.is_empty() { file.host_key.unwrap_or_default() } else { flags.host_key.clone() };
    let usual = SessionLimits::default();
    let sessions = SessionLimits {
        idle: file.session_idle_seconds.map_or(usual.idle, Duration::from_secs),
        per_owner: file.max_sessions.unwrap_or(usual.per_owner),
    };
    let engine = |error: &dyn std::error::Error| {
        Failure::new(Class::Internal, "", format!("can't set up the engine: {}", chain(error)))
    };
    let link = link.map(WardenLink::try_clone).transpose().map_err(|error| engine(&error))?;
    let settings = match link {
        Some(link) => Settings::with_keepers(account, &state_dir, sessions, link),
        None => Settings::new(account, Some(&state_dir), sessions),
    };
    let mut settings = settings.map_err(|error| engine(&error))?;
    let mut new_host_key = None;
    if listen.iter().any(|url| matches!(url, ListenUrl::Native(_))) {
        let (keys, made) = load_host_keys(&host_key_files, &state_dir).map_err(|error| {
            let failure = Failure::usage(chain(&error));
            match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            }
        })?;
        settings.host_keys = Some(keys);
        new_host_key = made;
    }
    settings.authorized_keys = or(&flags.authorized_keys, file.authorized_keys, ".ssh/authorized_keys")
        .iter()
        .map(|path| path.parse().map_err(|error: KeyPathError| Failure::usage(error.to_string())))
        .collect::<Result<_, _>>()?;
    settings.limits = JobLimits {
        wall: file.limits.wall_seconds.map(Duration::from_secs),
        memory: file.limits.memory_bytes,
        open_files: file.limits.open_files,
        output: file.limits.output_bytes,
    };
    if let Some(seconds) = file.max_linger_seconds {
        settings.max_linger = Duration::from_secs(seconds);
    }
    if let Some(seconds) = file.stop_grace_seconds {
        settings.stop_grace = Duration::from_secs(seconds);
    }
    settings.stop_jobs = flags.stop_jobs || file.stop_jobs == Some(true);
    if let Some(seconds) = file.detached_kept_seconds {
        settings.detached_kept_for = Duration::from_secs(seconds);
    }
    settings.detached_kept = file.max_detached_kept.unwrap_or(settings.detached_kept);
    settings.max_connections = file.max_connections.unwrap_or(settings.max_connections);
    settings.max_unauthenticated = file.max_unauthenticated.unwrap_or(settings.max_unauthenticated);
    settings.plain_any_peer = allow_network;
    Ok(Configuration { listen, settings, new_host_key })
}

fn permit_plain(url: &ListenUrl, root: bool, allow_network: bool, allow_root: bool) -> Result<(), Failure> {
    let ListenUrl::Plain { address, .. } = url else { return Ok(()) };
    if !address.ip().is_loopback() && !allow_network {
        return Err(Failure::usage(format!(
            "{url} is not a loopback address: anybody who reaches it could run commands, unencrypted and without a key"
        ))
        .with_hint("listen on 127.0.0.1, or say --allow-plaintext-network"));
    }
    if root && !allow_root {
        return Err(Failure::usage(format!(
            "{url} would run the commands of any local root process as root, without a key"
        ))
        .with_hint("run as another user, or say --allow-plaintext-root"));
    }
    Ok(())
}

async fn daemon(flags: &Serve, link: Option<&WardenLink>) -> Result<(), Failure> {
    let Configuration { listen, settings, new_host_key } = configuration(flags, link)?;
    if let Some(path) = new_host_key {
        say(&format!("made a host key: {}", escape(&path.display().to_string())));
    }
    let state_dir = state_dir(flags, file(flags)?.state_dir)?;
    let only = link.map(|_| OnlyFront::wait(&state_dir)).transpose();
    let _only = only.map_err(|error| {
        let folder = escape(&state_dir.display().to_string());
        Failure::new(Class::Internal, "", format!("another process serves {folder}: {error}"))
    })?;
    let first = listeners(&listen, &[])?;
    // Handlers before the first line is printed: whoever reads it may signal at once.
    let handler = |kind| {
        signal(kind).map_err(|error| Failure::new(Class::Internal, "", format!("no signal handler: {error}")))
    };
    let (mut terminate, mut interrupt, mut hangup) = (
        handler(SignalKind::terminate())?,
        handler(SignalKind::interrupt())?,
        handler(SignalKind::hangup())?,
    );
    let mut served = listen;
    for listener in &first {
        say(&format!("listening on {}", escape(&listener.url.to_string())));
    }
    let (changes, changes_seen) = mpsc::channel(1);
    let (current, settings_seen) = watch::channel(Arc::new(settings));
    let _ = changes.send(ListenerChange { wanted: served.clone(), added: first }).await;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let (hurry, hurried) = tokio::sync::oneshot::channel::<()>();
    let told = |signal: tokio::sync::oneshot::Receiver<()>| async {
        let _ = signal.await;
    };
    let mut server = tokio::spawn(serve(changes_seen, settings_seen, told(stopped), told(hurried)));
    if let Some(link) = link {
        let gone = |error| Failure::new(Class::Internal, "", format!("the warden is gone: {error}"));
        link.serving().map_err(gone)?;
    }
    let unwatched = async {
        match link {
            Some(link) => drop(link.ended().await),
            None => std::future::pending().await,
        }
    };
    tokio::pin!(unwatched);
    loop {
        tokio::select! {
            () = &mut unwatched => {
                // Its successor takes the jobs up, and may be there already.
                say("the warden is gone: this server ends, commands go on");
                current.borrow().engine.leave();
                return Ok(());
            }
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = hangup.recv() => {
                match reload(flags, link, &served, &current) {
                Ok((list, change)) => {
                    for listener in &change.added {
                        say(&format!("listening on {}", escape(&listener.url.to_string())));
                    }
                    served = list;
                    let _ = changes.send(change).await;
                    say("configuration read again");
                }
                Err(failure) => {
                    failure.print();
                    say("the configuration stays as it was");
                }
                }
                // Read again or not, it serves: who waits for the end of a reload is told.
                if let Some(link) = link {
                    let _ = link.serving();
                }
            }
        }
    }
    let (running, stop_jobs) = (current.borrow().engine.running(), current.borrow().stop_jobs);
    say(&match running {
        0 => "stopping".to_owned(),
        _ if stop_jobs || link.is_none() => "stopping: no new connections; running commands get their grace time, a second signal ends them now".to_owned(),
        1 => "stopping; one command runs on, and the next server on this state directory takes it up"
            .to_owned(),
        many => format!(
            "stopping; {many} commands run on, and the next server on this state directory takes them up"
        ),
    });
    let _ = stop.send(());
    let ended = tokio::select! {
        ended = &mut server => ended,
        _ = async { tokio::select! { _ = terminate.recv() => {}, _ = interrupt.recv() => {} } } => {
            say("stopping now: running commands are ended");
            let _ = hurry.send(());
            server.await
        }
    };
    ended.map_err(|error| Failure::new(Class::Internal, "", format!("the server failed: {error}")))
}

fn listeners(wanted: &[ListenUrl], served: &[ListenUrl]) -> Result<Vec<Listener>, Failure> {
    wanted
        .iter()
        .filter(|url| !served.contains(url))
        .map(|url| bind(url).map_err(|error| Failure::new(Class::Unreachable, "", chain(&error))))
        .collect()
}

/// Reads the configuration anew. Nothing changes when any of it makes no sense.
fn reload(
    flags: &Serve,
    link: Option<&WardenLink>,
    served: &[ListenUrl],
    current: &watch::Sender<Arc<Settings>>,
) -> Result<(Vec<ListenUrl>, ListenerChange), Failure> {
    let Configuration { listen, mut settings, .. } = configuration(flags, link)?;
    let added = listeners(&listen, served)?;
    settings.succeed(&current.borrow());
    current.send_replace(Arc::new(settings));
    Ok((listen.clone(), ListenerChange { wanted: listen, added }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_readme_shows_every_key_of_the_configuration_and_its_usual_value() {
        let readme = include_str!("../../../README.md");
        let sample = readme.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), sample).unwrap();
        let FileConfig {
            listen: Some(_),
            host_key: Some(_),
            authorized_keys: Some(_),
            state_dir: Some(_),
            stop_grace_seconds: Some(grace),
            stop_jobs: Some(stop_jobs),
            max_linger_seconds: Some(linger),
            max_connections: Some(connections),
            max_unauthenticated: Some(strangers),
            allow_plaintext_network: Some(false),
            allow_plaintext_root: Some(false),
            session_idle_seconds: Some(idle),
            max_sessions: Some(sessions),
            detached_kept_seconds: Some(kept_for),
            max_detached_kept: Some(kept),
            limits: _,
        } = FileConfig::read(file.path()).unwrap()
        else {
            panic!("a key is missing, or not as usual: {sample}")
        };
        let limits = SessionLimits::default();
        assert_eq!((idle, sessions), (limits.idle.as_secs(), limits.per_owner));
        let usual = Settings::new(own_account().unwrap(), None, limits).unwrap();
        assert_eq!((grace, stop_jobs), (usual.stop_grace.as_secs(), usual.stop_jobs));
        assert_eq!((linger, connections), (usual.max_linger.as_secs(), usual.max_connections));
        assert_eq!((strangers, kept), (usual.max_unauthenticated, usual.detached_kept));
        assert_eq!(kept_for, usual.detached_kept_for.as_secs());
    }
}
