//! Finds a custom section of a module: the list of callbacks it uses.
//!
//! A module is eight bytes of header and then sections: an id byte, a LEB128 length, the content; a custom section (id 0) begins
//! with its name (WebAssembly core specification, binary format, section 5.5). The walk is bounded by the module's length.

/// The section by which a module names the callbacks it uses (`request_headers,response_headers,log`); others are skipped.
pub(crate) const CALLBACKS: &str = "evenkeel.callbacks";

/// The content of the first custom section of this name. `None` also where the module is cut off.
pub(crate) fn find<'a>(wasm: &'a [u8], wanted: &str) -> Option<&'a [u8]> {
    let mut rest = wasm.get(8..)?;
    while let Some((id, after)) = rest.split_first() {
        let (length, after) = leb128(after)?;
        let (content, next) = after.split_at_checked(length)?;
        if *id == 0 {
            let (name_length, named) = leb128(content)?;
            let (name, data) = named.split_at_checked(name_length)?;
            if name == wanted.as_bytes() {
                return Some(data);
            }
        }
        rest = next;
    }
    None
}

fn leb128(data: &[u8]) -> Option<(usize, &[u8])> {
    let mut value: u64 = 0;
    for (index, byte) in data.iter().take(5).enumerate() {
        value |= u64::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, data.get(index + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_section_and_survives_what_is_cut_off() {
        let wasm = wat::parse_str("(module (memory 1) (@custom \"other\" \"x\") (@custom \"evenkeel.callbacks\" \"log, tick\"))").unwrap();
        assert_eq!(find(&wasm, CALLBACKS), Some(&b"log, tick"[..]));
        assert_eq!(find(&wasm, "absent"), None);
        for end in 0..wasm.len() {
            assert_eq!(find(&wasm[..end], CALLBACKS), None, "{end}");
        }
    }
}
