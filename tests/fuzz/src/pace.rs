//! In which pieces bytes move.

/// Sizes of pieces, over and over.
#[derive(Clone, Debug)]
pub struct Pace<'c> {
    sizes: &'c [u8],
    at: usize,
}

impl<'c> Pace<'c> {
    /// All at once.
    pub const WHOLE: Pace<'static> = Pace { sizes: b"", at: 0 };
    /// Byte by byte.
    pub const BYTES: Pace<'static> = Pace { sizes: b"1", at: 0 };

    /// Each of `sizes` is a piece: a digit counts for itself, any other byte for sixteen times its
    /// number, and a piece has a byte at least.
    pub fn of(sizes: &'c [u8]) -> Self {
        Self { sizes, at: 0 }
    }

    /// Size of the next piece.
    pub fn size(&mut self) -> usize {
        let Some(byte) = self.sizes.get(self.at) else {
            return usize::MAX;
        };
        self.at = (self.at + 1) % self.sizes.len();
        match byte {
            b'0'..=b'9' => usize::from(byte - b'0').max(1),
            byte => (usize::from(*byte) * 16).max(1),
        }
    }

    /// The beginning of `bytes` that moves next, and the rest.
    pub fn split<'b>(&mut self, bytes: &'b [u8]) -> (&'b [u8], &'b [u8]) {
        bytes.split_at(self.size().min(bytes.len()))
    }

    /// `bytes` piece by piece.
    pub fn pieces(mut self, mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
        std::iter::from_fn(move || {
            let (piece, rest) = self.split(bytes);
            bytes = rest;
            (!piece.is_empty()).then_some(piece)
        })
    }
}

/// The parts of an input, which lines `--` part.
pub fn parts(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(input);
    std::iter::from_fn(move || {
        let bytes = rest?;
        let at = bytes.windows(4).position(|window| window == b"\n--\n");
        rest = at.map(|at| &bytes[at + 4..]);
        Some(&bytes[..at.unwrap_or(bytes.len())])
    })
}
