//! The power button: KEY_POWER of any input device (ACPI, GPIO) asks for a power off.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::task::{JoinHandle, spawn_local};

use crate::descriptor::readable;
use crate::power::Ending;

/// `struct input_event` on a 64-bit machine: two longs of time, type, code, value.
const EVENT_BYTES: usize = 24;
const EV_KEY: u16 = 1;
const KEY_POWER: u16 = 116;

/// Watches all devices that have the key, those too that come later.
pub(super) async fn watch(mut inputs: watch::Receiver<u64>, wish: watch::Sender<Option<Ending>>) {
    let mut tasks: HashMap<PathBuf, JoinHandle<()>> = HashMap::new();
    loop {
        tasks.retain(|_, task| !task.is_finished());
        let entries = fs::read_dir("/dev/input").into_iter().flatten().flatten().map(|entry| entry.path());
        for path in
            entries.filter(|path| path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("event")))
        {
            if !tasks.contains_key(&path)
                && let Some(device) = open(&path)
            {
                tasks.insert(path, spawn_local(follow(device, wish.clone())));
            }
        }
        if inputs.changed().await.is_err() {
            return;
        }
    }
}

/// Opens a device if it has the key.
fn open(path: &Path) -> Option<AsyncFd<File>> {
    // EVIOCGBIT(EV_KEY, 96): 768 bits, KEY_MAX is 767.
    const GET_KEYS: u64 = (2 << 30) | (96 << 16) | (0x45 << 8) | (0x20 + EV_KEY as u64);
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).ok()?;
    let mut keys = [0_u8; 96];
    // SAFETY: the kernel writes at most 96 bytes, as the number says.
    if unsafe { libc::ioctl(file.as_raw_fd(), GET_KEYS as libc::Ioctl, keys.as_mut_ptr()) } < 0 {
        return None;
    }
    let has = keys.get(usize::from(KEY_POWER / 8)).is_some_and(|byte| byte & (1 << (KEY_POWER % 8)) != 0);
    if has { readable(file).ok() } else { None }
}

async fn follow(device: AsyncFd<File>, wish: watch::Sender<Option<Ending>>) {
    loop {
        let Ok(mut ready) = device.readable().await else { return };
        let mut buffer = [0_u8; EVENT_BYTES * 16];
        match ready.try_io(|device| device.get_ref().read(&mut buffer)) {
            Ok(Ok(length)) if length > 0 => {
                if buffer.get(..length).unwrap_or_default().chunks_exact(EVENT_BYTES).any(is_press) {
                    tracing::info!("the power button was pressed");
                    wish.send_replace(Some(Ending::Poweroff));
                }
            }
            // Unplugged.
            Ok(_) => return,
            Err(_would_block) => {}
        }
    }
}

fn is_press(event: &[u8]) -> bool {
    let u16_at = |at: usize| event.get(at..at + 2).and_then(|b| b.try_into().ok()).map(u16::from_ne_bytes);
    let value = event.get(20..24).and_then(|b| b.try_into().ok()).map(i32::from_ne_bytes);
    (u16_at(16), u16_at(18), value) == (Some(EV_KEY), Some(KEY_POWER), Some(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_press_is_one_key_going_down() {
        let event = |kind: u16, code: u16, value: i32| {
            let mut bytes = vec![0; 16];
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(code.to_ne_bytes());
            bytes.extend(value.to_ne_bytes());
            bytes
        };
        assert!(is_press(&event(1, 116, 1)));
        assert!(!is_press(&event(1, 116, 0)));
        assert!(!is_press(&event(1, 115, 1)));
        assert!(!is_press(&event(0, 116, 1)));
        assert!(!is_press(&[]));
    }
}
