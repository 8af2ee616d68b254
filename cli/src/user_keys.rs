//! Which keys to prove with: those named, those the agent holds, ssh's default files; the one that worked last comes first.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use remora_client::{PublicKey, Signer, UserKey};
use remora_identity::limits::KEY_FILE_MAX;
use remora_identity::{KeyFile, KeyState, strict_modes};
use remora_net::agent::Agent;

use crate::home;
use crate::printable::{chain, escape};
use crate::terminal::{Failure, Secret, say};

/// ssh's default names (ssh(1), -i), without hardware keys.
const DEFAULTS: [&str; 3] = ["id_ed25519", "id_ecdsa", "id_rsa"];

/// The keys to try, and whether the first is sure enough to be used without asking.
pub(crate) struct Choice {
    pub(crate) keys: Vec<UserKey>,
    pub(crate) sure: bool,
}

/// Finds the user's keys.
///
/// `remembered` is the key that worked last: when a default file holds it, nothing else is read, and the agent isn't asked.
///
/// # Errors
/// A named identity that can't be used.
pub(crate) async fn find(named: &[PathBuf], remembered: Option<&PublicKey>) -> Result<Choice, Failure> {
    let agent = home::agent().map(Agent::at);
    if !named.is_empty() {
        let mut keys = Vec::new();
        for path in named {
            keys.push(match public_half(path) {
                Some(public) => held_half(public, path, agent.as_ref()).await?,
                None => load(path).map_err(|problem| problem.failure(path))?,
            });
        }
        if let Some(agent) = &agent
            && keys.iter().any(|key| matches!(key.signer, Signer::Locked(_)))
        {
            // An agent may hold the unlocked half of a named file.
            let held = ask(agent).await;
            for key in &mut keys {
                if matches!(key.signer, Signer::Locked(_)) && held.contains(&key.public) {
                    key.signer = Signer::Agent(agent.clone());
                }
            }
        }
        let sure = keys.len() == 1;
        return Ok(Choice { keys, sure });
    }
    let mut keys = Vec::new();
    for path in
        home::directory().into_iter().flat_map(|home| DEFAULTS.map(|name| home.join(".ssh").join(name)))
    {
        match load(&path) {
            Ok(key) if Some(&key.public) == remembered && matches!(key.signer, Signer::Key(_)) => {
                return Ok(Choice { keys: vec![key], sure: true });
            }
            Ok(key) => keys.push(key),
            Err(Problem::Io(error)) if error.kind() == io::ErrorKind::NotFound => {}
            Err(problem) => say(&format!("{}: {}", escape(&path.display().to_string()), problem.text())),
        }
    }
    if let Some(agent) = &agent {
        let held = ask(agent).await;
        for public in held {
            let source = "agent".to_owned();
            match keys.iter_mut().find(|key| key.public == public) {
                Some(key) if matches!(key.signer, Signer::Locked(_)) => {
                    key.signer = Signer::Agent(agent.clone());
                    key.source = source;
                }
                Some(_) => {}
                None => keys.push(UserKey { public, signer: Signer::Agent(agent.clone()), source }),
            }
        }
    }
    // Only so many are offered: the default files are the likeliest, and what needs a passphrase comes last.
    keys.sort_by_key(|key| matches!(key.signer, Signer::Locked(_)));
    let worked = remembered.and_then(|public| keys.iter().position(|key| key.public == *public));
    if let Some(at) = worked {
        let key = keys.remove(at);
        keys.insert(0, key);
    }
    let sure = keys.len() == 1 || worked.is_some();
    Ok(Choice { keys, sure })
}

/// The key of a file that holds a public half alone, as ssh takes it to pick one of an agent's keys.
fn public_half(path: &Path) -> Option<PublicKey> {
    if path.extension()? != "pub" {
        return None;
    }
    let mut text = String::new();
    File::open(path).ok()?.take(KEY_FILE_MAX as u64).read_to_string(&mut text).ok()?;
    PublicKey::from_text(text.trim()).ok()
}

async fn held_half(public: PublicKey, path: &Path, agent: Option<&Agent>) -> Result<UserKey, Failure> {
    let name = escape(&path.display().to_string());
    match agent {
        Some(agent) if ask(agent).await.contains(&public) => Ok(UserKey {
            public,
            signer: Signer::Agent(agent.clone()),
            source: format!("agent, as in {name}"),
        }),
        _ => Err(Failure::usage(format!("{name} is a public key, and no agent holds its private half"))
            .with_hint("name the private key's file, or add it to an agent: ssh-add")),
    }
}

/// Unlocks a key file with a passphrase typed on the terminal, three tries as ssh gives.
///
/// # Errors
/// No terminal, or no right passphrase.
pub(crate) fn unlock(target: &str, path: &Path) -> Result<UserKey, Failure> {
    use remora_client::Class::Unauthenticated;

    let name = escape(&path.display().to_string());
    let file =
        read(path).and_then(|text| Ok(KeyFile::parse(&text)?)).map_err(|problem| problem.failure(path))?;
    let KeyState::Encrypted(encrypted) = &file.state else {
        return load(path).map_err(|problem| problem.failure(path));
    };
    for _ in 0..3 {
        let question = format!("Passphrase for key {name}: ");
        let none = |why| {
            let text = format!("the key {name} is under a passphrase, and {why}");
            Failure::new(Unauthenticated, target, text).with_hint("add the key to an agent: ssh-add")
        };
        let passphrase = match crate::terminal::ask_secret(&question) {
            Secret::Given(passphrase) => passphrase,
            Secret::Declined => return Err(none("you did not give it")),
            Secret::NoTerminal => return Err(none("there is no terminal to ask for it")),
        };
        match encrypted.decrypt(&passphrase) {
            Ok(key) => return Ok(UserKey { public: file.public, signer: Signer::Key(key), source: name }),
            Err(remora_identity::KeyError::WrongPassphrase) => say("that passphrase is wrong"),
            Err(error) => return Err(Problem::Key(error).failure(path)),
        }
    }
    Err(Failure::new(Unauthenticated, target, format!("no right passphrase for the key {name}")))
}

#[derive(Debug)]
enum Problem {
    Io(io::Error),
    Key(remora_identity::KeyError),
    Mode(strict_modes::StrictModesError),
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        Problem::Io(error)
    }
}

impl From<remora_identity::KeyError> for Problem {
    fn from(error: remora_identity::KeyError) -> Self {
        Problem::Key(error)
    }
}

impl From<strict_modes::StrictModesError> for Problem {
    fn from(error: strict_modes::StrictModesError) -> Self {
        Problem::Mode(error)
    }
}

impl Problem {
    fn text(&self) -> String {
        match self {
            Problem::Io(error) => error.to_string(),
            Problem::Key(error) => chain(error),
            Problem::Mode(error) => chain(error),
        }
    }

    fn failure(&self, path: &Path) -> Failure {
        let name = escape(&path.display().to_string());
        let failure = Failure::usage(format!("can't use the key {name}: {}", self.text()));
        match self {
            Problem::Key(error) => match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            },
            Problem::Mode(error) => match error.hint() {
                Some(hint) => failure.with_hint(hint),
                None => failure,
            },
            Problem::Io(_) => failure,
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, Problem> {
    let file = File::open(path)?;
    strict_modes::check_private_key(&file, path, rustix::process::geteuid().as_raw())?;
    let mut text = Vec::new();
    file.take(KEY_FILE_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(text)
}

fn load(path: &Path) -> Result<UserKey, Problem> {
    let file = KeyFile::parse(&read(path)?)?;
    let signer = match file.state {
        KeyState::Plain(key) => Signer::Key(key),
        KeyState::Encrypted(_) => Signer::Locked(path.to_owned()),
    };
    Ok(UserKey { public: file.public, signer, source: path.display().to_string() })
}

async fn ask(agent: &Agent) -> Vec<PublicKey> {
    match agent.identities().await {
        Ok(held) => held.identities.into_iter().map(|identity| identity.key).collect(),
        Err(error) => {
            say(&chain(&error));
            Vec::new()
        }
    }
}

/// Most keys remembered.
const REMEMBERED: usize = 1000;

/// The keys that worked last, one line each: `user@[host]:port`, then the key as in a .pub file.
pub(crate) struct Memory {
    path: Option<PathBuf>,
    name: String,
    lines: Vec<String>,
}

impl Memory {
    /// What is remembered of a user on a host.
    pub(crate) fn open(user: &str, host: &str, port: u16) -> Self {
        let path = home::state().map(|state| state.join("user-keys"));
        let mut text = String::new();
        if let Some(path) = &path
            && let Ok(file) = File::open(path)
        {
            // Unreadable or odd content means nothing is remembered, which costs a round trip and no more.
            let _ = file.take(1 << 20).read_to_string(&mut text);
        }
        let lines = text.lines().map(str::to_owned).collect();
        Memory { path, name: format!("{user}@[{host}]:{port}"), lines }
    }

    /// The key that worked last.
    pub(crate) fn key(&self) -> Option<PublicKey> {
        self.lines.iter().find_map(|line| {
            let (name, key) = line.split_once(' ')?;
            (name == self.name).then(|| PublicKey::from_text(key).ok()).flatten()
        })
    }

    /// Remembers the key that worked, if that is news.
    pub(crate) fn keep(mut self, key: &PublicKey) {
        if self.key().as_ref() == Some(key) {
            return;
        }
        let Some(path) = &self.path else { return };
        let prefix = format!("{} ", self.name);
        self.lines.retain(|line| !line.starts_with(&prefix));
        self.lines.insert(0, format!("{prefix}{}", key.to_text()));
        self.lines.truncate(REMEMBERED);
        let text = self.lines.join("\n") + "\n";
        // Best effort: what isn't remembered costs a round trip next time.
        let _ = replace(path, text.as_bytes());
    }
}

fn replace(path: &Path, text: &[u8]) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    let draft = path.with_extension(format!("new-{}", std::process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
    let placed = file.write_all(text).and_then(|()| std::fs::rename(&draft, path));
    if placed.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    placed
}
