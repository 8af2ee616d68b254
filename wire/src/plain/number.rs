//! JSON numbers of any number of digits, read as sizes without rounding.

/// What a JSON number is as a size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// A whole number that fits.
    Whole(u64),
    /// Below zero.
    Negative,
    /// With a fraction.
    Fraction,
    /// A whole number that doesn't fit, of so many digits.
    TooLarge(u64),
}

/// Reads a JSON number (RFC 8259, section 6) exactly; none for text that isn't one.
///
/// `10`, `10.0`, `1e1` and `100e-1` are the same whole number: some languages write sizes as floating point. The value is
/// what counts, so nothing is rounded, and an exponent of any length costs no memory.
pub(super) fn size(text: &str) -> Option<Size> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let digits: String = whole.chars().chain(fraction.chars()).collect();
    let significant = digits.trim_start_matches('0').trim_end_matches('0');
    if significant.is_empty() {
        return Some(Size::Whole(0));
    }
    if negative {
        return Some(Size::Negative);
    }
    let trailing = digits.len() - digits.trim_end_matches('0').len();
    // The header's limit keeps these far from overflow; an exponent too long to read is as good as the largest.
    let zeros =
        signed(exponent)?.saturating_sub(length(fraction)).saturating_add(i64::try_from(trailing).ok()?);
    if zeros < 0 {
        return Some(Size::Fraction);
    }
    let count = u64::try_from(significant.len()).ok()?.saturating_add(zeros.unsigned_abs());
    let too_large = Size::TooLarge(count);
    if count > 20 {
        return Some(too_large);
    }
    let power = u32::try_from(zeros).ok().and_then(|zeros| 10u64.checked_pow(zeros));
    let value =
        significant.parse::<u64>().ok().zip(power).and_then(|(value, power)| value.checked_mul(power));
    Some(value.map_or(too_large, Size::Whole))
}

fn length(text: &str) -> i64 {
    i64::try_from(text.len()).unwrap_or(i64::MAX)
}

fn signed(exponent: &str) -> Option<i64> {
    let (negative, digits) = match exponent.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, exponent.strip_prefix('+').unwrap_or(exponent)),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Far beyond any mantissa that fits into a header, and far from overflow.
    let value = digits.parse().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
    Some(if negative { -value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        for (text, value) in [
            ("0", Size::Whole(0)),
            ("-0", Size::Whole(0)),
            ("-0.0e5", Size::Whole(0)),
            ("7", Size::Whole(7)),
            ("10.0", Size::Whole(10)),
            ("1e3", Size::Whole(1000)),
            ("12.5e1", Size::Whole(125)),
            ("1000e-3", Size::Whole(1)),
            ("18446744073709551615", Size::Whole(u64::MAX)),
            ("9007199254740993", Size::Whole(9_007_199_254_740_993)),
            ("18446744073709551616", Size::TooLarge(20)),
            ("-1", Size::Negative),
            ("1.5", Size::Fraction),
            ("1e-1", Size::Fraction),
            ("1e400", Size::TooLarge(401)),
        ] {
            assert_eq!(size(text), Some(value), "{text}");
        }
        assert_eq!(size(&"9".repeat(200)), Some(Size::TooLarge(200)));
        assert!(matches!(size(&format!("1e{}", "9".repeat(60_000))), Some(Size::TooLarge(_))));
        assert_eq!(size(&format!("1e-{}", "9".repeat(60_000))), Some(Size::Fraction));
        assert_eq!(size(&format!("{}7", "0.".to_owned() + &"0".repeat(60_000))), Some(Size::Fraction));
    }

    #[test]
    fn what_is_no_number_is_none() {
        for text in ["", "-", "\"7\"", "null", "true", "[7]", "e5", "1e", "1e+", "0x10", "NaN"] {
            assert_eq!(size(text), None, "{text}");
        }
    }
}
