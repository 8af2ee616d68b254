//! Private key files: the OpenSSH format (in `openssh`), encrypted or not, and the older PEM forms when they are unencrypted.
//!
//! Takes the file's bytes. Whether others can read the file is [`crate::strict_modes`]' to say.

mod openssh;
mod rsa;

use std::fmt;

use aws_lc_rs::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

pub(crate) use openssh::MAGIC as OPENSSH_MAGIC;

use crate::der::{DerReader, INTEGER, OCTET_STRING, SEQUENCE};
use crate::encoding::Malformed;
use crate::limits::{BCRYPT_ROUNDS_MAX_COUNT, KEY_FILE_MAX, RSA_USE_MAX_BITS, RSA_USE_MIN_BITS};
use crate::private_key::{PrivateKey, signing};
use crate::public_key::{Curve, KeyAlgorithm, PublicKey, PublicKeyError, bit_length};

/// What a private key file holds.
#[derive(Debug)]
pub struct KeyFile {
    /// The public half; readable without the passphrase.
    pub public: PublicKey,
    /// The private half, or what it takes to get at it.
    pub state: KeyState,
}

/// The private half of a key file.
#[derive(Debug)]
pub enum KeyState {
    /// Not encrypted.
    Plain(PrivateKey),
    /// Wants a passphrase.
    Encrypted(EncryptedKey),
}

/// An encrypted private key: its public half, and [`EncryptedKey::decrypt`].
pub struct EncryptedKey {
    container: openssh::Container,
}

/// Why a private key can't be had from a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyError {
    /// Longer than [`KEY_FILE_MAX`].
    #[error("{bytes} bytes are no key file; the limit is {KEY_FILE_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// No `-----BEGIN … PRIVATE KEY-----`.
    #[error("this is not a private key")]
    NotAPrivateKey,
    /// The public half, where the private one is needed.
    #[error("this is a public key; the private one is needed")]
    PublicKey,
    /// No end line, or not base64 between the lines.
    #[error("the file is damaged: its base64 text is incomplete or malformed")]
    Pem,
    /// The content is broken.
    #[error("the private key is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The public half is broken or of a kind unknown here.
    #[error(transparent)]
    Public(#[from] PublicKeyError),
    /// Encrypted in one of the older PEM forms, whose key derivation is a single MD5.
    #[error("the key is encrypted in an old format that is not supported")]
    LegacyEncryption,
    /// A cipher or a key derivation unknown here.
    #[error("the key is encrypted with {}, which is not supported", .name.escape_debug())]
    UnsupportedCipher {
        /// As the file names it, cut at 64 bytes.
        name: String,
    },
    /// More rounds than anybody would wait for.
    #[error("{rounds} rounds of key derivation; the limit is {BCRYPT_ROUNDS_MAX_COUNT}")]
    TooManyRounds {
        /// As the file says.
        rounds: u32,
    },
    /// The passphrase doesn't decrypt the key.
    #[error("the passphrase is wrong")]
    WrongPassphrase,
    /// The private half belongs to another public key than the file says.
    #[error("the private and the public key don't belong together")]
    Inconsistent,
    /// An RSA key too short to be safe, or too long to be bearable.
    #[error(
        "an RSA key of {bits} bits is too {}: {RSA_USE_MIN_BITS} to {RSA_USE_MAX_BITS} are used",
        if *bits < RSA_USE_MIN_BITS { "short" } else { "long" }
    )]
    RsaSize {
        /// Its modulus, bits.
        bits: u32,
    },
    /// The cryptographic library doesn't take these numbers: inconsistent, or on no curve.
    #[error("the key's numbers are not acceptable")]
    Rejected,
}

impl KeyError {
    /// What to try, where the cause is known. `FILE` stands for the key's path.
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            KeyError::LegacyEncryption | KeyError::UnsupportedCipher { .. } => {
                Some("rewrite it in the current format: ssh-keygen -p -f FILE")
            }
            KeyError::PublicKey => Some("name the file without .pub"),
            KeyError::RsaSize { .. } | KeyError::Rejected => Some("make a new key: ssh-keygen -t ed25519"),
            _ => None,
        }
    }
}

impl KeyFile {
    /// Parses the bytes of a private key file, at most [`KEY_FILE_MAX`] of them.
    ///
    /// # Errors
    /// [`KeyError`]; some know a [`KeyError::hint`].
    pub fn parse(file: &[u8]) -> Result<Self, KeyError> {
        if file.len() > KEY_FILE_MAX {
            return Err(KeyError::TooLarge { bytes: file.len() });
        }
        let pem = Pem::parse(file)?;
        let key = match pem.label {
            b"OPENSSH PRIVATE KEY" => {
                let container = openssh::Container::parse(&pem.content)?;
                if container.is_encrypted() {
                    let public = container.public().clone();
                    return Ok(KeyFile { public, state: KeyState::Encrypted(EncryptedKey { container }) });
                }
                container.open()?
            }
            b"RSA PRIVATE KEY" => PrivateKey::from_rsa_pkcs1(pem.content)?,
            b"EC PRIVATE KEY" => from_sec1_or_pkcs8(&pem.content)?,
            b"PRIVATE KEY" => from_pkcs8(&pem.content)?,
            b"ENCRYPTED PRIVATE KEY" => return Err(KeyError::LegacyEncryption),
            _ => return Err(KeyError::NotAPrivateKey),
        };
        Ok(KeyFile { public: key.public().clone(), state: KeyState::Plain(key) })
    }

    /// The private key, if it isn't encrypted.
    pub fn into_plain(self) -> Option<PrivateKey> {
        match self.state {
            KeyState::Plain(key) => Some(key),
            KeyState::Encrypted(_) => None,
        }
    }
}

impl EncryptedKey {
    /// The public half.
    pub fn public(&self) -> &PublicKey {
        self.container.public()
    }

    /// Decrypts the key. Takes a tenth of a second or more, on purpose.
    ///
    /// # Errors
    /// [`KeyError::WrongPassphrase`], and whatever may be wrong with the key inside.
    pub fn decrypt(&self, passphrase: &[u8]) -> Result<PrivateKey, KeyError> {
        self.container.decrypt(passphrase)
    }
}

impl fmt::Debug for EncryptedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EncryptedKey({:?}, ..)", self.public())
    }
}

/// One PEM block (RFC 7468, read leniently: any line width, text around it).
struct Pem<'a> {
    label: &'a [u8],
    content: Zeroizing<Vec<u8>>,
}

impl<'a> Pem<'a> {
    fn parse(file: &'a [u8]) -> Result<Self, KeyError> {
        let mut lines = file.split(|byte| *byte == b'\n').map(|line| line.trim_ascii());
        let label = loop {
            let line = lines.next().ok_or_else(|| not_private(file))?;
            let label = line.strip_prefix(b"-----BEGIN ").and_then(|rest| rest.strip_suffix(b"-----"));
            if let Some(label) = label {
                break label;
            }
        };
        if label.ends_with(b"PUBLIC KEY") {
            return Err(KeyError::PublicKey);
        }
        // No reallocation, so no copies of the secret.
        let mut base64 = Zeroizing::new(Vec::with_capacity(file.len()));
        loop {
            let line = lines.next().ok_or(KeyError::Pem)?;
            if let Some(end) = line.strip_prefix(b"-----END ") {
                if end.strip_suffix(b"-----") != Some(label) {
                    return Err(KeyError::Pem);
                }
                break;
            }
            // RFC 1421 headers stand only in the encrypted forms: `Proc-Type: 4,ENCRYPTED`.
            if line.contains(&b':') {
                return Err(KeyError::LegacyEncryption);
            }
            base64.extend_from_slice(line);
        }
        let base64 = str::from_utf8(&base64).map_err(|_| KeyError::Pem)?;
        let content = Zeroizing::new(Base64::decode_vec(base64).map_err(|_| KeyError::Pem)?);
        Ok(Pem { label, content })
    }
}

/// The better of two errors for a file without a PEM block.
fn not_private(file: &[u8]) -> KeyError {
    let first = file.trim_ascii_start().split(u8::is_ascii_whitespace).next().unwrap_or_default();
    if KeyAlgorithm::is_known_name(first) { KeyError::PublicKey } else { KeyError::NotAPrivateKey }
}

fn from_sec1_or_pkcs8(der: &[u8]) -> Result<PrivateKey, KeyError> {
    for curve in Curve::ALL {
        if let Ok(pair) = EcdsaKeyPair::from_private_key_der(signing(curve), der) {
            return PrivateKey::from_ecdsa(curve, pair);
        }
    }
    Err(KeyError::Rejected)
}

fn from_pkcs8(der: &[u8]) -> Result<PrivateKey, KeyError> {
    if let Ok(pair) = Ed25519KeyPair::from_pkcs8(der) {
        return PrivateKey::from_ed25519(pair);
    }
    if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
        let key = PrivateKey::from_rsa_pkcs1(pkcs1_of_pkcs8(der)?)?;
        // Two parsers, one key: what was checked is what is used.
        let same = RsaKeyPair::from_der(key.to_private_key_der().bytes())
            .is_ok_and(|again| again.public_key().as_ref() == pair.public_key().as_ref());
        return if same { Ok(key) } else { Err(KeyError::Inconsistent) };
    }
    let rejected = |error| pkcs1_of_pkcs8(der).map_or(error, |inner| rejected_rsa(&inner));
    from_sec1_or_pkcs8(der).map_err(rejected)
}

/// Why the cryptographic library doesn't take an RSAPrivateKey (RFC 8017, appendix A.1.2), if that is what it is.
pub(crate) fn rejected_rsa(der: &[u8]) -> KeyError {
    let bits = || {
        let mut key = DerReader::new(DerReader::new(der).element(SEQUENCE)?);
        key.integer()?;
        key.integer().map(bit_length)
    };
    match bits() {
        Ok(bits) if !(RSA_USE_MIN_BITS..=RSA_USE_MAX_BITS).contains(&bits) => KeyError::RsaSize { bits },
        _ => KeyError::Rejected,
    }
}

/// The RSAPrivateKey inside a PrivateKeyInfo (RFC 5208, section 5): version, algorithm, OCTET STRING.
fn pkcs1_of_pkcs8(der: &[u8]) -> Result<Zeroizing<Vec<u8>>, Malformed> {
    let mut outer = DerReader::new(der);
    let mut info = DerReader::new(outer.element(SEQUENCE)?);
    info.element(INTEGER)?;
    info.element(SEQUENCE)?;
    Ok(Zeroizing::new(info.element(OCTET_STRING)?.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_beyond_the_limit_is_refused_before_it_is_read() {
        let file = vec![b'A'; KEY_FILE_MAX + 1];
        assert_eq!(KeyFile::parse(&file).unwrap_err(), KeyError::TooLarge { bytes: KEY_FILE_MAX + 1 });
    }

    #[test]
    fn an_encrypted_key_in_an_old_format_says_what_to_do() {
        for text in [
            "-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END RSA PRIVATE KEY-----\n",
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
        ] {
            let error = KeyFile::parse(text.as_bytes()).unwrap_err();
            assert_eq!(error, KeyError::LegacyEncryption);
            assert!(error.hint().unwrap().contains("ssh-keygen -p -f FILE"));
        }
    }

    #[test]
    fn a_public_key_in_place_of_a_private_one_is_named() {
        for text in [
            crate::public_key::tests::ED25519,
            "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
        ] {
            assert_eq!(KeyFile::parse(text.as_bytes()).unwrap_err(), KeyError::PublicKey);
        }
    }

    #[test]
    fn damaged_text_is_an_error_and_no_panic() {
        // PITFALLS 13
        for text in [
            "",
            "-----BEGIN OPENSSH PRIVATE KEY-----",
            "-----BEGIN OPENSSH PRIVATE KEY-----\nb3BlbnNzaC1rZXktdjEA\n-----END OPENSSH PRIVATE KEY-----",
            "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n",
            "-----BEGIN EC PRIVATE KEY-----\n\n-----END EC PRIVATE KEY-----\n",
            "-----BEGIN RSA PRIVATE KEY-----\nMAMCAQA=\n-----END RSA PRIVATE KEY-----\n",
        ] {
            assert!(KeyFile::parse(text.as_bytes()).is_err(), "{text}");
        }
    }
}
