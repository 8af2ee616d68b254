//! The OpenSSH private key format (PROTOCOL.key): a public key, and an encrypted or plain section with the private one.
//!
//! Deriving the key and decrypting is ssh-key's; judging what was decrypted is done here, with limits.

use ssh_key::{Cipher, Kdf};
use zeroize::Zeroizing;

use super::KeyError;
use super::rsa;
use crate::encoding::{Malformed, Reader, left_padded};
use crate::limits::BCRYPT_ROUNDS_MAX_COUNT;
use crate::private_key::{PrivateKey, signing};
use crate::public_key::{Curve, PublicKey, PublicKeyError};

/// What every file starts with, behind its base64.
pub(crate) const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A parsed file whose private section wasn't looked into yet.
pub(super) struct Container {
    public: PublicKey,
    encryption: Option<Encryption>,
    section: Zeroizing<Vec<u8>>,
}

struct Encryption {
    cipher: Cipher,
    kdf: Kdf,
    tag: Option<[u8; 16]>,
}

impl Container {
    pub(super) fn parse(content: &[u8]) -> Result<Self, KeyError> {
        let mut reader = Reader::new(content);
        if reader.bytes(MAGIC.len())? != MAGIC {
            return Err(Malformed::Unexpected("file version").into());
        }
        let cipher = reader.string()?;
        let kdf = reader.string()?;
        let kdf_options = reader.string()?;
        if reader.uint32()? != 1 {
            return Err(Malformed::Unexpected("number of keys").into());
        }
        let public = PublicKey::from_blob(reader.string()?)?;
        let section = Zeroizing::new(reader.string()?.to_vec());

        let encryption = if cipher == b"none" {
            if kdf != b"none" || !kdf_options.is_empty() {
                return Err(Malformed::Unexpected("key derivation").into());
            }
            None
        } else {
            let cipher = parse_cipher(cipher)?;
            let kdf = parse_kdf(kdf, kdf_options)?;
            if section.is_empty() || section.len() % cipher.block_size() != 0 {
                return Err(Malformed::Unexpected("length of the encrypted section").into());
            }
            // The tag of an AEAD stands behind the section's string (sshkey.c, sshkey_private_to_blob2).
            let tag = match cipher.has_tag() {
                true => Some(
                    reader.bytes(16)?.try_into().map_err(|_| KeyError::Malformed(Malformed::Truncated))?,
                ),
                false => None,
            };
            Some(Encryption { cipher, kdf, tag })
        };
        reader.finish()?;
        Ok(Container { public, encryption, section })
    }

    pub(super) fn is_encrypted(&self) -> bool {
        self.encryption.is_some()
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key of a file without encryption.
    pub(super) fn open(&self) -> Result<PrivateKey, KeyError> {
        self.private_key(&self.section, KeyError::Malformed(Malformed::Unexpected("check numbers")))
    }

    pub(super) fn decrypt(&self, passphrase: &[u8]) -> Result<PrivateKey, KeyError> {
        let Some(Encryption { cipher, kdf, tag }) = &self.encryption else { return self.open() };
        // bcrypt-pbkdf takes no empty passphrase, so nothing was ever encrypted with one.
        let (key, iv) = kdf.derive_key_and_iv(*cipher, passphrase).map_err(|_| KeyError::WrongPassphrase)?;
        let iv = Zeroizing::new(iv);
        let mut section = self.section.clone();
        cipher.decrypt(&key, &iv, &mut section, *tag).map_err(|_| KeyError::WrongPassphrase)?;
        self.private_key(&section, KeyError::WrongPassphrase)
    }

    /// Reads the decrypted section: two equal check numbers, the key, a comment, padding 1, 2, 3….
    fn private_key(&self, section: &[u8], check_failed: KeyError) -> Result<PrivateKey, KeyError> {
        let mut reader = Reader::new(section);
        if reader.uint32()? != reader.uint32()? {
            return Err(check_failed);
        }
        let key = read_key(&mut reader)?;
        let _comment = reader.string()?;
        let padding = reader.rest();
        if !padding.iter().zip(1u8..).all(|(byte, expected)| *byte == expected) || padding.len() > 255 {
            return Err(Malformed::Unexpected("padding").into());
        }
        if *key.public() != self.public {
            return Err(KeyError::Inconsistent);
        }
        Ok(key)
    }
}

fn read_key(reader: &mut Reader<'_>) -> Result<PrivateKey, KeyError> {
    let name = reader.string()?;
    if name == b"ssh-ed25519" {
        let public = reader.string()?;
        let both = reader.string()?;
        let (seed, copy) = both
            .split_first_chunk::<32>()
            .ok_or(Malformed::Unexpected("length of an Ed25519 private key"))?;
        let key = PrivateKey::from_ed25519_seed(seed)?;
        // from_seed derives the public half; both copies in the file must be that one.
        if copy != public || !key.public().blob().ends_with(public) || public.len() != 32 {
            return Err(KeyError::Inconsistent);
        }
        return Ok(key);
    }
    if let Some(curve) = Curve::by_key_type(name) {
        if reader.string()? != curve.identifier() {
            return Err(PublicKeyError::TypeMismatch.into());
        }
        let point = reader.string()?;
        let scalar = left_padded(reader.mpint()?, curve.width()).ok_or(KeyError::Rejected)?;
        let pair = aws_lc_rs::signature::EcdsaKeyPair::from_private_key_and_public_key(
            signing(curve),
            &scalar,
            point,
        )
        .map_err(|_| KeyError::Rejected)?;
        return PrivateKey::from_ecdsa(curve, pair);
    }
    if name == b"ssh-rsa" {
        // In this order: sshkey.c, ssh_rsa_serialize_private.
        let numbers = rsa::Numbers {
            modulus: reader.mpint()?,
            exponent: reader.mpint()?,
            private: reader.mpint()?,
            inverse_of_q: reader.mpint()?,
            p: reader.mpint()?,
            q: reader.mpint()?,
        };
        // Before the long division: no number of a usable key is longer (RSA_USE_MAX_BITS).
        let longest = crate::limits::RSA_USE_MAX_BITS as usize / 8;
        if [numbers.modulus, numbers.private, numbers.p, numbers.q].iter().any(|n| n.len() > longest) {
            return Err(KeyError::Rejected);
        }
        return PrivateKey::from_rsa_pkcs1(rsa::pkcs1(&numbers));
    }
    let name = String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned();
    Err(PublicKeyError::UnsupportedType { name }.into())
}

fn parse_cipher(name: &[u8]) -> Result<Cipher, KeyError> {
    let unsupported = || KeyError::UnsupportedCipher {
        name: String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned(),
    };
    let text = str::from_utf8(name).map_err(|_| unsupported())?;
    match Cipher::new(text) {
        // Triple DES is known to ssh-key by name, but not built in.
        Ok(Cipher::TDesCbc | Cipher::None) | Err(_) => Err(unsupported()),
        Ok(cipher) => Ok(cipher),
    }
}

fn parse_kdf(name: &[u8], options: &[u8]) -> Result<Kdf, KeyError> {
    if name != b"bcrypt" {
        let name = String::from_utf8_lossy(name.get(..64).unwrap_or(name)).into_owned();
        return Err(KeyError::UnsupportedCipher { name });
    }
    let mut reader = Reader::new(options);
    let salt = reader.string()?.to_vec();
    let rounds = reader.uint32()?;
    reader.finish()?;
    if salt.is_empty() || salt.len() > 64 || rounds == 0 {
        return Err(Malformed::Unexpected("key derivation").into());
    }
    if rounds > BCRYPT_ROUNDS_MAX_COUNT {
        return Err(KeyError::TooManyRounds { rounds });
    }
    Ok(Kdf::Bcrypt { salt, rounds })
}
