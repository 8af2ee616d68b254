//! Private keys: what they sign, and the form a TLS library takes them in. Reading them from files is in `key_file`.
//!
//! Secrets are zeroized when dropped, here and in aws-lc, and no `Debug` shows them.

use std::fmt;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, ECDSA_P521_SHA512_FIXED_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA512, RsaKeyPair,
};
use base64ct::{Base64, Encoding as _};
use zeroize::Zeroizing;

use crate::der::{self, OCTET_STRING, SEQUENCE};
use crate::encoding::{put_mpint, put_string};
use crate::key_file::{KeyError, rejected_rsa};
use crate::public_key::{Curve, Material, OID_ED25519, PublicKey, rsa_numbers};

/// A private key that can sign.
pub struct PrivateKey {
    public: PublicKey,
    signer: Signer,
    der: PrivateKeyDer,
}

enum Signer {
    Ed25519(Ed25519KeyPair),
    Ecdsa(Curve, EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

/// A private key in DER, each kind in the form that TLS libraries take: Ed25519 as PKCS#8 (RFC 8410), RSA as PKCS#1
/// (RFC 8017), ECDSA as SEC1 (RFC 5915).
#[derive(Clone)]
#[non_exhaustive]
pub enum PrivateKeyDer {
    /// PrivateKeyInfo.
    Pkcs8(Zeroizing<Vec<u8>>),
    /// RSAPrivateKey.
    Pkcs1(Zeroizing<Vec<u8>>),
    /// ECPrivateKey.
    Sec1(Zeroizing<Vec<u8>>),
}

impl PrivateKeyDer {
    /// The DER bytes.
    pub fn bytes(&self) -> &[u8] {
        match self {
            PrivateKeyDer::Pkcs8(der) | PrivateKeyDer::Pkcs1(der) | PrivateKeyDer::Sec1(der) => der,
        }
    }
}

impl fmt::Debug for PrivateKeyDer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PrivateKeyDer::Pkcs8(_) => "Pkcs8(..)",
            PrivateKeyDer::Pkcs1(_) => "Pkcs1(..)",
            PrivateKeyDer::Sec1(_) => "Sec1(..)",
        })
    }
}

/// The cryptographic library couldn't sign or make a key. No input leads there; running out of memory or entropy may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the cryptographic library failed")]
pub struct CryptoFailure;

impl PrivateKey {
    /// Makes a new Ed25519 key.
    ///
    /// # Errors
    /// [`CryptoFailure`] when the system gives no randomness.
    pub fn generate_ed25519() -> Result<Self, CryptoFailure> {
        let mut seed = Zeroizing::new([0; 32]);
        aws_lc_rs::rand::fill(seed.as_mut_slice()).map_err(|_| CryptoFailure)?;
        PrivateKey::from_ed25519_seed(&seed).map_err(|_| CryptoFailure)
    }

    pub(crate) fn from_ed25519_seed(seed: &[u8; 32]) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| KeyError::Rejected)?;
        PrivateKey::from_ed25519(pair)
    }

    pub(crate) fn from_ed25519(pair: Ed25519KeyPair) -> Result<Self, KeyError> {
        let point = pair.public_key().as_ref().try_into().map_err(|_| KeyError::Rejected)?;
        let public = PublicKey::from_material(Material::Ed25519(point))?;
        let seed = seed(&pair).map_err(|_| KeyError::Rejected)?;
        // RFC 8410, section 7: version 0, algorithm, the seed as an OCTET STRING inside the OCTET STRING.
        let der = der::element(
            SEQUENCE,
            &[
                &der::integer(&[]),
                &der::element(SEQUENCE, &[OID_ED25519]),
                &der::element(OCTET_STRING, &[&der::element(OCTET_STRING, &[seed.as_slice()])]),
            ],
        );
        Ok(PrivateKey { public, signer: Signer::Ed25519(pair), der: PrivateKeyDer::Pkcs8(der) })
    }

    pub(crate) fn from_ecdsa(curve: Curve, pair: EcdsaKeyPair) -> Result<Self, KeyError> {
        let point = pair.public_key().as_ref().to_vec();
        let public = PublicKey::from_material(Material::Ecdsa { curve, point })?;
        let der = pair.private_key().as_der().map_err(|_| KeyError::Rejected)?;
        let der = PrivateKeyDer::Sec1(Zeroizing::new(der.as_ref().to_vec()));
        Ok(PrivateKey { public, signer: Signer::Ecdsa(curve, pair), der })
    }

    pub(crate) fn from_rsa_pkcs1(der: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let pair = RsaKeyPair::from_der(&der).map_err(|_| rejected_rsa(&der))?;
        let (modulus, exponent) = rsa_numbers(pair.public_key().as_ref()).map_err(KeyError::Malformed)?;
        let public = PublicKey::from_material(Material::Rsa { modulus, exponent })?;
        Ok(PrivateKey { public, signer: Signer::Rsa(pair), der: PrivateKeyDer::Pkcs1(der) })
    }

    /// The public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message` and gives the SSH signature blob: algorithm name, signature. RSA signs as `rsa-sha2-512`.
    ///
    /// # Errors
    /// [`CryptoFailure`] when the library fails; no message is refused.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, CryptoFailure> {
        let (name, signature) = match &self.signer {
            Signer::Ed25519(pair) => {
                ("ssh-ed25519", pair.try_sign(message).map_err(|_| CryptoFailure)?.as_ref().to_vec())
            }
            Signer::Ecdsa(curve, pair) => {
                let fixed = pair.sign(&SystemRandom::new(), message).map_err(|_| CryptoFailure)?;
                let (r, s) = fixed.as_ref().split_at_checked(curve.width()).ok_or(CryptoFailure)?;
                let mut signature = Vec::new();
                put_mpint(&mut signature, r);
                put_mpint(&mut signature, s);
                (curve.algorithm().name(), signature)
            }
            Signer::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA512, &SystemRandom::new(), message, &mut signature)
                    .map_err(|_| CryptoFailure)?;
                ("rsa-sha2-512", signature)
            }
        };
        let mut blob = Vec::new();
        put_string(&mut blob, name.as_bytes());
        put_string(&mut blob, &signature);
        Ok(blob)
    }

    /// The key in DER, for a TLS library. The bytes zeroize themselves.
    pub fn to_private_key_der(&self) -> PrivateKeyDer {
        self.der.clone()
    }

    /// The text of an unencrypted OpenSSH private key file (PROTOCOL.key), as `ssh-keygen -N ''` writes it.
    /// Line breaks in `comment` become spaces.
    ///
    /// # Errors
    /// [`WriteError`] for keys other than Ed25519, the only ones this crate makes.
    pub fn to_openssh(&self, comment: &str) -> Result<Zeroizing<String>, WriteError> {
        let (Signer::Ed25519(pair), Material::Ed25519(point)) = (&self.signer, self.public.material()) else {
            return Err(WriteError::NotEd25519);
        };
        let seed = seed(pair)?;
        let comment = comment.replace(['\n', '\r'], " ");
        let mut check = [0; 4];
        aws_lc_rs::rand::fill(&mut check).map_err(|_| CryptoFailure)?;

        // Room for everything, so that no reallocation leaves a copy of the secret behind.
        let mut secret = Zeroizing::new(Vec::with_capacity(256 + comment.len()));
        secret.extend_from_slice(&check);
        secret.extend_from_slice(&check);
        put_string(&mut secret, b"ssh-ed25519");
        put_string(&mut secret, point);
        let mut both = Zeroizing::new([0; 64]);
        for (to, from) in both.iter_mut().zip(seed.iter().chain(point)) {
            *to = *from;
        }
        put_string(&mut secret, both.as_slice());
        put_string(&mut secret, comment.as_bytes());
        let mut pad = 1;
        while secret.len() % 8 != 0 {
            secret.push(pad);
            pad += 1;
        }

        let mut file = Zeroizing::new(Vec::with_capacity(256 + secret.len()));
        file.extend_from_slice(crate::key_file::OPENSSH_MAGIC);
        put_string(&mut file, b"none");
        put_string(&mut file, b"none");
        put_string(&mut file, b"");
        file.extend_from_slice(&1u32.to_be_bytes());
        put_string(&mut file, self.public.blob());
        put_string(&mut file, &secret);

        let base64 = Zeroizing::new(Base64::encode_string(&file));
        let mut text = Zeroizing::new(String::with_capacity(128 + base64.len() + base64.len() / 70));
        text.push_str("-----BEGIN OPENSSH PRIVATE KEY-----\n");
        let mut rest = base64.as_str();
        while let Some((line, further)) = rest.split_at_checked(70) {
            text.push_str(line);
            text.push('\n');
            rest = further;
        }
        if !rest.is_empty() {
            text.push_str(rest);
            text.push('\n');
        }
        text.push_str("-----END OPENSSH PRIVATE KEY-----\n");
        Ok(text)
    }
}

/// Why a private key can't be written as a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// A kind of key that this crate only reads.
    #[error("only Ed25519 private keys are written")]
    NotEd25519,
    /// See there.
    #[error(transparent)]
    Crypto(#[from] CryptoFailure),
}

fn seed(pair: &Ed25519KeyPair) -> Result<Zeroizing<[u8; 32]>, CryptoFailure> {
    use aws_lc_rs::encoding::AsBigEndian as _;
    let seed = pair.seed().map_err(|_| CryptoFailure)?;
    let bytes = seed.as_be_bytes().map_err(|_| CryptoFailure)?;
    Ok(Zeroizing::new(bytes.as_ref().try_into().map_err(|_| CryptoFailure)?))
}

pub(crate) fn signing(curve: Curve) -> &'static EcdsaSigningAlgorithm {
    match curve {
        Curve::P256 => &ECDSA_P256_SHA256_FIXED_SIGNING,
        Curve::P384 => &ECDSA_P384_SHA384_FIXED_SIGNING,
        Curve::P521 => &ECDSA_P521_SHA512_FIXED_SIGNING,
    }
}

/// The public half only.
impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey({} {}, ..)", self.public.name(), self.public.fingerprint())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key_file::{KeyFile, KeyState};

    #[test]
    fn a_new_key_signs_and_its_file_reads_back() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let signature = key.sign(b"message").unwrap();
        key.public().verify(&signature, b"message").unwrap();
        assert!(key.public().verify(&signature, b"massage").is_err());

        let text = key.to_openssh("host key\nof this machine").unwrap();
        let base64: String = text.lines().filter(|line| !line.starts_with('-')).collect();
        let content = Base64::decode_vec(&base64).unwrap();
        assert!(content.windows(24).any(|window| window == b"host key of this machine"));
        // With the line ends of another system, and text around it, too.
        let moved = format!("note\r\n{}", text.replace('\n', "\r\n"));
        assert_eq!(KeyFile::parse(moved.as_bytes()).unwrap().public, *key.public());

        let file = KeyFile::parse(text.as_bytes()).unwrap();
        assert_eq!(file.public, *key.public());
        let KeyState::Plain(read) = file.state else { panic!("encrypted") };
        assert_eq!(read.to_private_key_der().bytes(), key.to_private_key_der().bytes());
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = PrivateKey::generate_ed25519().unwrap();
        let der = key.to_private_key_der();
        let shown = format!("{key:?} {der:?}");
        let secret = &der.bytes()[16..];
        assert!(!shown.contains(&Base64::encode_string(secret)), "{shown}");
        assert!(
            shown.starts_with("PrivateKey(ssh-ed25519 SHA256:") && shown.ends_with("Pkcs8(..)"),
            "{shown}"
        );
    }
}
