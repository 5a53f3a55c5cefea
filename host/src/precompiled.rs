//! Native code made at build time, and the proof that it belongs to a module.
//!
//! Deserialising native code is running it: wasmtime checks its own version and settings, not that nobody touched the bytes. So an
//! artefact carries a header of three hashes (the module, wasmtime's compatibility hash for this version, settings and machine, and
//! the code itself), and anything that does not match is compiled afresh. The hashes find accidents: a stale build, another
//! machine, a damaged file. They are no signature; where the artefact comes from must be trusted, which the API says.

use std::hash::{Hash, Hasher};

use wasmtime::{Engine, Module};

const MAGIC: [u8; 8] = *b"evenkpc1";
/// Magic, then three hashes of 16 bytes.
const HEADER: usize = 8 + 3 * 16;

/// An artefact for [`load`].
pub(crate) fn make(engine: &Engine, wasm: &[u8]) -> wasmtime::Result<Vec<u8>> {
    let code = engine.precompile_module(wasm)?;
    let mut out = Vec::with_capacity(HEADER + code.len());
    out.extend_from_slice(&MAGIC);
    out.extend_from_slice(&Digest::of(wasm));
    out.extend_from_slice(&compatibility(engine));
    out.extend_from_slice(&Digest::of(&code));
    out.extend_from_slice(&code);
    Ok(out)
}

/// The module in `artefact`, if that was made from exactly `wasm`, by this wasmtime, for this machine, and is undamaged.
pub(crate) fn load(engine: &Engine, wasm: &[u8], artefact: &[u8]) -> Option<Module> {
    let (header, code) = artefact.split_at_checked(HEADER)?;
    let hashes = header.strip_prefix(&MAGIC)?;
    let (of_wasm, hashes) = hashes.split_at_checked(16)?;
    let (of_engine, of_code) = hashes.split_at_checked(16)?;
    if of_wasm != Digest::of(wasm)
        || of_engine != compatibility(engine)
        || of_code != Digest::of(code)
    {
        return None;
    }
    deserialize(engine, code)
}

/// The one place of this crate with unsafe code.
#[allow(unsafe_code)]
fn deserialize(engine: &Engine, code: &[u8]) -> Option<Module> {
    // SAFETY: `Module::deserialize` asks that the bytes come from `precompile_module` unmodified. The caller of `Module::load`
    // promises a trusted origin; `load` has compared the code's own hash, the module's and this engine's, so a stale, foreign or
    // damaged artefact does not get here; wasmtime itself refuses other versions and settings.
    unsafe { Module::deserialize(engine, code) }.ok()
}

fn compatibility(engine: &Engine) -> [u8; 16] {
    let mut digest = Digest::new();
    engine.precompile_compatibility_hash().hash(&mut digest);
    digest.end()
}

/// 128 bits of multiply and rotate over 8-byte words, in two lanes. Not cryptographic: it has to find accidents, quickly.
struct Digest {
    lanes: [u64; 2],
    length: u64,
}

impl Digest {
    const ODD: [u64; 2] = [0x9E37_79B9_7F4A_7C15, 0xC2B2_AE3D_27D4_EB4F];

    fn new() -> Self {
        Self {
            lanes: [0x2545_F491_4F6C_DD1D, 0x1656_67B1_9E37_79F9],
            length: 0,
        }
    }

    fn of(data: &[u8]) -> [u8; 16] {
        let mut digest = Self::new();
        digest.write(data);
        digest.end()
    }

    fn end(mut self) -> [u8; 16] {
        let length = self.length;
        self.word(length);
        // Every word has to reach every bit of the result.
        self.word(self.lanes[0] ^ self.lanes[1].rotate_left(32));
        self.word(self.lanes[1] ^ self.lanes[0].rotate_left(32));
        let mut out = [0; 16];
        let (first, second) = out.split_at_mut(8);
        first.copy_from_slice(&self.lanes[0].to_le_bytes());
        second.copy_from_slice(&self.lanes[1].to_le_bytes());
        out
    }

    fn word(&mut self, word: u64) {
        let [first, second] = &mut self.lanes;
        *first = (*first ^ word).wrapping_mul(Self::ODD[0]).rotate_left(29);
        *second = (*second ^ word.rotate_left(17))
            .wrapping_mul(Self::ODD[1])
            .rotate_left(37);
    }
}

impl Hasher for Digest {
    fn write(&mut self, data: &[u8]) {
        self.length = self.length.wrapping_add(data.len() as u64);
        let (words, tail) = data.as_chunks::<8>();
        for word in words {
            self.word(u64::from_le_bytes(*word));
        }
        let mut last = [0_u8; 8];
        for (place, byte) in last.iter_mut().zip(tail) {
            *place = *byte;
        }
        self.word(u64::from_le_bytes(last));
    }

    fn finish(&self) -> u64 {
        self.lanes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_changes_the_digest() {
        let data: Vec<u8> = (0..61_u8).collect();
        let before = Digest::of(&data);
        for bit in 0..data.len() * 8 {
            let mut flipped = data.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(Digest::of(&flipped), before, "{bit}");
        }
        assert_ne!(Digest::of(&[data.as_slice(), b"\0"].concat()), before);
    }
}
