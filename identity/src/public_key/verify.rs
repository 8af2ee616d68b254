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

#[cfg(test)]
mod tests {
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{EcdsaKeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair};

    use super::super::rsa_numbers;
    use super::*;
    use crate::encoding::put_string;
    use crate::private_key::{PrivateKey, signing};

    fn blob(name: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        put_string(&mut out, name);
        put_string(&mut out, signature);
        out
    }

    fn parts(blob: &[u8]) -> (&[u8], &[u8]) {
        let mut reader = Reader::new(blob);
        (reader.string().unwrap(), reader.string().unwrap())
    }

    fn rsa() -> (PublicKey, Vec<u8>) {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref()).unwrap();
        let mut signature = vec![0; pair.public_modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), b"message", &mut signature).unwrap();
        (PublicKey::from_material(Material::Rsa { modulus, exponent }).unwrap(), signature)
    }

    #[test]
    fn an_algorithm_that_is_not_the_keys_own_is_refused() {
        // PITFALLS 25
        for curve in Curve::ALL {
            let pair = EcdsaKeyPair::generate(signing(curve)).unwrap();
            let key = PrivateKey::from_ecdsa(curve, pair).unwrap();
            let good = key.sign(b"message").unwrap();
            key.public().verify(&good, b"message").unwrap();
            let (own, signature) = parts(&good);
            for name in Curve::ALL.map(|other| other.algorithm().name().as_bytes()) {
                let verdict = key.public().verify(&blob(name, signature), b"message");
                assert_eq!(verdict.is_ok(), name == own);
            }
            let wrong = Err(VerifyError::WrongAlgorithm { key: curve.algorithm() });
            assert_eq!(key.public().verify(&blob(b"ssh-ed25519", signature), b"message"), wrong);
        }
        let key = PrivateKey::generate_ed25519().unwrap();
        let good = key.sign(b"message").unwrap();
        let (_, signature) = parts(&good);
        let wrong = Err(VerifyError::WrongAlgorithm { key: KeyAlgorithm::Ed25519 });
        assert_eq!(key.public().verify(&blob(b"ssh-ed25519ph", signature), b"message"), wrong);
    }

    #[test]
    fn rsa_verifies_both_sha2_and_never_sha1() {
        let (key, signature) = rsa();
        key.verify(&blob(b"rsa-sha2-256", &signature), b"message").unwrap();
        assert_eq!(
            key.verify(&blob(b"rsa-sha2-512", &signature), b"message"),
            Err(VerifyError::BadSignature)
        );
        let wrong = Err(VerifyError::WrongAlgorithm { key: KeyAlgorithm::Rsa { bits: 2048 } });
        assert_eq!(key.verify(&blob(b"ssh-rsa", &signature), b"message"), wrong);
    }

    #[test]
    fn a_signature_longer_than_its_key_is_refused() {
        let (key, signature) = rsa();
        let longer = [&[0], signature.as_slice()].concat();
        assert_eq!(key.verify(&blob(b"rsa-sha2-256", &longer), b"message"), Err(VerifyError::BadSignature));
    }

    #[test]
    fn rsa_keys_outside_the_limits_cost_no_mathematics() {
        // PITFALLS 18
        for (bytes, bits) in [(128, 1024), (1025, 8200), (2048, 16384)] {
            let material = Material::Rsa { modulus: vec![0xff; bytes], exponent: vec![1, 0, 1] };
            let key = PublicKey::from_material(material).unwrap();
            let verdict = key.verify(&blob(b"rsa-sha2-512", &vec![1; bytes]), b"message");
            assert_eq!(verdict, Err(VerifyError::RsaSize { bits }));
        }
    }

    #[test]
    fn a_point_on_no_curve_verifies_nothing() {
        let material = Material::Ecdsa { curve: Curve::P256, point: vec![4; 65] };
        let key = PublicKey::from_material(material).unwrap();
        let numbers = [0, 0, 0, 1, 1, 0, 0, 0, 1, 1];
        let signature = blob(b"ecdsa-sha2-nistp256", &numbers);
        assert_eq!(key.verify(&signature, b"message"), Err(VerifyError::BadSignature));
        let trailing = blob(b"ecdsa-sha2-nistp256", &[&numbers[..], &[0]].concat());
        assert_eq!(key.verify(&trailing, b"message"), Err(Malformed::Trailing.into()));
    }
}
