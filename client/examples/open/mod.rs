//! How the measurements here get their connections.

use remora_client::{HostTrust, Lasting, Opened, Options, Signer, UserKey, connect, connect_unix};
use remora_identity::KeyFile;

/// Opens a connection to `ADDRESS:PORT` with a key without a passphrase, or to the Unix socket at a path.
pub(crate) async fn open(target: &str, user: &str, key: &str) -> Result<Opened, Box<dyn std::error::Error>> {
    let Some((host, port)) = target.rsplit_once(':') else {
        return Ok(connect_unix(target.as_ref(), user, Lasting::default(), None).await?);
    };
    let file = KeyFile::parse(&std::fs::read(key)?)?;
    let public = file.public.clone();
    let signer = Signer::Key(file.into_plain().ok_or("the key is under a passphrase")?);
    let options = Options {
        user: user.to_owned(),
        // The server is the measurement's own, on loopback.
        trust: HostTrust { accept_new: true, ..HostTrust::default() },
        keys: vec![UserKey { public, signer, source: key.to_owned() }],
        sure: true,
        lasting: Lasting::default(),
        connect_timeout: std::time::Duration::from_secs(10),
        observer: None,
        tap: None,
    };
    Ok(connect(host, port.parse()?, options).await?)
}
