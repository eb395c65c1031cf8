//! The safe reader of one frame: everything the parser sees of it.

/// Bytes of one frame: an XDP buffer in the kernel, a slice on the host.
pub trait Frame {
    /// Reads `N` bytes at `offset`, or `None` past the end of the frame.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Bytes in the frame, link-layer header included.
    fn length(&self) -> usize;
}

impl Frame for [u8] {
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..offset.checked_add(N)?)?.try_into().ok()
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
        assert_eq!(frame.length(), 4);
    }
}
