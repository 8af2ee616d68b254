//! A server in this process, on a port that the kernel chose.

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use remora_identity::PrivateKey;
use remora_net::tls::HostKeys;
use remora_server::{ListenUrl, ListenerChange, Settings, bind, own_account, serve};
use remora_wire::native::ALPN;
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::peer::{PATIENCE, Peer};

pub(crate) struct Host {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) key: PrivateKey,
    pub(crate) folder: TempDir,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
    // Dropping these would tell the server that nothing changes any more; it may know that it still could.
    _changes: mpsc::Sender<ListenerChange>,
    _settings: watch::Sender<Arc<Settings>>,
}

impl Host {
    pub(crate) async fn start() -> Host {
        Host::start_with(|_| {}).await
    }

    /// With other settings than the defaults. The floor under failures is short: where it matters a virtual clock runs.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Settings)) -> Host {
        let folder = tempfile::Builder::new().prefix("host").tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let key = PrivateKey::generate_ed25519().unwrap();
        let authorized = folder.path().join("authorized_keys");
        fs::write(&authorized, key.public().to_text() + "\n").unwrap();
        fs::set_permissions(&authorized, fs::Permissions::from_mode(0o600)).unwrap();
        let mut settings =
            Settings::new(own_account().unwrap(), None, remora_server::SessionLimits::default()).unwrap();
        settings.host_keys = Some(HostKeys::new([PrivateKey::generate_ed25519().unwrap()], ALPN).unwrap());
        settings.authorized_keys = vec![authorized.to_str().unwrap().parse().unwrap()];
        settings.auth_floor = Duration::from_millis(1);
        settings.vanished_grace = Duration::from_millis(50);
        change(&mut settings);
        let user = settings.policy.served().name.clone();

        let url: ListenUrl = "native://127.0.0.1:0".parse().unwrap();
        let listener = bind(&url).unwrap();
        let ListenUrl::Native(address) = listener.url else { panic!("{}", listener.url) };
        let (changes, seen) = mpsc::channel(1);
        changes.send(ListenerChange { wanted: vec![url], added: vec![listener] }).await.ok().unwrap();
        let (settings, settings_seen) = watch::channel(Arc::new(settings));
        let (stop, stopped) = oneshot::channel();
        let stopped = async {
            let _ = stopped.await;
        };
        let server = tokio::spawn(serve(seen, settings_seen, stopped, std::future::pending()));
        Host { address, user, key, folder, stop, server, _changes: changes, _settings: settings }
    }

    pub(crate) async fn stream(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    pub(crate) async fn peer(&self) -> Peer {
        Peer::accepted(self.stream().await, &self.user, &self.key).await
    }

    /// A good client is served.
    pub(crate) async fn is_alive(&self) {
        let served = async {
            let receipt = self.peer().await.run(1, &self.user, "exit 3").await;
            let exited = remora_wire::native::proto::Exited { status: 3 };
            assert_eq!(receipt.outcome, Some(remora_wire::native::proto::receipt::Outcome::Exited(exited)));
        };
        tokio::time::timeout(PATIENCE, served).await.expect("a good client is served");
    }

    /// Stops it, and waits until its last handler has ended.
    pub(crate) async fn stop(self) {
        self.stop.send(()).unwrap();
        tokio::time::timeout(PATIENCE, self.server).await.expect("the server stops").unwrap();
    }
}
