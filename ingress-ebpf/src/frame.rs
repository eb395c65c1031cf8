//! The safe reader of one frame: everything the parser sees of it.

/// Bytes of one frame: an XDP buffer in the kernel, a slice on the host.
pub trait Frame {
    /// Reads `N` bytes at `offset`, or `None` past the end of the frame.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Reads `N` words at `offset`, each with the bytes of the frame, or `None` past the end.
    ///
    /// For headers whose fields are words: the compiler would load one that is put together of bytes
    /// byte by byte.
    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]>;

    /// Bytes in the frame, link-layer header included.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
    }

    fn words<const N: usize>(&self, offset: usize) -> Option<[u32; N]> {
        let bytes = self.get(offset..offset.checked_add(4 * N)?)?;
        let mut words = [0; N];
        for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
            *word = u32::from_ne_bytes(bytes.try_into().ok()?);
        }
        Some(words)
    }

    fn length(&self) -> usize {
        self.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stop_at_the_end() {
        let frame: &[u8] = &[1, 2, 3, 4];
        assert_eq!(frame.read::<2>(2), Some([3, 4]));
        assert_eq!(frame.read::<2>(3), None);
        assert_eq!(frame.read::<1>(usize::MAX), None);
        assert_eq!(frame.words(0), Some([u32::from_ne_bytes([1, 2, 3, 4])]));
        assert_eq!(frame.words::<1>(1), None);
        assert_eq!(frame.words::<1>(usize::MAX), None);
        assert_eq!(frame.length(), 4);
    }
}
