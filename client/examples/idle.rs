//! Opens connections and leaves them idle until its stdin ends: `idle ADDRESS PORT USER KEYFILE COUNT`.

#![allow(clippy::print_stdout, reason = "its output says when the connections are open")]

use remora_client::{HostTrust, Options, Signer, UserKey, connect};
use remora_identity::KeyFile;
use tokio::io::AsyncReadExt;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [host, port, user, key, count] = arguments.as_slice() else {
        return Err("usage: idle ADDRESS PORT USER KEYFILE COUNT".into());
    };
    let mut open = Vec::new();
    for _ in 0..count.parse::<usize>()? {
        let file = KeyFile::parse(&std::fs::read(key)?)?;
        let public = file.public.clone();
        let signer = Signer::Key(file.into_plain().ok_or("the key is under a passphrase")?);
        let options = Options {
            user: user.clone(),
            trust: HostTrust { accept_new: true, ..HostTrust::default() },
            keys: vec![UserKey { public, signer, source: key.clone() }],
            sure: true,
            connect_timeout: std::time::Duration::from_secs(10),
            observer: None,
            tap: None,
        };
        let opened = connect(host, port.parse()?, options).await?;
        opened.connection.accepted().await?;
        open.push(opened);
    }
    println!("open");
    let mut end =
        tokio::net::unix::pipe::OpenOptions::new().unchecked(true).open_receiver("/proc/self/fd/0")?;
    let mut rest = Vec::new();
    end.read_to_end(&mut rest).await?;
    Ok(())
}
