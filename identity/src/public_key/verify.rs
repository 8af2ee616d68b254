//! SSH signatures (RFC 4253, section 6.6): a name and bytes. The name must fit the key exactly; SHA-1 is nobody's here.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ECDSA_P521_SHA512_FIXED, ED25519,
    EcdsaVerificationAlgorithm, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA512,
    RsaPublicKeyComponents, UnparsedPublicKey,
};

use super::{Curve, KeyAlgorithm, Material, PublicKey};
use crate::encoding::{Malformed, Reader, left_padded};
use crate::limits::{RSA_USE_MAX_BITS, RSA_USE_MIN_BITS, SSHSIG_MAX};

/// Why a signature doesn't count.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VerifyError {
    /// The encoding is broken.
    #[error("the signature is malformed: {0}")]
    Malformed(#[from] Malformed),
    /// The signature's algorithm isn't one of this key's, or it is RSA with SHA-1.
    #[error("the signature's algorithm doesn't fit a key of type {}", .key.name())]
    WrongAlgorithm {
        /// The key's kind.
        key: KeyAlgorithm,
    },
    /// An RSA key that is parsed but not used.
    #[error("an RSA key of {bits} bits: {RSA_USE_MIN_BITS} to {RSA_USE_MAX_BITS} are used")]
    RsaSize {
        /// Its length.
        bits: u32,
    },
    /// The mathematics say no: another key, another message, or a key that is no point on its curve.
    #[error("the signature is not by this key over this message")]
    BadSignature,
}

impl PublicKey {
    /// Verifies an SSH signature blob over `message`.
    ///
    /// RSA keys verify `rsa-sha2-256` and `rsa-sha2-512` (RFC 8332), never `ssh-rsa`, which is SHA-1.
    ///
    /// # Errors
    /// [`VerifyError`] when it is anything but a good signature by this key in the algorithm of this key.
    pub fn verify(&self, signature_blob: &[u8], message: &[u8]) -> Result<(), VerifyError> {
        let mut reader = Reader::bounded(signature_blob, SSHSIG_MAX)?;
        let name = reader.string()?;
        let signature = reader.string()?;
        reader.finish()?;

        let wrong = VerifyError::WrongAlgorithm { key: self.algorithm() };
        match self.material() {
            Material::Ed25519(point) => {
                if name != b"ssh-ed25519" {
                    return Err(wrong);
                }
                UnparsedPublicKey::new(&ED25519, point)
                    .verify(message, signature)
                    .map_err(|_| VerifyError::BadSignature)
            }
            Material::Ecdsa { curve, point } => {
                if name != curve.algorithm().name().as_bytes() {
                    return Err(wrong);
                }
                let signature = fixed_signature(*curve, signature)?;
                UnparsedPublicKey::new(verification(*curve), point)
                    .verify(message, &signature)
                    .map_err(|_| VerifyError::BadSignature)
            }
            Material::Rsa { modulus, exponent } => {
                let parameters = match name {
                    b"rsa-sha2-256" => &RSA_PKCS1_2048_8192_SHA256,
                    b"rsa-sha2-512" => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return Err(wrong),
                };
                if let KeyAlgorithm::Rsa { bits } = self.algorithm()
                    && !(RSA_USE_MIN_BITS..=RSA_USE_MAX_BITS).contains(&bits)
                {
                    return Err(VerifyError::RsaSize { bits });
                }
                if signature.len() > modulus.len() {
                    return Err(VerifyError::BadSignature);
                }
                // Some agents drop leading zeros; OpenSSH (ssh-rsa.c) puts them back, too.
                let signature = left_padded(signature, modulus.len()).ok_or(VerifyError::BadSignature)?;
                RsaPublicKeyComponents { n: modulus.as_slice(), e: exponent.as_slice() }
                    .verify(parameters, message, &signature)
                    .map_err(|_| VerifyError::BadSignature)
            }
        }
    }
}

fn verification(curve: Curve) -> &'static EcdsaVerificationAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED,
    }
}

/// RFC 5656, section 3.1.2: `mpint r, mpint s`; wanted is r and s, each as wide as the field.
fn fixed_signature(curve: Curve, signature: &[u8]) -> Result<Vec<u8>, VerifyError> {
    let mut reader = Reader::new(signature);
    let r = reader.mpint()?;
    let s = reader.mpint()?;
    reader.finish()?;
    let mut fixed = Vec::with_capacity(2 * curve.width());
    for number in [r, s] {
        fixed.extend_from_slice(&left_padded(number, curve.width()).ok_or(VerifyError::BadSignature)?);
    }
    Ok(fixed)
}
