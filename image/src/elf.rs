//! Which shared libraries a program needs: the little of ELF (gABI chapter 5, 64 bit little endian) that tells.

const PT_LOAD: u32 = 1;
const PT_DYNAMIC: u32 = 2;
const PT_INTERP: u32 = 3;
const DT_NEEDED: u64 = 1;
const DT_STRTAB: u64 = 5;
const DT_RPATH: u64 = 15;
const DT_RUNPATH: u64 = 29;

/// What a program or library needs from others.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// Names of shared libraries, as the dynamic linker looks for them.
    pub libraries: Vec<String>,
    /// Folders where it looks before the usual ones, absolute.
    pub run_path: Vec<String>,
    /// Absolute path of the dynamic linker, for a program that has one.
    pub interpreter: Option<String>,
}

struct Segment {
    kind: u32,
    offset: usize,
    address: u64,
    size: usize,
}

fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<u64> {
    let mut wide = [0; 8];
    wide[..N].copy_from_slice(bytes.get(at..at.checked_add(N)?)?);
    Some(u64::from_le_bytes(wide))
}

fn text(bytes: &[u8]) -> Option<String> {
    let end = bytes.iter().position(|b| *b == 0)?;
    String::from_utf8(bytes[..end].to_vec()).ok()
}

/// Reads what a file needs; `None` when it is no 64 bit little endian ELF file, or a damaged one.
pub fn needs(bytes: &[u8]) -> Option<Needs> {
    if !bytes.starts_with(b"\x7fELF\x02\x01") {
        return None;
    }
    let table = number::<8>(bytes, 32)? as usize;
    let entry_size = number::<2>(bytes, 54)? as usize;
    let count = number::<2>(bytes, 56)? as usize;
    let segment = |i: usize| {
        let at = table.checked_add(i.checked_mul(entry_size)?)?;
        Some(Segment {
            kind: number::<4>(bytes, at)? as u32,
            offset: number::<8>(bytes, at + 8)? as usize,
            address: number::<8>(bytes, at + 16)?,
            size: number::<8>(bytes, at + 32)? as usize,
        })
    };
    let segments: Vec<Segment> = (0..count).map(segment).collect::<Option<_>>()?;
    let content = |s: &Segment| bytes.get(s.offset..s.offset.checked_add(s.size)?);

    let mut needs = Needs::default();
    if let Some(interpreter) = segments.iter().find(|s| s.kind == PT_INTERP) {
        needs.interpreter = Some(text(content(interpreter)?)?);
    }
    let Some(dynamic) = segments.iter().find(|s| s.kind == PT_DYNAMIC) else {
        return Some(needs);
    };
    let dynamic = content(dynamic)?;
    let entries: Vec<(u64, u64)> = (0..dynamic.len() / 16)
        .map_while(|i| Some((number::<8>(dynamic, i * 16)?, number::<8>(dynamic, i * 16 + 8)?)))
        .collect();
    let strings = entries.iter().find(|(tag, _)| *tag == DT_STRTAB)?.1;
    let home = segments
        .iter()
        .find(|s| s.kind == PT_LOAD && strings >= s.address && strings - s.address < s.size as u64)?;
    let strings = home.offset + (strings - home.address) as usize;
    let string = |offset: u64| text(bytes.get(strings.checked_add(offset as usize)?..)?);
    for (tag, value) in entries {
        match tag {
            DT_NEEDED => needs.libraries.push(string(value)?),
            DT_RPATH | DT_RUNPATH => needs.run_path.extend(string(value)?.split(':').map(str::to_owned)),
            _ => {}
        }
    }
    Some(needs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_test_itself_needs_libc() {
        let needs = needs(&std::fs::read("/proc/self/exe").unwrap()).unwrap();
        assert!(needs.libraries.iter().any(|l| l == "libc.so.6"), "{needs:?}");
        assert!(needs.interpreter.unwrap().contains("ld-linux"));
    }

    #[test]
    fn cut_files_do_not_panic() {
        let bytes = std::fs::read("/proc/self/exe").unwrap();
        for cut in [0, 5, 16, 63, 64, 200, 1000, 4096] {
            let _ = needs(&bytes[..cut]);
        }
        assert_eq!(needs(b"#!/bin/sh\n"), None);
    }
}
