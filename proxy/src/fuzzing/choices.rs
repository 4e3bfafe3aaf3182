//! Bytes as decisions, for targets whose input is not bytes: numbers, texts, one of several.
//!
//! When there are no more bytes all decisions are the first, so that every input means something and ends.

/// Decisions left.
#[derive(Debug, Clone)]
pub(crate) struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Choices(bytes)
    }

    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    pub(crate) fn is(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// A number below `limit`, which is not 0.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit
    }

    /// A number below `limit`, mostly the smallest.
    pub(crate) fn seldom(&mut self, limit: usize) -> usize {
        let byte = usize::from(self.byte());
        byte.saturating_sub(128) % limit
    }

    pub(crate) fn u32(&mut self) -> u32 {
        u32::from_be_bytes([self.byte(), self.byte(), self.byte(), self.byte()])
    }

    pub(crate) fn one<'c, T>(&mut self, of: &'c [T]) -> &'c T {
        &of[self.below(of.len())]
    }

    /// Up to `most` of these in a row.
    pub(crate) fn text(&mut self, pieces: &[&str], most: usize) -> String {
        let count = self.below(most + 1);
        (0..count).map(|_| *self.one(pieces)).collect()
    }

    /// Up to `most` of what is made.
    pub(crate) fn several<T>(&mut self, most: usize, make: fn(&mut Self) -> T) -> Vec<T> {
        let count = self.below(most + 1);
        (0..count).map(|_| make(self)).collect()
    }

    /// What has not been decided with.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.0
    }
}
