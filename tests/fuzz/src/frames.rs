//! HTTP/2 as a client sends it: frames, and fields in the plainest form of HPACK.

/// A name and a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// As it is.
    pub name: Vec<u8>,
    /// As it is.
    pub value: Vec<u8>,
}

/// Reads lines of name, colon, space and value. The name may begin with a colon.
pub fn lines(text: &[u8]) -> Vec<Line> {
    text.split(|byte| *byte == b'\n')
        .filter_map(|line| {
            let colon = line.windows(2).position(|window| window == b": ")?;
            Some(Line {
                name: line[..colon].to_vec(),
                value: line[colon + 2..].to_vec(),
            })
        })
        .collect()
}

/// What a client sends with one request.
#[derive(Clone, Debug)]
pub struct Frames(Vec<u8>);

impl Frames {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const SETTINGS: u8 = 4;
    const END_STREAM: u8 = 1;
    const END_HEADERS: u8 = 4;
    /// Most bytes that a frame may have without the other side's leave.
    const MOST: usize = 16_384;

    /// The preface (RFC 9113 section 3.4).
    pub fn begin() -> Self {
        let mut frames = Self(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec());
        frames.frame(Self::SETTINGS, 0, 0, b"");
        frames
    }

    /// A head or trailers; what does not fit into a frame is cut off.
    pub fn fields(&mut self, lines: &[Line], ends: bool) {
        let mut block = Vec::new();
        for line in lines {
            // A literal without indexing, and with a new name (RFC 7541 section 6.2.2).
            block.push(0);
            string(&mut block, &line.name);
            string(&mut block, &line.value);
        }
        block.truncate(Self::MOST);
        let flags = Self::END_HEADERS | if ends { Self::END_STREAM } else { 0 };
        self.frame(Self::HEADERS, flags, 1, &block);
    }

    /// A part of a body.
    pub fn data(&mut self, data: &[u8], ends: bool) {
        let flags = if ends { Self::END_STREAM } else { 0 };
        self.frame(Self::DATA, flags, 1, data);
    }

    /// All of it.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.0.extend_from_slice(&length.to_be_bytes()[1..]);
        self.0.extend_from_slice(&[kind, flags]);
        self.0.extend_from_slice(&stream.to_be_bytes());
        self.0.extend_from_slice(payload);
    }
}

/// A string without Huffman coding; its length is an integer of a prefix of 7 bits (RFC 7541 sections
/// 5.1 and 5.2).
fn string(block: &mut Vec<u8>, text: &[u8]) {
    let mut left = text.len();
    if left < 127 {
        block.push(left as u8);
    } else {
        block.push(127);
        left -= 127;
        while left >= 128 {
            block.push((left % 128) as u8 | 128);
            left /= 128;
        }
        block.push(left as u8);
    }
    block.extend_from_slice(text);
}
