//! TLS 1.3 with SSH host keys as raw public keys (RFC 7250). No resumption, no 0-RTT: both would skip the check of the
//! host's key. The key exchange prefers the hybrid X25519MLKEM768.

mod client;
mod server;

use std::sync::Arc;

use remora_identity::KeyAlgorithm;
use rustls::SignatureScheme;
use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use client::{ConnectError, HostKey, connect};
pub use server::{AcceptError, HostKeyError, HostKeys, accept};

/// Label of the exporter that binds a user's proof to its connection (RFC 9266).
const EXPORTER_LABEL: &[u8] = b"EXPORTER-Channel-Binding";

/// What of TLS is used: version 1.3 alone, and AES-128-GCM first, since it is the fastest on machines with AES instructions
/// and no weaker than the rest of the handshake.
fn provider() -> Arc<CryptoProvider> {
    static PROVIDER: std::sync::OnceLock<Arc<CryptoProvider>> = std::sync::OnceLock::new();
    PROVIDER
        .get_or_init(|| {
            use aws_lc_rs::cipher_suite as suite;
            Arc::new(CryptoProvider {
                cipher_suites: vec![
                    suite::TLS13_AES_128_GCM_SHA256,
                    suite::TLS13_AES_256_GCM_SHA384,
                    suite::TLS13_CHACHA20_POLY1305_SHA256,
                ],
                ..aws_lc_rs::default_provider()
            })
        })
        .clone()
}

/// The signature schemes a host key can make, best first. None for keys that TLS 1.3 has no scheme for.
fn schemes(algorithm: KeyAlgorithm) -> &'static [SignatureScheme] {
    match algorithm {
        KeyAlgorithm::Ed25519 => &[SignatureScheme::ED25519],
        KeyAlgorithm::EcdsaP256 => &[SignatureScheme::ECDSA_NISTP256_SHA256],
        KeyAlgorithm::EcdsaP384 => &[SignatureScheme::ECDSA_NISTP384_SHA384],
        KeyAlgorithm::Rsa { .. } => &[
            SignatureScheme::RSA_PSS_SHA256,
            SignatureScheme::RSA_PSS_SHA384,
            SignatureScheme::RSA_PSS_SHA512,
        ],
        _ => &[],
    }
}

fn exporter(connection: &rustls::Connection) -> Result<[u8; 32], rustls::Error> {
    connection.export_keying_material([0; 32], EXPORTER_LABEL, None)
}
