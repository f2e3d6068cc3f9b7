//! Disks that are larger than before, full, written over, or refuse to be written: the machine comes up and says so.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use qemu_tests::{
    BOTHY, Case, Inside, Running, SAMPLE_FUNCTION, SAMPLE_IMAGE, SHELL_IMAGE, assert_clean, shell, shell_case,
};

const LIMIT: Duration = Duration::from_secs(120);
const MIB: u64 = 1 << 20;

/// Size of `/var` and what is free there, in KiB.
fn room(running: &mut Running) -> Result<(u64, u64)> {
    let numbers = shell(running, "df -k /var | tail -n 1 | awk '{ print $2, $4 }'")?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers[..] {
        [size, free] => Ok((size, free)),
        _ => anyhow::bail!("df said {numbers:?}"),
    }
}

/// What is kept for the appliance of what is free there, and what is left for everybody, in KiB.
fn reserve(running: &mut Running) -> Result<(u64, u64)> {
    let numbers = shell(running, "stat -f -c '%f %a %S' /var")?;
    let numbers: Vec<u64> = numbers.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
    match numbers[..] {
        [free, available, block] => Ok(((free - available) * block / 1024, available * block / 1024)),
        _ => anyhow::bail!("stat said {numbers:?}"),
    }
}

/// Waits until the status has a problem with a text, or none any more.
fn problem(running: &mut Running, text: &str, there: bool) -> Result<()> {
    let began = Instant::now();
    loop {
        let problems = Inside::look(running)?.status["problems"].to_string();
        if problems.contains(text) == there {
            return Ok(());
        }
        ensure!(began.elapsed() < LIMIT, "`{text}` in the problems is to be {there}: {problems}");
    }
}

fn figlet(case: &mut Case, running: &mut Running) -> Result<()> {
    let answer = case.answer(running, SAMPLE_FUNCTION, "Bothy")?;
    ensure!(answer == BOTHY, "figlet wrote:\n{answer}");
    Ok(())
}

#[test]
fn grows_with_the_disk() {
    shell_case("storage_grown", |case| {
        let disk = case.used_disk()?;
        let (_, before) = disk.extent("data")?;
        disk.grow(7 << 30)?;
        for _ in 0..2 {
            let mut running = case.up(&disk)?;
            figlet(case, &mut running)?;
            let (large, _) = room(&mut running)?;
            // Three GiB more; a little of all the file system takes itself.
            let most = before / 1024 + 3 * 1024 * 1024;
            ensure!((most - most / 20..=most).contains(&large), "data has {large} KiB of {most}");
            // What is kept does not grow with it: 64 MiB, and 16 that the kernel holds back for itself.
            let (kept, _) = reserve(&mut running)?;
            ensure!((60 << 10..84 << 10).contains(&kept), "{kept} KiB are kept");
            case.power_off(running)?;
            assert_clean(case.artifacts(), &disk, case.folder())?;
        }
        Ok(())
    });
}

#[test]
fn goes_on_when_it_is_full() {
    shell_case("storage_full", |case| {
        let disk = case.used_disk()?;
        let mut running = case.up(&disk)?;
        figlet(case, &mut running)?;
        // The last of it by who may do that: a function, whose root file system is there.
        case.gateway(&running).deploy("filler", SHELL_IMAGE)?;
        case.answer(&mut running, "filler", "true")?;
        let (_, free) = room(&mut running)?;
        shell(&mut running, &format!("fallocate -l {}k /var/fill", free - 100 * 1024))?;
        let fill = "cd /home/app; for size in 64 4; do dd if=/dev/zero of=$size bs=${size}k; done 2>&1; sync";
        let filled = case.gateway(&running).call("filler", fill)?;
        ensure!(filled.body.contains("No space left"), "{filled:?}");
        // It had no more than that, though its root file system is an overlay that root mounted.
        let (kept, left) = reserve(&mut running)?;
        ensure!(kept > 55 << 10 && left < 1 << 10, "{kept} KiB are kept and {left} KiB left");
        problem(&mut running, "data is full", true)?;
        figlet(case, &mut running)?;
        let refused = case.gateway(&running).deploy("more", SHELL_IMAGE);
        println!("a deployment on a full disk: {refused:?}");
        figlet(case, &mut running)?;
        case.power_off(running)?;

        // A start on a full disk.
        let mut running = case.up(&disk)?;
        figlet(case, &mut running)?;
        problem(&mut running, "data is full", true)?;
        // What has to be possible then.
        case.gateway(&running).remove("filler")?;
        shell(&mut running, "rm /var/fill")?;
        problem(&mut running, "data is full", false)?;
        case.gateway(&running).deploy("more", SHELL_IMAGE)?;
        ensure!(case.answer(&mut running, "more", "echo well")? == "well\n");
        case.power_off(running)?;
        assert_clean(case.artifacts(), &disk, case.folder())
    });
}

#[test]
fn comes_up_with_what_is_damaged() {
    shell_case("storage_damaged", |case| {
        let disk = case.used_disk()?;
        // Superblock and group descriptors: there are backups.
        let (data, _) = disk.extent("data")?;
        disk.damage(data, &[0xa5; 64 << 10])?;
        // And what a person edits: the last good configuration is in force, its password the same.
        let (boot, _) = disk.extent("boot")?;
        let mut intact = vec![0; MIB as usize];
        File::open(disk.path())?.read_exact_at(&mut intact, boot)?;
        disk.damage(boot, &vec![0xa5; MIB as usize])?;
        let mut running = case.up(&disk)?;
        figlet(case, &mut running)?;
        problem(&mut running, "last good", true)?;
        problem(&mut running, "data was damaged and repaired", true)?;
        case.power_off(running)?;

        // The descriptors alone: the first superblock says that all is clean.
        disk.damage(boot, &intact)?;
        disk.damage(data + 4096, &[0xa5; 4096])?;
        let mut running = case.up(&disk)?;
        figlet(case, &mut running)?;
        problem(&mut running, "data was damaged and repaired", true)?;
        case.power_off(running)?;

        // Nothing is wrong with it any more, and nothing is said.
        let mut running = case.up(&disk)?;
        ensure!(Inside::look(&mut running)?.is_well(), "a repair is said at a later start");
        case.power_off(running)?;

        // Tables of inodes, the root folder's among them: what is left is without names.
        disk.damage(data + MIB, &vec![0xa5; 24 * MIB as usize])?;
        disk.damage(data + 1024, &[0xa5; 1024])?;
        let mut running = case.up(&disk)?;
        problem(&mut running, "data was damaged and repaired", true)?;
        println!("damaged: {}", Inside::look(&mut running)?.status["problems"]);
        case.gateway(&running).deploy("after", SAMPLE_IMAGE)?;
        ensure!(case.answer(&mut running, "after", "Bothy")? == BOTHY);
        case.power_off(running)
    });
}

#[test]
fn serves_from_a_disk_that_takes_nothing() {
    shell_case("storage_read_only", |case| {
        let disk = case.used_disk()?;
        let mut machine = case.machine(&disk)?;
        machine.read_only = true;
        let mut running = case.boot(&machine)?;
        problem(&mut running, "data is in memory", true)?;
        case.gateway(&running).deploy(SAMPLE_FUNCTION, SAMPLE_IMAGE)?;
        figlet(case, &mut running)?;
        case.power_off(running)?;
        // What was on it is still there.
        assert_clean(case.artifacts(), &disk, case.folder())
    });
}
