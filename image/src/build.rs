//! From a recipe to an image: the order of things.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use crate::apt::{self, Apt, Lock, Package};
use crate::deb::{self, Deb};
use crate::digest::{self, Seed};
use crate::error::{Error, Result};
use crate::kmod::Modules;
use crate::manifest::{Digest, Manifest};
use crate::programs::{self, Programs};
use crate::progress::step;
use crate::recipe::{Recipe, STUB_PACKAGE};
use crate::scripts::{self, Script};
use crate::select::Packages;
use crate::squashfs::{self, Compression};
use crate::tools::Tools;
use crate::tree::{Kind, Tree};
use crate::uki::{self, Section};
use crate::{disk, fat, gpt, host, place, rootfs, sbom, verity};

/// What to build, and where.
#[derive(Debug, Clone)]
pub struct Options {
    /// The checkout with overlay and programs.
    pub source: PathBuf,
    /// The recipe's file.
    pub recipe: PathBuf,
    /// Folder for the outputs; one below it is named after the recipe.
    pub out: PathBuf,
    /// Folder for downloads.
    pub cache: PathBuf,
    /// Address of a Debian mirror instead of the host's own.
    pub mirror: Option<String>,
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
            out: place::target(&source).join("bothy"),
            cache: place::cache()?,
            source,
            mirror: None,
            update: false,
            locked: None,
            compression: Compression::Development,
            programs: None,
            install: true,
        })
    }
}

/// The files of a finished image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifacts {
    /// Name of the recipe.
    pub name: String,
    /// The disk image, with holes.
    pub image: PathBuf,
    /// The same compressed, for publishing.
    pub compressed: PathBuf,
    /// What it was made of.
    pub manifest: PathBuf,
    /// Software bill of materials.
    pub sbom: PathBuf,
    /// The kernel out of the image's own UKI.
    pub kernel: PathBuf,
    /// The initrd out of the image's own UKI.
    pub initrd: PathBuf,
    /// The command line out of the image's own UKI.
    pub command_line: String,
    /// The folder of the device's programs that went into it.
    pub programs: PathBuf,
    /// Programs of Debian's that the builder unpacked: mksquashfs, and second opinions for tests.
    pub tools: PathBuf,
    /// Debian's name of the folder of libraries in `tools`.
    pub library_folder: String,
}

/// Builds the image unless nothing has changed since the last time.
///
/// # Errors
/// Any step of the build; the message names it.
pub fn ensure(options: &Options) -> Result<Artifacts> {
    let recipe = Recipe::load(&options.recipe)?;
    let out = options.out.join(&recipe.name);
    let inputs = inputs(options)?;
    let stamp = out.join("inputs.sha256");
    if !options.update
        && fs::read_to_string(&stamp).is_ok_and(|old| old == inputs)
        && let Some(artifacts) = Artifacts::load(&out).filter(Artifacts::complete)
    {
        return Ok(artifacts);
    }
    host::ensure(host::BUILD, options.install)?;
    let _ = fs::remove_file(&stamp);
    let artifacts = build(options, &recipe, &out)?;
    fs::write(&stamp, inputs).map_err(Error::write(&stamp))?;
    Ok(artifacts)
}

impl Artifacts {
    /// Those of an earlier build in its output folder.
    pub fn load(out: &Path) -> Option<Artifacts> {
        serde_json::from_slice(&fs::read(out.join("artifacts.json")).ok()?).ok()
    }

    fn complete(&self) -> bool {
        let files = [
            &self.image,
            &self.compressed,
            &self.manifest,
            &self.sbom,
            &self.kernel,
            &self.initrd,
            &self.tools,
        ];
        files.iter().all(|path| path.exists())
    }

    /// The unpacked tools.
    ///
    /// # Errors
    /// They are gone.
    pub fn tools(&self) -> Result<Tools> {
        Tools::at(&self.tools, &self.library_folder)
    }

    /// Unpacks the image's root file system as plain files, for programs that are to run on this machine.
    ///
    /// # Errors
    /// The image cannot be read, or `unsquashfs` fails.
    pub fn unpack_root(&self, folder: &Path) -> Result<()> {
        let mut image = fs::File::open(&self.image).map_err(Error::read(&self.image))?;
        let (offset, _) = gpt::find(&mut image, "root-a")?;
        let mut command = self.tools()?.command("usr/bin/unsquashfs");
        command.args(["-quiet", "-no-progress", "-no-xattrs", "-force", "-offset"]).arg(offset.to_string());
        crate::process::output(command.arg("-dest").arg(folder).arg(&self.image)).map(drop)
    }
}

/// A digest of everything that decides the output: recipe, sources, overlay, lock, options and this program itself.
fn inputs(options: &Options) -> Result<String> {
    let scripts = options.source.join("image/recipes/maintainer-scripts.toml");
    let mut files = vec![options.recipe.clone(), scripts, options.source.join("overlay")];
    match &options.programs {
        Some(folder) => files.push(folder.clone()),
        None => files.extend(programs::sources(&options.source)),
    }
    files.extend(options.locked.clone());
    files.push("/proc/self/exe".into());
    let mut parts = vec![format!("{:?} {:?}", options.compression, options.mirror)];
    for path in files {
        if path.is_dir() {
            for (name, node) in Tree::read_folder(&path)?.iter() {
                let content = match &node.kind {
                    Kind::File(bytes) => digest::hex(bytes),
                    Kind::Link(target) => target.clone(),
                    Kind::Folder => String::new(),
                };
                parts.push(format!("{name} {:o} {content}", node.mode));
            }
        } else {
            parts.push(digest::hex(&fs::read(&path).map_err(Error::read(&path))?));
        }
    }
    Ok(digest::hex(parts.join("\n").as_bytes()))
}

fn build(options: &Options, recipe: &Recipe, out: &Path) -> Result<Artifacts> {
    fs::create_dir_all(out).map_err(Error::write(out))?;
    let architecture = recipe.architecture;
    let programs_folder = match &options.programs {
        Some(folder) => folder.clone(),
        None => {
            let _step = step("compile the device's programs");
            programs::build(&options.source, architecture, options.compression)?
        }
    };
    let programs = Programs::load(&programs_folder)?;
    let (lock, apt) = resolve(options, recipe, out)?;
    {
        let _step = step("download packages");
        apt.download(&lock)?;
    }
    let Unpacked { packages, scripts } = {
        let _step = step("unpack packages");
        unpack(&apt, &lock, &options.cache, architecture.library_folder())?
    };
    let tools = Tools::unpack(&options.cache, &tools_digest(recipe, &lock), recipe, &packages)?;
    let (kernel_package, kernel_tree) = packages.with_prefix("linux-", "boot/vmlinuz-")?;
    let modules = Modules::new(kernel_package, kernel_tree)?;
    let overlay = options.source.join("overlay");
    let root = rootfs::root(recipe, &packages, &modules, &programs, &overlay)?;
    let is_used =
        |script: &Script| root.sources.contains(&script.package) || script.package == kernel_package;
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

    let outputs = Outputs { out, name: &recipe.name };
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
        name: recipe.name.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        epoch: recipe.epoch,
        kernel: modules.version.clone(),
        root_hash,
        programs: program_digests(&programs),
        lock,
        used: root
            .sources
            .iter()
            .cloned()
            .chain([kernel_package.to_owned(), STUB_PACKAGE.to_owned()])
            .collect(),
        outputs: vec![image_digest, compressed_digest],
    };
    let cargo_lock = options.source.join("Cargo.lock");
    let cargo_lock = fs::read_to_string(&cargo_lock).map_err(Error::read(&cargo_lock))?;
    let artifacts = Artifacts {
        name: recipe.name.clone(),
        image,
        compressed,
        manifest: outputs.write("manifest.json", &manifest.to_json())?,
        sbom: outputs.write("sbom.cdx.json", &sbom::cyclonedx(&manifest, &cargo_lock, &seed))?,
        kernel: kernel_out,
        initrd: initrd_out,
        command_line,
        programs: programs_folder,
        tools: tools.folder().to_owned(),
        library_folder: architecture.library_folder().to_owned(),
    };
    let text =
        serde_json::to_vec_pretty(&artifacts).map_err(|e| Error::format("artifacts", e.to_string()))?;
    let path = out.join("artifacts.json");
    fs::write(&path, text).map_err(Error::write(&path))?;
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
        fs::write(&path, bytes).map_err(Error::write(&path))?;
        Ok(path)
    }
}

/// The format of sha256sum(1).
fn sums(files: &[&Digest]) -> String {
    files.iter().map(|f| format!("{}  {}\n", f.sha256, f.name)).collect()
}

fn program_digests(programs: &Programs) -> Vec<Digest> {
    [("init", &programs.init), ("stack", &programs.stack), ("watchdog", &programs.watchdog)]
        .map(|(name, bytes)| Digest::of(name, bytes))
        .to_vec()
}

fn initrd_level(compression: Compression) -> i32 {
    match compression {
        Compression::Development => 6,
        Compression::Release => 19,
    }
}

/// The packages to take: of the manifest that was named, else of the last build, else what apt says.
fn resolve(options: &Options, recipe: &Recipe, out: &Path) -> Result<(Lock, Apt)> {
    let apt = Apt::new(&options.cache.join("apt").join(&recipe.name), recipe, options.mirror.as_deref())?;
    let request = apt::request(recipe);
    if let Some(path) = &options.locked {
        let lock = Manifest::load(path)?.lock;
        if lock.request != request {
            let reason = "was made for other packages than the recipe names".to_owned();
            return Err(Error::Recipe { path: path.clone(), reason });
        }
        return Ok((lock, apt));
    }
    let last = Manifest::load(&out.join(format!("{}.manifest.json", recipe.name))).map(|m| m.lock);
    if let (false, Some(lock)) = (options.update, last.ok().filter(|lock| lock.request == request)) {
        return Ok((lock, apt));
    }
    let _step = step("ask the mirror for packages");
    apt.update()?;
    Ok((apt.resolve(recipe)?, apt))
}

/// Every package, unpacked.
struct Unpacked {
    packages: Packages,
    scripts: Vec<Script>,
}

/// Unpacks every package, with the uncompressed archives kept for the next time.
fn unpack(apt: &Apt, lock: &Lock, cache: &Path, library_folder: &str) -> Result<Unpacked> {
    let kept = cache.join("unpacked");
    fs::create_dir_all(&kept).map_err(Error::write(&kept))?;
    let one = |package: &Package| -> Result<(Tree, Vec<Script>)> {
        let place = |part: &str| kept.join(format!("{}.{part}.tar", package.sha256));
        let keep = |part: &str, bytes: &[u8]| -> Result<()> {
            let draft = kept.join(format!("{}.{part}.{}", package.sha256, std::process::id()));
            fs::write(&draft, bytes).map_err(Error::write(&draft))?;
            fs::rename(&draft, place(part)).map_err(Error::write(place(part)))
        };
        let deb = match (fs::read(place("data")), fs::read(place("control"))) {
            (Ok(data), Ok(control)) => Deb { data, control },
            _ => {
                let deb = Deb::open(&apt.archive(package))?;
                keep("data", &deb.data)?;
                keep("control", &deb.control)?;
                deb
            }
        };
        let damaged = |reason| Error::Unpack { path: apt.archive(package), reason };
        let script = |(name, text)| Script { package: package.name.clone(), name, text };
        let scripts = deb::scripts(&deb.control).map_err(damaged)?.into_iter().map(script).collect();
        Ok((deb::tree(&deb.data).map_err(damaged)?, scripts))
    };
    let unpacked: Vec<(Tree, Vec<Script>)> = lock.packages.par_iter().map(one).collect::<Result<_>>()?;
    let (trees, scripts): (Vec<Tree>, Vec<Vec<Script>>) = unpacked.into_iter().unzip();
    let trees: BTreeMap<String, Tree> = lock.packages.iter().map(|p| p.name.clone()).zip(trees).collect();
    Ok(Unpacked { packages: Packages::new(trees, library_folder), scripts: scripts.concat() })
}

/// The tools' folder is named after every package that may be in it.
fn tools_digest(recipe: &Recipe, lock: &Lock) -> String {
    let packages = lock.packages.iter().map(|p| p.sha256.as_str());
    let names: Vec<&str> = recipe.tools.iter().map(String::as_str).chain(packages).collect();
    digest::hex(names.join(" ").as_bytes())[..16].to_owned()
}
