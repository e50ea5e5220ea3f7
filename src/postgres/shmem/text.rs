//! Texts in shared memory, each with a fixed room.

/// A text of bounded length that lives in shared memory. Longer texts are cut at a character.
#[derive(Clone, Copy)]
pub(crate) struct Text<const N: usize> {
    len: u16,
    bytes: [u8; N],
}

impl<const N: usize> Text<N> {
    /// As much of `text` as there is room for.
    pub(crate) fn new(text: &str) -> Self {
        let end = text.floor_char_boundary(N.min(u16::MAX as usize));
        let mut bytes = [0; N];
        bytes[..end].copy_from_slice(&text.as_bytes()[..end]);
        Self { len: end as u16, bytes }
    }

    /// The text.
    pub(crate) fn as_str(&self) -> &str {
        self.bytes
            .get(..usize::from(self.len))
            .and_then(|bytes| str::from_utf8(bytes).ok())
            .unwrap_or_default()
    }

    /// Whether there is no text.
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { len: 0, bytes: [0; N] }
    }
}
