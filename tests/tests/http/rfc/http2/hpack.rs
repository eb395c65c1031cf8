//! As much of HPACK (RFC 7541) as a test needs: fields as literals, and the status of a response.

/// Codes one field, as a literal that enters no table.
pub(super) fn field(name: &[u8], value: &[u8]) -> Vec<u8> {
    let mut block = vec![0];
    for text in [name, value] {
        length(&mut block, text.len());
        block.extend_from_slice(text);
    }
    block
}

/// An integer with a prefix of seven bits (RFC 7541 section 5.1).
fn length(block: &mut Vec<u8>, mut size: usize) {
    if size < 127 {
        return block.push(size as u8);
    }
    block.push(127);
    size -= 127;
    while size >= 128 {
        block.push(size as u8 | 128);
        size >>= 7;
    }
    block.push(size as u8);
}

/// The status that a block begins with; `None` where it begins with another field, as trailers do.
pub(super) fn status(block: &[u8]) -> Option<u16> {
    // A change of the table's size may stand in front.
    let at = block.iter().position(|byte| byte >> 5 != 1)?;
    match (block[at], &block[at + 1..]) {
        // The static table (RFC 7541 appendix A).
        (index @ 0x88..=0x8e, _) => {
            Some([200, 204, 206, 304, 400, 404, 500][usize::from(index - 0x88)])
        }
        // The name of entry 8 with a value: coded by Huffman, or as it is.
        (0x08 | 0x18 | 0x48, [size, rest @ ..]) => {
            let coded = rest.get(..usize::from(size & 127))?;
            if size & 128 == 0 {
                std::str::from_utf8(coded).ok()?.parse().ok()
            } else {
                digits(coded)
            }
        }
        _ => None,
    }
}

/// Three digits in Huffman's code (RFC 7541 appendix B): `0` to `2` take five bits, the others six.
fn digits(coded: &[u8]) -> Option<u16> {
    let bits = coded
        .iter()
        .fold(0_u64, |bits, byte| bits << 8 | u64::from(*byte));
    let mut left = coded.len() * 8;
    let mut take = |count: usize| {
        left = left.checked_sub(count)?;
        Some((bits >> left) as u16 & ((1 << count) - 1))
    };
    (0..3).try_fold(0, |number, _| {
        let digit = match take(5)? {
            small @ 0..=2 => small,
            long @ 12..=15 => 3 + (((long - 12) << 1) | take(1)?) - 1,
            _ => return None,
        };
        Some(number * 10 + digit)
    })
}

#[test]
fn a_status_is_read_however_it_is_coded() {
    for (block, expected) in [
        (&[0x88][..], Some(200)),
        (&[0x20, 0x8c, 0x76], Some(400)),
        (&[0x3f, 0x00, 0x8d], None),
        (&[0x48, 3, b'4', b'3', b'1'], Some(431)),
        // `302` and `502` of RFC 7541 section C.6 and of its table.
        (&[0x48, 0x82, 0x64, 0x02], Some(302)),
        (&[0x48, 0x82, 0x6c, 0x02], Some(502)),
        (&[0x40, 1, b'x', 1, b'y'], None),
    ] {
        assert_eq!(status(block), expected, "{block:x?}");
    }
}
