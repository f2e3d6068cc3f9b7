//! Unified kernel images: systemd's UEFI stub with kernel, initrd and command line appended as PE sections
//! (UAPI group, "Unified Kernel Image"; Microsoft's PE format for the header fields).

use crate::error::{Error, Result};

/// Initialised data that is read: what every payload section is.
const DATA_READ: u32 = 0x4000_0040;
const SECTION_HEADER: usize = 40;
const SECURITY_DIRECTORY: usize = 4;

/// A section of a PE file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// Name of at most eight bytes.
    pub name: &'a str,
    /// Its content, without padding.
    pub content: &'a [u8],
}

/// Offsets of a PE32+ file that this module changes.
struct Layout {
    coff: usize,
    optional: usize,
    sections: usize,
    count: usize,
    section_alignment: usize,
    file_alignment: usize,
    size_of_headers: usize,
}

fn bad(reason: impl Into<String>) -> Error {
    Error::format("PE", reason)
}

fn u16_at(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 2).ok_or_else(|| bad("the file is cut short"))?;
    Ok(usize::from(u16::from_le_bytes([field[0], field[1]])))
}

fn u32_at(bytes: &[u8], at: usize) -> Result<usize> {
    let field = bytes.get(at..at + 4).ok_or_else(|| bad("the file is cut short"))?;
    Ok(u32::from_le_bytes([field[0], field[1], field[2], field[3]]) as usize)
}

fn put_u32(bytes: &mut [u8], at: usize, value: usize) -> Result<()> {
    let value = u32::try_from(value).map_err(|_| bad("a size does not fit 32 bits"))?;
    bytes
        .get_mut(at..at + 4)
        .ok_or_else(|| bad("the file is cut short"))?
        .copy_from_slice(&value.to_le_bytes());
    Ok(())
}

impl Layout {
    fn read(pe: &[u8]) -> Result<Layout> {
        if !pe.starts_with(b"MZ") {
            return Err(bad("it does not begin with MZ"));
        }
        let signature = u32_at(pe, 0x3c)?;
        if pe.get(signature..signature + 4) != Some(b"PE\0\0") {
            return Err(bad("it has no PE signature"));
        }
        let coff = signature + 4;
        let optional = coff + 20;
        if u16_at(pe, optional)? != 0x20b {
            return Err(bad("it is not PE32+"));
        }
        Ok(Layout {
            coff,
            optional,
            sections: optional + u16_at(pe, coff + 16)?,
            count: u16_at(pe, coff + 2)?,
            section_alignment: u32_at(pe, optional + 32)?,
            file_alignment: u32_at(pe, optional + 36)?,
            size_of_headers: u32_at(pe, optional + 60)?,
        })
    }

    fn header(&self, index: usize) -> usize {
        self.sections + index * SECTION_HEADER
    }
}

/// Appends sections to a stub. `.linux` has to be the last one: the stub may run the kernel where it lies, so it gets
/// as much memory as the kernel's own header asks for.
///
/// # Errors
/// The stub is no PE32+ file, is signed, or has no room for the headers.
pub fn assemble(stub: &[u8], sections: &[Section], epoch: u64) -> Result<Vec<u8>> {
    let layout = Layout::read(stub)?;
    let security = layout.optional + 112 + SECURITY_DIRECTORY * 8;
    if u32_at(stub, security + 4)? != 0 {
        return Err(bad("the stub is signed; appending would break the signature"));
    }
    if u32_at(stub, layout.coff + 8)? != 0 {
        return Err(bad("the stub has a COFF symbol table; take systemd 255 or newer"));
    }
    if layout.header(layout.count + sections.len()) > layout.size_of_headers {
        return Err(bad("the stub has no room for more section headers"));
    }
    let mut pe = stub.to_vec();
    let last = layout.header(layout.count - 1);
    let mut address = u32_at(stub, last + 12)? + u32_at(stub, last + 8)?;
    let mut initialised = u32_at(stub, layout.optional + 8)?;
    for (i, section) in sections.iter().enumerate() {
        address = address.next_multiple_of(layout.section_alignment);
        pe.resize(pe.len().next_multiple_of(layout.file_alignment), 0);
        let raw_size = section.content.len().next_multiple_of(layout.file_alignment);
        let memory =
            if section.name == ".linux" { memory_of(section.content)? } else { section.content.len() };
        let header = layout.header(layout.count + i);
        let name = pe.get_mut(header..header + 8).ok_or_else(|| bad("the file is cut short"))?;
        name.fill(0);
        name.get_mut(..section.name.len())
            .ok_or_else(|| bad(format!("section name {:?} is longer than eight bytes", section.name)))?
            .copy_from_slice(section.name.as_bytes());
        let offset = pe.len();
        for (at, value) in
            [(8, memory), (12, address), (16, raw_size), (20, offset), (24, 0), (28, 0), (32, 0)]
        {
            put_u32(&mut pe, header + at, value)?;
        }
        put_u32(&mut pe, header + 36, DATA_READ as usize)?;
        pe.extend_from_slice(section.content);
        pe.resize(offset + raw_size, 0);
        address += memory;
        initialised += raw_size;
    }
    let count = u16::try_from(layout.count + sections.len()).map_err(|_| bad("too many sections"))?;
    pe[layout.coff + 2..layout.coff + 4].copy_from_slice(&count.to_le_bytes());
    put_u32(&mut pe, layout.coff + 4, epoch as u32 as usize)?;
    put_u32(&mut pe, layout.optional + 8, initialised)?;
    put_u32(&mut pe, layout.optional + 56, address.next_multiple_of(layout.section_alignment))?;
    put_u32(&mut pe, layout.optional + 64, 0)?; // no checksum
    Ok(pe)
}

/// How much memory a kernel wants when it runs: the size of its image, which is more than its file.
fn memory_of(kernel: &[u8]) -> Result<usize> {
    let layout = Layout::read(kernel).map_err(|_| bad("the kernel has no EFI stub"))?;
    Ok(u32_at(kernel, layout.optional + 56)?.max(kernel.len()))
}

/// The sections of a PE file in order. The content of `.linux` is cut to what lies in the file.
///
/// # Errors
/// It is no PE32+ file or damaged.
pub fn sections(pe: &[u8]) -> Result<Vec<Section<'_>>> {
    let layout = Layout::read(pe)?;
    (0..layout.count)
        .map(|i| {
            let header = layout.header(i);
            let name = pe.get(header..header + 8).ok_or_else(|| bad("a section header is cut short"))?;
            let end = name.iter().position(|b| *b == 0).unwrap_or(8);
            let name = std::str::from_utf8(&name[..end]).map_err(|_| bad("a section name is not text"))?;
            let (memory, raw, offset) =
                (u32_at(pe, header + 8)?, u32_at(pe, header + 16)?, u32_at(pe, header + 20)?);
            let content = pe
                .get(offset..offset + memory.min(raw))
                .ok_or_else(|| bad(format!("{name} is cut short")))?;
            Ok(Section { name, content })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The smallest PE32+ file with one section and room for more headers.
    fn stub() -> Vec<u8> {
        let mut pe = vec![0; 0x600];
        pe[..2].copy_from_slice(b"MZ");
        pe[0x3c] = 0x40;
        pe[0x40..0x44].copy_from_slice(b"PE\0\0");
        pe[0x46] = 1; // sections
        pe[0x54] = 240; // size of the optional header
        pe[0x58..0x5a].copy_from_slice(&0x20bu16.to_le_bytes());
        put_u32(&mut pe, 0x58 + 32, 0x1000).unwrap();
        put_u32(&mut pe, 0x58 + 36, 0x200).unwrap();
        put_u32(&mut pe, 0x58 + 56, 0x5000).unwrap();
        put_u32(&mut pe, 0x58 + 60, 0x400).unwrap();
        let header = 0x58 + 240;
        pe[header..header + 5].copy_from_slice(b".text");
        for (at, value) in [(8, 0x10), (12, 0x1000), (16, 0x200), (20, 0x400)] {
            put_u32(&mut pe, header + at, value).unwrap();
        }
        pe
    }

    #[test]
    fn sections_come_back() {
        let (stub, kernel) = (stub(), stub());
        let parts = [
            Section { name: ".cmdline", content: b"quiet" },
            Section { name: ".initrd", content: &[5; 1000] },
            Section { name: ".linux", content: &kernel },
        ];
        let uki = assemble(&stub, &parts, 9).unwrap();
        let found = sections(&uki).unwrap();
        assert_eq!(found.len(), 4);
        assert_eq!(&found[1..], &parts);
        let layout = Layout::read(&uki).unwrap();
        // .linux asks for its own SizeOfImage.
        assert_eq!(u32_at(&uki, layout.header(3) + 8).unwrap(), 0x5000);
        let addresses: Vec<_> = (0..4).map(|i| u32_at(&uki, layout.header(i) + 12).unwrap()).collect();
        assert_eq!(addresses, [0x1000, 0x2000, 0x3000, 0x4000]);
        assert_eq!(u32_at(&uki, layout.optional + 56).unwrap(), 0x9000);
    }

    #[test]
    fn a_full_header_is_refused() {
        let stub = stub();
        let many = vec![Section { name: ".a", content: b"x" }; 17];
        assert!(assemble(&stub, &many, 0).map(drop).unwrap_err().to_string().contains("no room"));
        assert!(assemble(b"MZ", &[], 0).is_err());
    }
}
