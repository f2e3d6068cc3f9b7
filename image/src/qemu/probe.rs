//! Does a guest really run on this host's KVM? `/dev/kvm` alone does not tell: under some hypervisors the device is
//! there, yet a stock kernel dies on it. So a guest of one sector is started and must say that it got through.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::machine::PROGRAM;
use super::{Error, Result};

/// A real guest needs a tenth of a second; a host on which it takes longer than this gains nothing by KVM.
const DEADLINE: Duration = Duration::from_secs(2);

/// What the sector writes to the debug port when all went well; QEMU then exits with `2 * value + 1`.
const GOOD: u8 = 0x2a;

/// The sector does what a 64-bit kernel does first. An exception and its return are part of it: hosts were seen where
/// everything else works. Assembled with GNU as; linked at 0x7c00:
///
/// ```text
///         .code16                          .code64
///         cli                        long: mov $16,%eax
///         xor %ax,%ax                      mov %eax,%ds
///         mov %ax,%ds                      mov %eax,%ss
///         mov %ax,%es                      mov $0x4030,%edi      # IDT at 0x4000: vector 3
///         mov %ax,%ss                      movw $handler,(%rdi)
///         mov $0x7c00,%sp                  movw $8,2(%rdi)
///         mov $0x1000,%di                  movw $0x8e00,4(%rdi)
///         mov $0x1800,%cx                  movw $0,6(%rdi)
///         rep stosw          # tables      movq $0,8(%rdi)
///         movw $0x2003,0x1000              lidt idtr
///         movw $0x3003,0x2000              mov $0xc0000102,%ecx  # KERNEL_GS_BASE
///         movw $0x0083,0x3000 # 2 MiB      mov $0x1234,%eax
///         mov $0x20,%eax     # PAE         xor %edx,%edx
///         mov %eax,%cr4                    wrmsr
///         mov $0x1000,%eax                 xor %ebx,%ebx
///         mov %eax,%cr3                    int3
///         mov $0xc0000080,%ecx # EFER      cmp $1,%ebx
///         rdmsr                            jne fail
///         or $0x100,%ax      # LME         swapgs
///         wrmsr                            mov $0xc0000101,%ecx  # GS_BASE
///         lgdt gdtr                        rdmsr
///         mov %cr0,%eax                    cmp $0x1234,%eax
///         or $0x80000001,%eax # PG, PE     jne fail
///         mov %eax,%cr0                    mov %cs,%eax
///         ljmp $8,$long                    test $3,%al           # ring 0
///                                          jnz fail
/// handler: inc %ebx                        mov $0x2a,%al
///         iretq                            jmp say
/// gdt:    .quad 0                    fail: mov $1,%al
///         .quad 0x00af9a000000ffff   say:  mov $0xf4,%dx
///         .quad 0x00af92000000ffff         out %al,%dx
/// gdtr:   .word 23; .long gdt              hlt
/// idtr:   .word 63; .quad 0x4000
/// ```
const SECTOR: [u8; CODE_LEN] = [
    0xfa, 0x31, 0xc0, 0x8e, 0xd8, 0x8e, 0xc0, 0x8e, 0xd0, 0xbc, 0x00, 0x7c, 0xbf, 0x00, 0x10, 0xb9, 0x00,
    0x18, 0xf3, 0xab, 0xc7, 0x06, 0x00, 0x10, 0x03, 0x20, 0xc7, 0x06, 0x00, 0x20, 0x03, 0x30, 0xc7, 0x06,
    0x00, 0x30, 0x83, 0x00, 0x66, 0xb8, 0x20, 0x00, 0x00, 0x00, 0x0f, 0x22, 0xe0, 0x66, 0xb8, 0x00, 0x10,
    0x00, 0x00, 0x0f, 0x22, 0xd8, 0x66, 0xb9, 0x80, 0x00, 0x00, 0xc0, 0x0f, 0x32, 0x0d, 0x00, 0x01, 0x0f,
    0x30, 0x0f, 0x01, 0x16, 0xe8, 0x7c, 0x0f, 0x20, 0xc0, 0x66, 0x0d, 0x01, 0x00, 0x00, 0x80, 0x0f, 0x22,
    0xc0, 0xea, 0x5b, 0x7c, 0x08, 0x00, 0xb8, 0x10, 0x00, 0x00, 0x00, 0x8e, 0xd8, 0x8e, 0xd0, 0xbf, 0x30,
    0x40, 0x00, 0x00, 0x66, 0xc7, 0x07, 0xc9, 0x7c, 0x66, 0xc7, 0x47, 0x02, 0x08, 0x00, 0x66, 0xc7, 0x47,
    0x04, 0x00, 0x8e, 0x66, 0xc7, 0x47, 0x06, 0x00, 0x00, 0x48, 0xc7, 0x47, 0x08, 0x00, 0x00, 0x00, 0x00,
    0x0f, 0x01, 0x1c, 0x25, 0xee, 0x7c, 0x00, 0x00, 0xb9, 0x02, 0x01, 0x00, 0xc0, 0xb8, 0x34, 0x12, 0x00,
    0x00, 0x31, 0xd2, 0x0f, 0x30, 0x31, 0xdb, 0xcc, 0x83, 0xfb, 0x01, 0x75, 0x1b, 0x0f, 0x01, 0xf8, 0xb9,
    0x01, 0x01, 0x00, 0xc0, 0x0f, 0x32, 0x3d, 0x34, 0x12, 0x00, 0x00, 0x75, 0x0a, 0x8c, 0xc8, 0xa8, 0x03,
    0x75, 0x04, 0xb0, 0x2a, 0xeb, 0x02, 0xb0, 0x01, 0x66, 0xba, 0xf4, 0x00, 0xee, 0xf4, 0xff, 0xc3, 0x48,
    0xcf, 0x0f, 0x1f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00,
    0x9a, 0xaf, 0x00, 0xff, 0xff, 0x00, 0x00, 0x00, 0x92, 0xaf, 0x00, 0x17, 0x00, 0xd0, 0x7c, 0x00, 0x00,
    0x3f, 0x00, 0x00, 0x40, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
];
const CODE_LEN: usize = 248;

/// Whether the sector ran to its end under an accelerator (QEMU's words for `-accel` and `-cpu`).
///
/// # Errors
/// QEMU is missing, or the probe's disk cannot be written. A guest that does not run is no error.
pub(crate) fn guest_runs(accel: &str, cpu: &str, scratch: &Path) -> Result<bool> {
    let disk = scratch.join("probe.img");
    let mut bytes = SECTOR.to_vec();
    bytes.resize(510, 0);
    bytes.extend([0x55, 0xaa]);
    bytes.resize(64 * 512, 0);
    fs::write(&disk, bytes).map_err(Error::file("write", &disk))?;
    let mut child = Command::new(PROGRAM)
        .args(["-accel", accel, "-cpu", cpu, "-M", "pc", "-m", "16", "-nodefaults", "-display", "none"])
        .args(["-no-reboot", "-device", "isa-debug-exit,iobase=0xf4,iosize=4", "-drive"])
        .arg(format!("if=ide,format=raw,readonly=off,file={}", disk.display().to_string().replace(',', ",,")))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|source| Error::start(PROGRAM, source))?;
    let began = Instant::now();
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if began.elapsed() < DEADLINE => std::thread::sleep(Duration::from_millis(10)),
            _ => break None,
        }
    };
    if status.is_none() {
        // Its own child, not yet waited for: the number cannot belong to anybody else.
        let _ = child.kill();
        let _ = child.wait();
    }
    if let Some(mut stderr) = child.stderr.take() {
        // Read so that the pipe is not broken under QEMU's feet; what it says is of no use to anybody.
        let _ = stderr.read_to_end(&mut Vec::new());
    }
    let _ = fs::remove_file(&disk);
    Ok(status.and_then(|status| status.code()) == Some(i32::from(GOOD) * 2 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qemu::Accel;

    #[test]
    fn fits_before_the_partition_table() {
        const { assert!(CODE_LEN <= 446) }
    }

    #[test]
    fn the_emulator_runs_it() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(guest_runs(Accel::Tcg.accel(), Accel::Tcg.cpu(), scratch.path()).unwrap());
    }

    #[test]
    fn an_accelerator_that_is_not_there_does_not() {
        let scratch = tempfile::tempdir().unwrap();
        assert!(!guest_runs("no-such-accelerator", "max", scratch.path()).unwrap());
    }
}
