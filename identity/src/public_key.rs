//! SSH public keys: parsing, names, fingerprints. What signatures they verify is in `verify`, their TLS form in `spki`.
//!
//! Known are Ed25519, ECDSA over the three NIST curves, and RSA. Certificates, DSA and hardware keys aren't.

mod spki;
mod verify;

use std::fmt;

use base64ct::{Base64, Base64Unpadded, Encoding as _};

pub(crate) use spki::{OID_ED25519, rsa_numbers};
pub use verify::VerifyError;

use crate::encoding::{Malformed, Reader, put_mpint, put_string};
use crate::limits::{PUBLIC_KEY_BLOB_MAX, RSA_PARSE_MAX_BITS, RSA_PARSE_MIN_BITS};

/// What kind of key, exactly: a policy that names one kind lets no other through (PITFALLS 25).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8709).
    Ed25519,
    /// ECDSA over NIST P-256 (RFC 5656).
    EcdsaP256,
    /// ECDSA over NIST P-384 (RFC 5656).
    EcdsaP384,
    /// ECDSA over NIST P-521 (RFC 5656).
    EcdsaP521,
    /// RSA (RFC 4253, RFC 8332).
    Rsa {
        /// Length of the modulus.
        bits: u32,
    },
}

impl KeyAlgorithm {
    /// The key type's name in SSH, such as `ssh-ed25519`.
    pub fn name(self) -> &'static str {
        match self {
            KeyAlgorithm::Ed25519 => "ssh-ed25519",
            KeyAlgorithm::EcdsaP256 => "ecdsa-sha2-nistp256",
            KeyAlgorithm::EcdsaP384 => "ecdsa-sha2-nistp384",
            KeyAlgorithm::EcdsaP521 => "ecdsa-sha2-nistp521",
            KeyAlgorithm::Rsa { .. } => "ssh-rsa",
        }
    }

    /// Whether `name` is a key type this crate reads.
    pub(crate) fn is_known_name(name: &[u8]) -> bool {
        name == b"ssh-ed25519" || name == b"ssh-rsa" || Curve::by_key_type(name).is_some()
    }
}

/// The name that `ssh-keygen -l` prints in brackets, such as `ED25519`.
impl fmt::Display for KeyAlgorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            KeyAlgorithm::Ed25519 => "ED25519",
            KeyAlgorithm::EcdsaP256 | KeyAlgorithm::EcdsaP384 | KeyAlgorithm::EcdsaP521 => "ECDSA",
            KeyAlgorithm::Rsa { .. } => "RSA",
        })
    }
}

/// A NIST curve as SSH knows it (RFC 5656, section 10.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Curve {
    P256,
    P384,
    P521,
}

impl Curve {
    pub(crate) const ALL: [Curve; 3] = [Curve::P256, Curve::P384, Curve::P521];

    pub(crate) fn by_key_type(name: &[u8]) -> Option<Curve> {
        Curve::ALL.into_iter().find(|curve| curve.algorithm().name().as_bytes() == name)
    }

    /// The curve's identifier inside a key blob.
    pub(crate) fn identifier(self) -> &'static [u8] {
        match self {
            Curve::P256 => b"nistp256",
            Curve::P384 => b"nistp384",
            Curve::P521 => b"nistp521",
        }
    }

    /// Bytes of a coordinate, of r and of s.
    pub(crate) fn width(self) -> usize {
        match self {
            Curve::P256 => 32,
            Curve::P384 => 48,
            Curve::P521 => 66,
        }
    }

    pub(crate) fn algorithm(self) -> KeyAlgorithm {
        match self {
            Curve::P256 => KeyAlgorithm::EcdsaP256,
            Curve::P384 => KeyAlgorithm::EcdsaP384,
            Curve::P521 => KeyAlgorithm::EcdsaP521,
        }
    }

    /// Whether `point` is an uncompressed point by its form. Whether it lies on the curve is checked when it is used.
    fn is_uncompressed(self, point: &[u8]) -> bool {
        point.len() == 1 + 2 * self.width() && point.first() == Some(&4)
    }
}

/// The numbers of a key.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Material {
    Ed25519([u8; 32]),
    Ecdsa { curve: Curve, point: Vec<u8> },
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
}

/// An SSH public key. Two are equal when their blobs are, and a key has exactly one blob.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct PublicKey {
    blob: Vec<u8>,
    material: Material,
}

/// Why something is no public key of a kind known here.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PublicKeyError {
    /// The encoding is broken.
    #[error("the public key is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// A type that isn't known here: a certificate, DSA, a hardware key.
    #[error("keys of type {} are not supported", escape(.name))]
    UnsupportedType {
        /// The type as the key gives it, cut at 64 bytes. From a peer: escape it before showing it.
        name: String,
    },
    /// The text says one type and the key another.
    #[error("the line names one key type and the key is of another")]
    TypeMismatch,
    /// The base64 part isn't base64.
    #[error("the key is not valid base64")]
    Base64,
    /// The text has no key.
    #[error("there is no key: expected a type and base64")]
    NoKey,
    /// An RSA modulus of a length nobody should use.
    #[error("an RSA key of {bits} bits: {RSA_PARSE_MIN_BITS} to {RSA_PARSE_MAX_BITS} are read")]
    RsaSize {
        /// Its length.
        bits: u32,
    },
}

fn escape(text: &str) -> impl fmt::Display + '_ {
    text.escape_debug()
}

impl PublicKey {
    /// Parses a key blob (RFC 4253, section 6.6), at most [`PUBLIC_KEY_BLOB_MAX`] bytes.
    ///
    /// # Errors
    /// [`PublicKeyError`] for anything but one whole key in its only encoding.
    pub fn from_blob(blob: &[u8]) -> Result<Self, PublicKeyError> {
        let mut reader = Reader::bounded(blob, PUBLIC_KEY_BLOB_MAX)?;
        let name = reader.string()?;
        let material = Material::read(name, &mut reader)?;
        reader.finish()?;
        Ok(PublicKey { blob: blob.to_vec(), material })
    }

    /// Parses `type base64` with anything behind it ignored: a `.pub` file, or the key part of a line of `authorized_keys`
    /// or `known_hosts`.
    ///
    /// # Errors
    /// [`PublicKeyError`], also when the type in front differs from the key's own.
    pub fn from_text(text: &str) -> Result<Self, PublicKeyError> {
        let mut fields =
            text.split([' ', '\t', '\r', '\n']).filter(|field| !field.is_empty()).map(str::as_bytes);
        let name = fields.next().ok_or(PublicKeyError::NoKey)?;
        let base64 = fields.next().ok_or(PublicKeyError::NoKey)?;
        PublicKey::from_fields(name, base64)
    }

    pub(crate) fn from_fields(name: &[u8], base64: &[u8]) -> Result<Self, PublicKeyError> {
        if !KeyAlgorithm::is_known_name(name) {
            return Err(unsupported(name));
        }
        let limit = PUBLIC_KEY_BLOB_MAX.div_ceil(3) * 4;
        if base64.len() > limit {
            return Err(Malformed::TooLong { bytes: base64.len(), limit }.into());
        }
        let base64 = str::from_utf8(base64).map_err(|_| PublicKeyError::Base64)?;
        let blob = Base64::decode_vec(base64).map_err(|_| PublicKeyError::Base64)?;
        let key = PublicKey::from_blob(&blob)?;
        if key.name().as_bytes() != name {
            return Err(PublicKeyError::TypeMismatch);
        }
        Ok(key)
    }

    pub(crate) fn from_material(material: Material) -> Result<Self, PublicKeyError> {
        let mut blob = Vec::new();
        match &material {
            Material::Ed25519(point) => {
                put_string(&mut blob, b"ssh-ed25519");
                put_string(&mut blob, point);
            }
            Material::Ecdsa { curve, point } => {
                put_string(&mut blob, curve.algorithm().name().as_bytes());
                put_string(&mut blob, curve.identifier());
                put_string(&mut blob, point);
            }
            Material::Rsa { modulus, exponent } => {
                put_string(&mut blob, b"ssh-rsa");
                put_mpint(&mut blob, exponent);
                put_mpint(&mut blob, modulus);
            }
        }
        // One place judges lengths and forms: what is built here is read back.
        PublicKey::from_blob(&blob)
    }

    /// The key in SSH encoding.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    pub(crate) fn material(&self) -> &Material {
        &self.material
    }

    /// What kind of key it is.
    pub fn algorithm(&self) -> KeyAlgorithm {
        match &self.material {
            Material::Ed25519(_) => KeyAlgorithm::Ed25519,
            Material::Ecdsa { curve, .. } => curve.algorithm(),
            Material::Rsa { modulus, .. } => KeyAlgorithm::Rsa { bits: bit_length(modulus) },
        }
    }

    /// The key type's name in SSH, such as `ssh-ed25519`.
    pub fn name(&self) -> &'static str {
        self.algorithm().name()
    }

    /// `SHA256:` and the unpadded base64 of the blob's SHA-256, as `ssh-keygen -l` prints it.
    pub fn fingerprint(&self) -> String {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &self.blob);
        format!("SHA256:{}", Base64Unpadded::encode_string(digest.as_ref()))
    }

    /// `type base64`, as a `.pub` file starts.
    pub fn to_text(&self) -> String {
        format!("{} {}", self.name(), Base64::encode_string(&self.blob))
    }
}

/// The fingerprint: a key's blob says nothing to a reader.
impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} {})", self.name(), self.fingerprint())
    }
}

impl Material {
    /// Reads what follows the type's name in a blob.
    fn read(name: &[u8], reader: &mut Reader<'_>) -> Result<Self, PublicKeyError> {
        if name == b"ssh-ed25519" {
            let point =
                reader.string()?.try_into().map_err(|_| Malformed::Unexpected("length of an Ed25519 key"))?;
            return Ok(Material::Ed25519(point));
        }
        if let Some(curve) = Curve::by_key_type(name) {
            if reader.string()? != curve.identifier() {
                return Err(PublicKeyError::TypeMismatch);
            }
            let point = reader.string()?;
            if !curve.is_uncompressed(point) {
                return Err(Malformed::Unexpected("form of a curve point").into());
            }
            return Ok(Material::Ecdsa { curve, point: point.to_vec() });
        }
        if name == b"ssh-rsa" {
            let exponent = reader.mpint()?;
            let modulus = reader.mpint()?;
            let bits = bit_length(modulus);
            if !(RSA_PARSE_MIN_BITS..=RSA_PARSE_MAX_BITS).contains(&bits) {
                return Err(PublicKeyError::RsaSize { bits });
            }
            // aws-lc takes exponents up to 33 bits; ssh-keygen writes 65537, and very old ones 35 or 3.
            let odd = exponent.last().is_some_and(|last| last & 1 == 1);
            if !odd || exponent == [1] || exponent.len() > 8 {
                return Err(Malformed::Unexpected("RSA exponent").into());
            }
            return Ok(Material::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() });
        }
        Err(unsupported(name))
    }
}

fn unsupported(name: &[u8]) -> PublicKeyError {
    let name = name.get(..64).unwrap_or(name);
    PublicKeyError::UnsupportedType { name: String::from_utf8_lossy(name).into_owned() }
}

/// Bits of a big-endian number without leading zero bytes.
pub(crate) fn bit_length(number: &[u8]) -> u32 {
    match number.first() {
        Some(first) => (number.len() as u32).saturating_mul(8).saturating_sub(first.leading_zeros()),
        None => 0,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// From `ssh-keygen -t ed25519`, made for these tests.
    pub(crate) const ED25519: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f test@example";

    #[test]
    fn text_and_blob_go_there_and_back() {
        let key = PublicKey::from_text(ED25519).unwrap();
        assert_eq!(key.algorithm(), KeyAlgorithm::Ed25519);
        assert_eq!(PublicKey::from_blob(key.blob()).unwrap(), key);
        assert!(ED25519.starts_with(&key.to_text()));
    }

    #[test]
    fn a_key_of_another_type_than_its_line_says_is_refused() {
        // PITFALLS 25
        let text = ED25519.replacen("ssh-ed25519", "ssh-rsa", 1);
        assert_eq!(PublicKey::from_text(&text), Err(PublicKeyError::TypeMismatch));
        let mut blob = Vec::new();
        put_string(&mut blob, b"ecdsa-sha2-nistp256");
        put_string(&mut blob, b"nistp384");
        put_string(&mut blob, &[4; 97]);
        assert_eq!(PublicKey::from_blob(&blob), Err(PublicKeyError::TypeMismatch));
    }

    #[test]
    fn bytes_behind_a_key_are_refused() {
        let mut blob = PublicKey::from_text(ED25519).unwrap().blob().to_vec();
        blob.push(0);
        assert_eq!(PublicKey::from_blob(&blob), Err(Malformed::Trailing.into()));
    }

    #[test]
    fn a_blob_beyond_the_limit_is_refused_before_it_is_read() {
        let blob = vec![0; PUBLIC_KEY_BLOB_MAX + 1];
        assert!(matches!(
            PublicKey::from_blob(&blob),
            Err(PublicKeyError::Malformed(Malformed::TooLong { .. }))
        ));
    }

    #[test]
    fn rsa_keys_of_absurd_length_are_refused() {
        // PITFALLS 18
        for (bytes, bits) in [(64, 512), (2049, 16392)] {
            let material = Material::Rsa { modulus: vec![0xff; bytes], exponent: vec![1, 0, 1] };
            assert_eq!(PublicKey::from_material(material), Err(PublicKeyError::RsaSize { bits }));
        }
    }

    #[test]
    fn certificates_and_hardware_keys_are_unsupported_and_not_misread() {
        // PITFALLS 26
        let mut blob = Vec::new();
        put_string(&mut blob, b"ssh-ed25519-cert-v01@openssh.com");
        put_string(&mut blob, &[1; 32]);
        assert!(matches!(PublicKey::from_blob(&blob), Err(PublicKeyError::UnsupportedType { .. })));
    }

    #[test]
    fn an_error_shows_a_hostile_type_name_escaped() {
        let mut blob = Vec::new();
        put_string(&mut blob, b"\x1b]0;title\x07");
        let error = PublicKey::from_blob(&blob).unwrap_err().to_string();
        assert!(!error.contains('\x1b') && !error.contains('\x07'), "{error:?}");
    }
}
