//! From a recipe to an image: the order of things.

use std::fs;
use std::path::{Path, PathBuf};

use crate::apt::{self, Apt, Lock, Mirrors};
use crate::artifacts::Artifacts;
use crate::digest::{self, Seed};
use crate::error::{Error, Result};
use crate::flavour::Flavour;
use crate::kmod::Modules;
use crate::manifest::{Digest, Manifest};
use crate::programs::{self, Programs};
use crate::progress::step;
use crate::recipe::{Recipe, STUB_PACKAGE};
use crate::scripts::{self, Script};
use crate::squashfs::{self, Compression};
use crate::stamp::Stamp;
use crate::sysroot::Sysroot;
use crate::tools::Tools;
use crate::uki::{self, Section};
use crate::unpacked::Unpacked;
use crate::{disk, fat, gpt, host, place, rootfs, sbom, verity};

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkout with overlay and programs.
    pub source: PathBuf,
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Which of its images.
    pub flavour: Flavour,
    /// Folder for the outputs; one below it is named after the recipe.
    pub out: PathBuf,
    /// Folder for downloads.
    pub cache: PathBuf,
    /// Addresses of Debian's archives instead of the host's own.
    pub mirrors: Option<Mirrors>,
    /// Resolve packages again.
    pub update: bool,
    /// Build exactly the packages of this manifest.
    pub locked: Option<PathBuf>,
    /// How hard to compress.
    pub compression: Compression,
    /// Take the device's programs from this folder instead of compiling them.
    pub programs: Option<PathBuf>,
    /// Whether missing host tools may be installed.
    pub install: bool,
}

impl Options {
    /// The defaults for a recipe, by name or path.
    ///
    /// # Errors
    /// The current folder cannot be read, or there is no home folder.
    pub fn new(recipe: &str) -> Result<Options> {
        let source = place::source()?;
        Ok(Options {
            recipe: place::recipe(&source, recipe),
            flavour: Flavour::default(),
            out: place::target(&source).join("bothy"),
            cache: place::cache()?,
            source,
            mirrors: None,
            update: false,
            locked: None,
            compression: Compression::Development,
            programs: None,
            install: true,
        })
    }
}

/// Builds the image unless nothing has changed since the last time. A second build of the same image waits for the
/// first.
///
/// # Errors
/// Any step of the build; the message names it.
pub fn ensure(options: &Options) -> Result<Artifacts> {
    let recipe = Recipe::load(&options.recipe)?.in_flavour(options.flavour)?;
    let out = options.out.join(recipe.image_name());
    fs::create_dir_all(&out).map_err(Error::write(&out))?;
    let _lock = place::lock(&out.join("lock"))?;
    let stamp = Stamp::of(options, &out)?;
    if let (false, Some(artifacts)) = (options.update, Artifacts::load(&out).filter(|a| stamp.is_fresh(a))) {
        return Ok(artifacts);
    }
    host::ensure(host::BUILD, options.install)?;
    stamp.clear();
    let artifacts = build(options, &recipe, &out)?;
    stamp.set(&artifacts)?;
    Ok(artifacts)
}

/// Compiles the device's programs as [`ensure`] would, and returns the folder that they are in.
///
/// # Errors
/// Packages cannot be had, or cargo fails.
pub fn compile(options: &Options) -> Result<PathBuf> {
    let recipe = Recipe::load(&options.recipe)?;
    host::ensure(host::BUILD, options.install)?;
    let (lock, unpacked) = packages(options, &recipe, &options.out.join(&recipe.name))?;
    let digest = lock_digest(&recipe, &lock);
    let sysroot = Sysroot::unpack(&options.cache, &digest, &recipe, &unpacked.packages)?;
    let _step = step("compile the device's programs");
    programs::build(&options.source, recipe.architecture, options.compression, &sysroot)
}

/// Gets every package and unpacks it.
fn packages(options: &Options, recipe: &Recipe, out: &Path) -> Result<(Lock, Unpacked)> {
    let (lock, apt) = resolve(options, recipe, out)?;
    {
        let _step = step("download packages");
        apt.download(&lock)?;
    }
    let _step = step("unpack packages");
    let unpacked = Unpacked::of(&apt, &lock, &options.cache, recipe.architecture.library_folder())?;
    Ok((lock, unpacked))
}

fn build(options: &Options, recipe: &Recipe, out: &Path) -> Result<Artifacts> {
    let architecture = recipe.architecture;
    let (lock, Unpacked { packages, scripts }) = packages(options, recipe, out)?;
    let digest = lock_digest(recipe, &lock);
    let tools = Tools::unpack(&options.cache, &digest, recipe, &packages)?;
    let programs_folder = match &options.programs {
        Some(folder) => folder.clone(),
        None => {
            let sysroot = Sysroot::unpack(&options.cache, &digest, recipe, &packages)?;
            let _step = step("compile the device's programs");
            programs::build(&options.source, architecture, options.compression, &sysroot)?
        }
    };
    let programs = Programs::load(&programs_folder)?;
    let (kernel_package, kernel_tree) = packages.with_prefix("linux-", "boot/vmlinuz-")?;
    let modules = Modules::new(kernel_package, kernel_tree)?;
    let overlay = options.source.join("overlay");
    let root = rootfs::root(recipe, &packages, kernel_package, &modules, &programs, &overlay)?;
    let is_used = |script: &Script| root.sources.contains(&script.package);
    let used: Vec<Script> =
        scripts.into_iter().filter(is_used).map(|s| s.without_version(&modules.version)).collect();
    let list = options.source.join("image/recipes/maintainer-scripts.toml");
    scripts::review(&list, &used, &options.cache.join("scripts"), out)?;
    let squashfs = {
        let _step = step(format!("compress the root file system ({} MB)", root.tree.size() / 1_000_000));
        squashfs::create(&tools, &root.tree, recipe.epoch, options.compression, out)?
    };
    let _step = step("write the image");
    let mut root_partition = squashfs;
    root_partition.resize(root_partition.len().next_multiple_of(verity::BLOCK), 0);
    let seed = Seed::new(&digest::sha256(&root_partition));
    let verity = verity::tree(&root_partition, &seed.bytes("verity salt"), seed.uuid("verity"))?;
    root_partition.extend_from_slice(&verity.area);

    let root_hash = digest::to_hex(&verity.root);
    let command_line = format!("{} roothash={root_hash}", recipe.kernel.command_line);
    let mut cpio = Vec::new();
    let initrd = rootfs::initrd(recipe, &modules, &programs)?;
    initrd.write_cpio(&mut cpio, recipe.epoch).map_err(|e| Error::format("initrd", e.to_string()))?;
    let initrd = zstd::encode_all(&cpio[..], initrd_level(options.compression))
        .map_err(|e| Error::format("initrd", e.to_string()))?;
    let vmlinuz = format!("boot/vmlinuz-{}", modules.version);
    let missing = |package: &str, path: &str| Error::Package {
        package: package.to_owned(),
        reason: format!("it has no {path}"),
    };
    let kernel = kernel_tree.file(&vmlinuz).ok_or_else(|| missing(kernel_package, &vmlinuz))?;
    let stub = packages.tree(STUB_PACKAGE)?.file(architecture.stub());
    let stub = stub.ok_or_else(|| missing(STUB_PACKAGE, architecture.stub()))?;
    let os_release = rootfs::os_release(recipe);
    let sections = [
        Section { name: ".osrel", content: os_release.as_bytes() },
        Section { name: ".cmdline", content: command_line.as_bytes() },
        Section { name: ".uname", content: modules.version.as_bytes() },
        Section { name: ".initrd", content: &initrd },
        Section { name: ".linux", content: kernel },
    ];
    let uki = uki::assemble(stub, &sections, recipe.epoch)?;
    let efi_path = format!("EFI/BOOT/{}", architecture.efi_name());
    let defaults = provisioning::default_document();
    let files: [(&str, &[u8]); 2] = [("bothy.toml", defaults.as_bytes()), (&efi_path, &uki)];
    let boot = fat::create(disk::BOOT_SIZE as usize, seed.u32("boot"), recipe.epoch, &files)?;

    let outputs = Outputs { out, name: &recipe.image_name() };
    let image = outputs.path("img");
    disk::write(&image, &seed, gpt::ROOT_X86_64, &boot, &root_partition)?;
    let compressed = outputs.path("img.zst");
    let level = if options.compression == Compression::Release { 19 } else { 1 };
    let (image_sha256, compressed_sha256) = disk::compress(&image, &compressed, level)?;
    let kernel_out = outputs.write("vmlinuz", kernel)?;
    let initrd_out = outputs.write("initrd", &initrd)?;
    let length = |path: &Path| fs::metadata(path).map(|m| m.len()).map_err(Error::read(path));
    let digest_of = |path: &Path, sha256: String| -> Result<Digest> {
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Digest { name, size: length(path)?, sha256 })
    };
    let image_digest = digest_of(&image, image_sha256)?;
    let compressed_digest = digest_of(&compressed, compressed_sha256)?;
    outputs.write("sha256", sums(&[&image_digest, &compressed_digest]).as_bytes())?;
    let manifest = Manifest {
        format: 1,
        name: recipe.image_name(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: recipe.epoch,
        kernel: modules.version.clone(),
        root_hash,
        programs: program_digests(&programs),
        compiler: programs.origin.compiler.clone(),
        lock,
        used: root.sources.iter().chain(&recipe.static_libraries).cloned().collect(),
        outputs: vec![image_digest, compressed_digest],
    };
    for package in recipe.debug.packages.keys().filter(|_| recipe.flavour.has_debug_files()) {
        let tree = packages.tree(package)?;
        let copyright = tree.resolve(&format!("usr/share/doc/{package}/copyright"));
        if let Some(text) = copyright.and_then(|path| tree.file(&path)) {
            outputs.write(&format!("{package}.copyright"), text)?;
        }
    }
    let artifacts = Artifacts {
        name: recipe.image_name(),
        image,
        compressed,
        manifest: outputs.write("manifest.json", &manifest.to_json())?,
        sbom: outputs.write("sbom.cdx.json", &sbom::cyclonedx(&manifest, &programs.origin.crates, &seed))?,
        kernel: kernel_out,
        initrd: initrd_out,
        command_line,
        programs: programs_folder,
        tools: tools.folder().to_owned(),
        library_folder: architecture.library_folder().to_owned(),
    };
    let text =
        serde_json::to_vec_pretty(&artifacts).map_err(|e| Error::format("artifacts", e.to_string()))?;
    place::replace(&out.join(Artifacts::FILE), &text)?;
    Ok(artifacts)
}

/// Names of output files.
struct Outputs<'a> {
    out: &'a Path,
    name: &'a str,
}

impl Outputs<'_> {
    fn path(&self, ending: &str) -> PathBuf {
        self.out.join(format!("{}.{ending}", self.name))
    }

    fn write(&self, ending: &str, bytes: &[u8]) -> Result<PathBuf> {
        let path = self.path(ending);
        place::replace(&path, bytes)?;
        Ok(path)
    }
}

/// The format of sha256sum(1).
fn sums(files: &[&Digest]) -> String {
    files.iter().map(|f| format!("{}  {}\n", f.sha256, f.name)).collect()
}

fn program_digests(programs: &Programs) -> Vec<Digest> {
    programs.named().map(|(name, bytes)| Digest::of(name, bytes)).to_vec()
}

fn initrd_level(compression: Compression) -> i32 {
    match compression {
        Compression::Development => 6,
        Compression::Release => 19,
    }
}

/// The packages to take: of the manifest that was named, else of the last build, else what apt says.
fn resolve(options: &Options, recipe: &Recipe, out: &Path) -> Result<(Lock, Apt)> {
    let apt = Apt::new(&options.cache.join("apt").join(&recipe.name), recipe, options.mirrors.as_ref())?;
    let request = apt::request(recipe);
    if let Some(path) = &options.locked {
        let lock = Manifest::load(path)?.lock;
        if lock.request != request {
            let reason = "was made for other packages than the recipe names".to_owned();
            return Err(Error::Recipe { path: path.clone(), reason });
        }
        return Ok((lock, apt));
    }
    // A flavour is made of what the image itself was made of, where that is there.
    let plain = options.out.join(&recipe.name).join(format!("{}.manifest.json", recipe.name));
    let own = out.join(format!("{}.manifest.json", recipe.image_name()));
    for last in [plain, own] {
        // A damaged one is an error: to resolve again is what only --update does.
        if !options.update && last.exists() {
            let lock = Manifest::load(&last)?.lock;
            if lock.request == request {
                return Ok((lock, apt));
            }
        }
    }
    let _step = step("ask the mirror for packages");
    apt.update()?;
    Ok((apt.resolve(recipe)?, apt))
}

/// What is unpacked from packages for use on this machine lies in folders named after all that may be in it.
fn lock_digest(recipe: &Recipe, lock: &Lock) -> String {
    let packages = lock.packages.iter().map(|p| p.sha256.as_str());
    let names = recipe.tools.iter().chain(&recipe.static_libraries).map(String::as_str);
    let names: Vec<&str> = names.chain(packages).collect();
    digest::hex(names.join(" ").as_bytes())[..16].to_owned()
}
