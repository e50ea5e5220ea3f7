//! real and double precision: the shortest digits that read back as the same number.

use super::error::Reason;

/// Appends a float. Real and double have each their own shortest form: 0.1 is not the double next to it.
pub(super) fn write<F: zmij::Float + Into<f64> + Copy>(float: F, out: &mut Vec<u8>) -> Result<(), Reason> {
    if !float.into().is_finite() {
        return Err(Reason::OutOfRange);
    }
    out.extend_from_slice(zmij::Buffer::new().format_finite(float).as_bytes());
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn text<F: zmij::Float + Into<f64> + Copy>(float: F) -> String {
        let mut out = Vec::new();
        write(float, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn real_is_not_printed_as_the_double_next_to_it() {
        assert_eq!(text(0.1_f32), "0.1");
        assert_eq!(text(0.1_f64), "0.1");
        assert_eq!(text(f64::from(0.1_f32)), "0.10000000149011612");
    }

    #[test]
    fn infinities_and_nan_are_out_of_range() {
        for float in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert_eq!(write(float, &mut Vec::new()), Err(Reason::OutOfRange));
            assert_eq!(write(float as f32, &mut Vec::new()), Err(Reason::OutOfRange));
        }
    }

    proptest! {
        #[test]
        fn doubles_are_json_numbers_that_read_back(bits in any::<u64>()) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            let text = text(float);
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), bits);
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{}", text);
        }

        #[test]
        fn reals_are_json_numbers_that_read_back(bits in any::<u32>()) {
            let float = f32::from_bits(bits);
            prop_assume!(float.is_finite());
            let text = text(float);
            prop_assert_eq!(text.parse::<f32>().unwrap().to_bits(), bits);
            prop_assert!(serde_json::from_str::<serde_json::Number>(&text).is_ok(), "{}", text);
        }
    }
}
