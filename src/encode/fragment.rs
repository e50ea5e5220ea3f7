//! The piece of JSON that stands before a value: `,"name":`.

use std::ops::Deref;

/// Fragments up to this length are copied at this length.
const SHORT: usize = 32;

/// What stands before the values of one column.
#[derive(Debug)]
pub(super) struct Fragment {
    text: Box<[u8]>,
    /// Its beginning, filled up.
    head: [u8; SHORT],
}

impl Fragment {
    /// How much room [`Self::append`] needs behind the fragment itself.
    pub(super) const SLACK: usize = SHORT;

    /// `before`, the name as a JSON string, and a colon.
    pub(super) fn new(before: u8, name: &str) -> Self {
        let name = serde_json::Value::from(name).to_string();
        let text = [&[before], name.as_bytes(), b":"].concat().into_boxed_slice();
        let mut head = [0; SHORT];
        head.iter_mut().zip(&text).for_each(|(place, byte)| *place = *byte);
        Self { text, head }
    }

    /// Appends it. A copy of a length that the compiler knows is two moves, any other one the call of a function.
    #[inline]
    pub(super) fn append(&self, out: &mut Vec<u8>) {
        if self.text.len() > SHORT {
            return out.extend_from_slice(&self.text);
        }
        let end = out.len() + self.text.len();
        out.extend_from_slice(&self.head);
        out.truncate(end);
    }
}

impl Deref for Fragment {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fragment_of_any_length_is_appended_whole() {
        for length in 0..40 {
            let name = "n".repeat(length);
            let mut out = b"before".to_vec();
            Fragment::new(b',', &name).append(&mut out);
            assert_eq!(out, format!("before,\"{name}\":").into_bytes());
        }
    }

    #[test]
    fn name_is_escaped() {
        assert_eq!(&*Fragment::new(b'{', "a\"b"), b"{\"a\\\"b\":");
    }
}
