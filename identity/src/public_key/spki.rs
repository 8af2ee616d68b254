//! Public keys as TLS carries them: SubjectPublicKeyInfo in DER (RFC 7250; RFC 8410 for Ed25519, RFC 5480 for ECDSA,
//! RFC 3279 for RSA).

use super::{Curve, Material, PublicKey, PublicKeyError};
use crate::der::{self, BIT_STRING, DerReader, SEQUENCE};
use crate::encoding::Malformed;
use crate::limits::PUBLIC_KEY_BLOB_MAX;

// Object identifiers, whole elements with tag and length.
/// 1.3.101.112, id-Ed25519.
pub(crate) const OID_ED25519: &[u8] = &[0x06, 0x03, 0x2b, 0x65, 0x70];
/// 1.2.840.10045.2.1, id-ecPublicKey.
pub(crate) const OID_EC: &[u8] = &[0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
/// 1.2.840.113549.1.1.1 rsaEncryption with its NULL parameter.
const OID_RSA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const NULL: &[u8] = &[0x05, 0x00];

/// The curve's object identifier, a whole element.
pub(crate) fn curve_oid(curve: Curve) -> &'static [u8] {
    match curve {
        Curve::P256 => &[0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07],
        Curve::P384 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x22],
        Curve::P521 => &[0x06, 0x05, 0x2b, 0x81, 0x04, 0x00, 0x23],
    }
}

impl PublicKey {
    /// The key as a SubjectPublicKeyInfo in DER: what a TLS raw public key is.
    pub fn to_spki_der(&self) -> Vec<u8> {
        let (algorithm, key) = match self.material() {
            Material::Ed25519(point) => (der::element(SEQUENCE, &[OID_ED25519]), point.to_vec()),
            Material::Ecdsa { curve, point } => {
                (der::element(SEQUENCE, &[OID_EC, curve_oid(*curve)]), point.clone())
            }
            Material::Rsa { modulus, exponent } => (
                der::element(SEQUENCE, &[OID_RSA, NULL]),
                der::element(SEQUENCE, &[&der::integer(modulus), &der::integer(exponent)]).to_vec(),
            ),
        };
        der::element(SEQUENCE, &[&algorithm, &der::element(BIT_STRING, &[&[0], &key])]).to_vec()
    }

    /// Parses a SubjectPublicKeyInfo, at most [`PUBLIC_KEY_BLOB_MAX`] bytes.
    ///
    /// # Errors
    /// [`PublicKeyError`] for anything but a known key in the one DER encoding that [`PublicKey::to_spki_der`] writes.
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, PublicKeyError> {
        if spki.len() > PUBLIC_KEY_BLOB_MAX {
            return Err(Malformed::TooLong { bytes: spki.len(), limit: PUBLIC_KEY_BLOB_MAX }.into());
        }
        let mut outer = DerReader::new(spki);
        let mut info = DerReader::new(outer.element(SEQUENCE)?);
        outer.finish()?;
        let algorithm = info.element(SEQUENCE)?;
        let key = match info.element(BIT_STRING)? {
            [0, key @ ..] => key,
            _ => return Err(Malformed::Unexpected("unused bits").into()),
        };
        info.finish()?;

        let material = if algorithm == OID_ED25519 {
            let point = key.try_into().map_err(|_| Malformed::Unexpected("length of an Ed25519 key"))?;
            Material::Ed25519(point)
        } else if let Some(parameters) = algorithm.strip_prefix(OID_EC) {
            let curve =
                Curve::ALL.into_iter().find(|curve| curve_oid(*curve) == parameters).ok_or_else(|| {
                    PublicKeyError::UnsupportedType { name: "ECDSA on another curve".to_owned() }
                })?;
            Material::Ecdsa { curve, point: key.to_vec() }
        } else if algorithm.strip_prefix(OID_RSA) == Some(NULL) {
            let (modulus, exponent) = rsa_numbers(key)?;
            Material::Rsa { modulus, exponent }
        } else {
            return Err(PublicKeyError::UnsupportedType { name: "another X.509 algorithm".to_owned() });
        };
        let key = PublicKey::from_material(material)?;
        if key.to_spki_der() != spki {
            return Err(Malformed::Unexpected("DER encoding").into());
        }
        Ok(key)
    }
}

/// Modulus and exponent of an RSAPublicKey (RFC 8017, appendix A.1.1).
pub(crate) fn rsa_numbers(der: &[u8]) -> Result<(Vec<u8>, Vec<u8>), Malformed> {
    let mut outer = DerReader::new(der);
    let mut numbers = DerReader::new(outer.element(SEQUENCE)?);
    outer.finish()?;
    let modulus = numbers.integer()?.to_vec();
    let exponent = numbers.integer()?.to_vec();
    numbers.finish()?;
    Ok((modulus, exponent))
}

#[cfg(test)]
mod tests {
    use super::super::tests::ED25519;
    use super::*;

    #[test]
    fn ed25519_has_the_bytes_of_rfc_8410() {
        let key = PublicKey::from_text(ED25519).unwrap();
        let spki = key.to_spki_der();
        assert_eq!(spki[..12], [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00]);
        assert_eq!(PublicKey::from_spki_der(&spki).unwrap(), key);
    }

    #[test]
    fn every_curve_and_rsa_go_there_and_back() {
        let mut materials: Vec<_> = Curve::ALL
            .into_iter()
            .map(|curve| Material::Ecdsa { curve, point: vec![4; 1 + 2 * curve.width()] })
            .collect();
        materials.push(Material::Rsa { modulus: vec![0xc1; 256], exponent: vec![1, 0, 1] });
        for material in materials {
            let key = PublicKey::from_material(material).unwrap();
            assert_eq!(PublicKey::from_spki_der(&key.to_spki_der()).unwrap(), key);
        }
    }

    #[test]
    fn a_second_encoding_of_the_same_key_is_refused() {
        let key =
            PublicKey::from_material(Material::Rsa { modulus: vec![0xc1; 256], exponent: vec![1, 0, 1] })
                .unwrap();
        let modulus = der::element(der::INTEGER, &[&[0, 0], &[0xc1; 256]]);
        let numbers = der::element(SEQUENCE, &[&modulus, &der::integer(&[1, 0, 1])]);
        let algorithm = der::element(SEQUENCE, &[OID_RSA, NULL]);
        let spki = der::element(SEQUENCE, &[&algorithm, &der::element(BIT_STRING, &[&[0], &numbers])]);
        assert_ne!(spki.as_slice(), key.to_spki_der());
        assert!(PublicKey::from_spki_der(&spki).is_err());
    }

    #[test]
    fn another_curve_or_algorithm_is_unsupported() {
        // id-X25519, 1.3.101.110
        let algorithm = der::element(SEQUENCE, &[&[0x06, 0x03, 0x2b, 0x65, 0x6e]]);
        let spki = der::element(SEQUENCE, &[&algorithm, &der::element(BIT_STRING, &[&[0; 33]])]);
        assert!(matches!(PublicKey::from_spki_der(&spki), Err(PublicKeyError::UnsupportedType { .. })));
    }
}
