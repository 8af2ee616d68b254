//! A server that can say anything: frames put together by hand, in any order, true or not.

use std::time::Duration;

use bytes::BytesMut;
use prost::Message;
use remora_client::{ConnectError, Connection, Finished, Job, JobError, Opened, Request, Stream, proto};
use remora_wire::limits;
use remora_wire::native::{Decoder, Kind, Piece, control_header, data_header};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

/// Far above anything that happens; a test that reaches it hangs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// Connects over a pipe in memory.
pub(crate) async fn local(stream: DuplexStream) -> Result<Opened, ConnectError> {
    remora_client::connect_local(stream, "host", "me", None).await
}

pub(crate) struct Foe {
    stream: DuplexStream,
    decoder: Decoder,
    input: BytesMut,
}

impl Foe {
    /// The server's end of a pipe in memory, and the client's.
    pub(crate) fn pair() -> (Foe, DuplexStream) {
        let (ours, theirs) = duplex(1 << 22);
        (Foe { stream: ours, decoder: Decoder::new(), input: BytesMut::new() }, theirs)
    }

    /// A foe that has said hello and accepted the user, its client, and a job with stdin on channel 1.
    pub(crate) async fn with_job() -> (Foe, Connection, Job) {
        let (mut foe, theirs) = Foe::pair();
        foe.say(&hello()).await;
        let connection = local(theirs).await.unwrap().connection;
        let job = connection.start([7; 16], Request { stdin: true, ..Request::line("x") }).unwrap();
        foe.wait_for(Kind::Start).await;
        foe.say(&accepted()).await;
        (foe, connection, job)
    }

    pub(crate) async fn say(&mut self, bytes: &[u8]) {
        // A client that has hung up is what some tests are about.
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next frame of the client; none when it has closed the connection.
    pub(crate) async fn next(&mut self) -> Option<Piece> {
        loop {
            if let Some(piece) = self.decoder.next(&mut self.input).unwrap() {
                return Some(piece);
            }
            if self.stream.read_buf(&mut self.input).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    /// Reads up to a control frame of this kind.
    pub(crate) async fn wait_for(&mut self, wanted: Kind) -> bytes::Bytes {
        loop {
            match self.next().await {
                Some(Piece::Control { kind, body, .. }) if kind == wanted => return body,
                Some(_) => {}
                None => panic!("the client left before {wanted}"),
            }
        }
    }

    /// The code of the fault that the client names.
    pub(crate) async fn fault(&mut self) -> u32 {
        let body = self.wait_for(Kind::Fault).await;
        proto::Fault::decode(body).unwrap().code
    }
}

/// Waits for a job's end while its output is read, and gives both.
pub(crate) async fn end(mut job: Job) -> (Result<Finished, JobError>, Vec<u8>, Vec<u8>) {
    let (mut stdout, mut stderr) = (job.stdout().unwrap(), job.stderr().unwrap());
    let read = async {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        tokio::join!(
            async {
                while let Some(chunk) = stdout.next().await {
                    out.extend_from_slice(&chunk);
                }
            },
            async {
                while let Some(chunk) = stderr.next().await {
                    err.extend_from_slice(&chunk);
                }
            }
        );
        (out, err)
    };
    let (result, (out, err)) =
        tokio::time::timeout(PATIENCE, async { tokio::join!(job.wait(), read) }).await.expect("the job ends");
    (result, out, err)
}

pub(crate) fn frame(kind: Kind, channel: u32, message: &impl Message) -> Vec<u8> {
    raw_frame(kind, channel, &message.encode_to_vec())
}

pub(crate) fn raw_frame(kind: Kind, channel: u32, body: &[u8]) -> Vec<u8> {
    [control_header(kind, channel, body.len() as u32).as_slice(), body].concat()
}

pub(crate) fn header(length: u32, kind: u8, channel: u32) -> Vec<u8> {
    [length.to_be_bytes().as_slice(), &[kind], &channel.to_be_bytes()].concat()
}

pub(crate) fn data(stream: Stream, offset: u64, bytes: &[u8]) -> Vec<u8> {
    [data_header(stream, 1, offset, bytes.len() as u32).as_slice(), bytes].concat()
}

pub(crate) fn ends(stream: Stream, length: u64) -> Vec<u8> {
    let stream = if stream == Stream::Stdout { proto::Stream::Stdout } else { proto::Stream::Stderr };
    frame(Kind::End, 1, &proto::End { stream: stream as i32, length })
}

pub(crate) fn server_hello() -> proto::ServerHello {
    proto::ServerHello {
        version_min: 1,
        version_max: 1,
        nonce: vec![1; limits::NONCE],
        boot_id: vec![2; 16],
        epoch: vec![3; 16],
        stdin_window: limits::WINDOW,
        max_jobs: 16,
        max_control: limits::CONTROL as u32,
        ..proto::ServerHello::default()
    }
}

pub(crate) fn hello() -> Vec<u8> {
    frame(Kind::ServerHello, 0, &server_hello())
}

pub(crate) fn accepted() -> Vec<u8> {
    let reply = proto::AuthReply { accepted: true, attempts_left: 0, host_name: "host".to_owned() };
    frame(Kind::AuthReply, 0, &reply)
}

pub(crate) fn report(bytes: &[u8]) -> proto::StreamReport {
    let blake3 = blake3::hash(bytes).as_bytes().to_vec();
    proto::StreamReport { length: bytes.len() as u64, blake3, held_open: false, closed_early: false }
}

/// The receipt of a command that ended well, having written these bytes.
pub(crate) fn receipt(stdout: &[u8], stderr: &[u8]) -> proto::Receipt {
    proto::Receipt {
        job_id: vec![7; 16],
        outcome: Some(proto::receipt::Outcome::Exited(proto::Exited { status: 0 })),
        stdin: Some(report(b"")),
        stdout: Some(report(stdout)),
        stderr: Some(report(stderr)),
        ..proto::Receipt::default()
    }
}

/// Both streams with their ends, as a good server sends them.
pub(crate) fn output(stdout: &[u8], stderr: &[u8]) -> Vec<u8> {
    [
        data(Stream::Stdout, 0, stdout),
        data(Stream::Stderr, 0, stderr),
        ends(Stream::Stdout, stdout.len() as u64),
        ends(Stream::Stderr, stderr.len() as u64),
    ]
    .concat()
}
