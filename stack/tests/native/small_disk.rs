//! A disk that a test can fill.

use std::fs;

use nix::mount::{MsFlags, mount};
use stack::space::Space;

use super::lab::Lab;

/// A disk of so many MiB, for the images and for all else that the machine stores.
pub fn make(lab: &Lab, mebibytes: usize) {
    let (disk, state) = (lab.folder.join("containerd"), lab.folder.join("state"));
    for folder in [&disk, &state] {
        fs::create_dir(folder).unwrap();
    }
    let size = format!("size={mebibytes}m");
    mount(Some("none"), &disk, Some("tmpfs"), MsFlags::empty(), Some(size.as_str())).unwrap();
    fs::create_dir(disk.join("state")).unwrap();
    mount(Some(&disk.join("state")), &state, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// Has all but so many bytes of the disk be taken.
pub fn leave(lab: &Lab, bytes: u64) {
    let file = lab.folder.join("state/fill");
    let _ = fs::remove_file(&file);
    let free = Space::below(&lab.folder.join("state")).unwrap().free;
    let size = free.checked_sub(bytes).expect("more is taken already");
    fs::write(&file, vec![1; usize::try_from(size).unwrap()]).unwrap();
}

/// Has so many percent of the disk be taken.
pub fn fill(lab: &Lab, percent: f64) {
    let all = Space::below(&lab.folder.join("state")).unwrap().all();
    leave(lab, (all as f64 * (1.0 - percent / 100.0)) as u64);
}
