//! Decimal numbers as text, exactly: reading, rounding to a scale, comparing, adding.

use std::cmp::Ordering;

/// A decimal number: sign, digits without leading zeros, and how many of them are fraction.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Decimal {
    negative: bool,
    /// Values 0 to 9, the most significant first.
    digits: Vec<u8>,
    scale: usize,
}

impl Decimal {
    /// Reads `[+-]digits[.digits][e[+-]digits]` with spaces around; `None` for anything else.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.trim_matches(' ');
        let (negative, unsigned) = match text.as_bytes().first()? {
            b'-' => (true, &text[1..]),
            b'+' => (false, &text[1..]),
            _ => (false, text),
        };
        let (mantissa, exponent) = match unsigned.find(['e', 'E']) {
            Some(at) => (&unsigned[..at], unsigned[at + 1..].parse::<i32>().ok()?),
            None => (unsigned, 0),
        };
        if !(-1000..=1000).contains(&exponent) {
            return None;
        }
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        if whole.is_empty() && fraction.is_empty() {
            return None;
        }
        let mut digits = Vec::with_capacity(whole.len() + fraction.len());
        for byte in whole.bytes().chain(fraction.bytes()) {
            digits.push(byte.is_ascii_digit().then(|| byte - b'0')?);
        }
        let scale = i32::try_from(fraction.len()).ok()? - exponent;
        if scale < 0 {
            digits.extend(std::iter::repeat_n(0, scale.unsigned_abs() as usize));
        }
        let mut parsed = Self { negative, digits, scale: usize::try_from(scale).unwrap_or(0) };
        parsed.normalize();
        Some(parsed)
    }

    fn normalize(&mut self) {
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        self.digits.drain(..zeros);
        if self.digits.is_empty() {
            self.negative = false;
        }
    }

    /// Rounds half away from zero to `scale` fraction digits.
    pub(crate) fn rounded(mut self, scale: usize) -> Self {
        if self.scale <= scale {
            self.digits.extend(std::iter::repeat_n(0, scale - self.scale));
            self.scale = scale;
            self.normalize();
            return self;
        }
        let cut = self.scale - scale;
        let first_cut =
            self.digits.len().checked_sub(cut).and_then(|at| self.digits.get(at)).copied().unwrap_or(0);
        self.digits.truncate(self.digits.len().saturating_sub(cut));
        self.scale = scale;
        if first_cut >= 5 {
            self.increment();
        }
        self.normalize();
        self
    }

    fn increment(&mut self) {
        for digit in self.digits.iter_mut().rev() {
            if *digit < 9 {
                *digit += 1;
                return;
            }
            *digit = 0;
        }
        self.digits.insert(0, 1);
    }

    /// Whether it fits into `DECIMAL(precision, scale)` once rounded to that scale.
    pub(crate) fn fits(&self, precision: usize, scale: usize) -> bool {
        self.digits.len().saturating_sub(self.scale) <= precision - scale
    }

    /// The value times ten to the power of `scale`, cut towards zero, if 128 bits hold it.
    pub(crate) fn to_scaled(&self, scale: usize) -> Option<i128> {
        let keep = (self.digits.len() + scale).saturating_sub(self.scale);
        let mut value: i128 = 0;
        for index in 0..keep {
            let digit = self.digits.get(index).copied().unwrap_or(0);
            value = value.checked_mul(10)?;
            value = if self.negative {
                value.checked_sub(digit.into())?
            } else {
                value.checked_add(digit.into())?
            };
        }
        Some(value)
    }

    /// How many fraction digits it has.
    pub(crate) fn scale(&self) -> usize {
        self.scale
    }
}

impl std::fmt::Display for Decimal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let padding = (self.scale + 1).saturating_sub(self.digits.len());
        let digits: String = std::iter::repeat_n('0', padding)
            .chain(self.digits.iter().map(|digit| char::from(b'0' + digit)))
            .collect();
        let (whole, fraction) = digits.split_at(digits.len() - self.scale);
        let sign = if self.negative { "-" } else { "" };
        write!(f, "{sign}{whole}")?;
        if !fraction.is_empty() {
            write!(f, ".{fraction}")?;
        }
        Ok(())
    }
}

/// Prints a scaled integer.
pub(crate) fn print_scaled(value: i128, scale: usize) -> String {
    let digits = format!("{:0width$}", value.unsigned_abs(), width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    let sign = if value < 0 { "-" } else { "" };
    if fraction.is_empty() { format!("{sign}{whole}") } else { format!("{sign}{whole}.{fraction}") }
}

/// The order of two texts as numbers; texts that are none come last, by their bytes.
pub(crate) fn compare(left: &str, right: &str) -> Ordering {
    match (Decimal::parse(left), Decimal::parse(right)) {
        (Some(left), Some(right)) => left.compare(&right),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => left.cmp(right),
    }
}

impl Decimal {
    fn compare(&self, other: &Self) -> Ordering {
        match (self.negative, other.negative) {
            (false, true) => return Ordering::Greater,
            (true, false) => return Ordering::Less,
            _ => {}
        }
        let scale = self.scale.max(other.scale);
        let (left, right) = (self.clone().rounded(scale).digits, other.clone().rounded(scale).digits);
        let order = left.len().cmp(&right.len()).then_with(|| left.cmp(&right));
        if self.negative { order.reverse() } else { order }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rounded(text: &str, scale: usize) -> String {
        Decimal::parse(text).unwrap().rounded(scale).to_string()
    }

    #[test]
    fn decimals_round_half_away_from_zero() {
        assert_eq!(rounded("1.005", 2), "1.01");
        assert_eq!(rounded("-1.005", 2), "-1.01");
        assert_eq!(rounded("1.0049", 2), "1.00");
        assert_eq!(rounded("9.995", 2), "10.00");
        assert_eq!(rounded("0.4", 0), "0");
        assert_eq!(rounded("0.5", 0), "1");
        assert_eq!(rounded("-0.001", 2), "0.00");
        assert_eq!(rounded("0.05", 1), "0.1");
        assert_eq!(rounded("0.004", 2), "0.00");
    }

    #[test]
    fn decimals_are_padded_to_their_scale() {
        assert_eq!(rounded(" +7 ", 3), "7.000");
        assert_eq!(rounded(".5", 1), "0.5");
        assert_eq!(rounded("1.5e3", 1), "1500.0");
        assert_eq!(rounded("15e-3", 4), "0.0150");
    }

    #[test]
    fn only_numbers_are_decimals() {
        for text in ["", " ", "NaN", "Infinity", "1,5", "1.2.3", "-", ".", "0x1", "1e", "1e9999", "١"] {
            assert_eq!(Decimal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn integer_digits_decide_whether_a_decimal_fits() {
        let fits = |text: &str| Decimal::parse(text).unwrap().rounded(2).fits(5, 2);
        assert!(fits("999.99"));
        assert!(!fits("999.995"));
        assert!(!fits("1000"));
        assert!(fits("-0.001"));
    }

    #[test]
    fn texts_are_compared_as_numbers() {
        assert_eq!(compare("10", "9.5"), Ordering::Greater);
        assert_eq!(compare("-10", "9"), Ordering::Less);
        assert_eq!(compare("-2", "-10"), Ordering::Greater);
        assert_eq!(compare("1.50", "1.5"), Ordering::Equal);
        assert_eq!(compare("0.09", "0.1"), Ordering::Less);
    }

    #[test]
    fn scaled_integers_keep_every_digit() {
        let value = Decimal::parse("-12345678901234567890.1234").unwrap().to_scaled(4).unwrap();
        assert_eq!(print_scaled(value, 4), "-12345678901234567890.1234");
        assert_eq!(print_scaled(-5, 3), "-0.005");
        assert_eq!(Decimal::parse("0.05").unwrap().to_scaled(2), Some(5));
        assert_eq!(Decimal::parse("0.05").unwrap().to_scaled(0), Some(0));
        assert_eq!(Decimal::parse("7").unwrap().to_scaled(2), Some(700));
    }
}
