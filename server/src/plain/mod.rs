//! The plain wires, served.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::admission::Place;
use crate::listen::PlainWire;
use crate::serve::Phase;
use crate::settings::Settings;

pub(crate) async fn serve(
    _stream: TcpStream,
    _peer: SocketAddr,
    _wire: PlainWire,
    _encoding: Option<&'static encoding_rs::Encoding>,
    _settings: watch::Receiver<Arc<Settings>>,
    _phase: watch::Receiver<Phase>,
    _place: Place,
) {
}
