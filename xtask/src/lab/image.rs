// SPDX-License-Identifier: MIT OR Apache-2.0

//! The first roots of Dom0 and DomU. What comes from Debian is an archive made once; what is the project's own (modules,
//! scenarios, programs) follows it in the same file and is written anew each time.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::cpio::Archive;
use super::{kernel::Kernel, root::Root, stamp::Stamp};
use crate::{command, versions};

/// What a machine is made of.
struct Recipe {
    name: &'static str,
    /// Programs, with the libraries they need, each under its own path. `{xen}` is the folder of Xen's version.
    programs: &'static [&'static str],
    /// Folders of data, whole.
    data: &'static [&'static str],
    /// Stock modules, with those they need, for `modprobe`.
    modules: &'static [&'static str],
}

/// Both have busybox for the rest.
const DOMU: Recipe = Recipe {
    name: "domu",
    programs: &[
        "/usr/bin/bash",
        "/usr/bin/fio",
        "/usr/bin/iperf3",
        "/usr/bin/xenstore",
        "/usr/sbin/blkdiscard",
        "/usr/sbin/blockdev",
        "/usr/sbin/e2fsck",
        "/usr/sbin/mke2fs",
        "/usr/sbin/resize2fs",
    ],
    data: &[],
    modules: &["ext4", "xen-blkfront", "xen-evtchn", "xen-gntalloc", "xen-gntdev", "xen-netfront"],
};

const DOM0: Recipe = Recipe {
    name: "dom0",
    programs: &[
        "/usr/bin/bash",
        "/usr/bin/fio",
        "/usr/bin/flock",
        "/usr/bin/iperf3",
        "/usr/bin/stty",
        "/usr/bin/timeout",
        "/usr/bin/xenstore",
        "{xen}/libxl-save-helper",
        "{xen}/lsevtchn",
        "{xen}/xen-diag",
        "{xen}/xen-init-dom0",
        "{xen}/xenconsole",
        "{xen}/xenconsoled",
        "{xen}/xenstored",
        "{xen}/xl",
        "/usr/libexec/xen-qemu-system-i386",
        "/usr/sbin/blkdiscard",
        "/usr/sbin/blockdev",
        "/usr/sbin/bridge",
        "/usr/sbin/brctl",
        "/usr/sbin/dmsetup",
        "/usr/sbin/e2fsck",
        "/usr/sbin/ip",
        "/usr/sbin/losetup",
        "/usr/sbin/mke2fs",
        "/usr/sbin/resize2fs",
    ],
    // QEMU reads a keymap even where there is no display.
    data: &["/etc/xen", "/usr/lib/xen-common/bin", "/usr/share/qemu/keymaps"],
    modules: &[
        "bridge",
        "dm-delay",
        "dm-flakey",
        "dm-mod",
        "ext4",
        "loop",
        "null_blk",
        "tun",
        "xen-blkback",
        "xen-blkfront",
        "xen-evtchn",
        "xen-gntalloc",
        "xen-gntdev",
        "xen-netback",
        "xen-privcmd",
        "xenfs",
    ],
};

/// Prints where programs ($2…) and their libraries are: the path, a tab, the file it leads to. Libraries in the folder
/// $1 come first. What a program finds only when it needs it (`libgcc_s`, to end a thread) is added.
const CLOSURE: &str = r#"
    first=$1
    shift
    for program; do
        echo "$program"
        LD_LIBRARY_PATH=$first ldd "$program" 2>/dev/null | grep -o '/[^ ]*' || true
    done | { cat; echo /lib/x86_64-linux-gnu/libgcc_s.so.1; } | sort -u | while read -r path; do
        printf '%s\t%s\n' "$path" "$(readlink -f "$path")"
    done
"#;

/// Copies stock modules ($3…) of $1 (its release $2) and all they need into the folder /tmp/modules, without
/// compression and symbols: unpacking is dear in an emulated machine. Prints the names; the index follows.
const MODULES: &str = r#"
    stock=$1 release=$2 out=$3
    shift 3
    rm -rf "$out"
    folder=$out/lib/modules/$release
    mkdir -p "$folder"
    modprobe -d "$stock" -S "$release" --show-depends --all "$@" | sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u |
        while read -r module; do
            name=$(basename "$module" .xz)
            xz -dc "$module" >"$folder/$name"
            strip --strip-debug "$folder/$name"
        done
    cp "$stock/usr/lib/modules/$release/"modules.{builtin,builtin.modinfo,order} "$folder/"
    depmod -b "$out" "$release"
"#;

/// fio links libraries of engines for Ceph, Gluster and such: 40 MB, which the lab never calls. Makes a library
/// that has all their symbols ($3… are their names) with the compiler $2, and lays it under each name in the folder $1.
const STAND_IN: &str = r#"
    out=$1 gcc=$2
    shift 2
    cd /tmp
    nm --dynamic --undefined-only --with-symbol-versions /usr/bin/fio | sed -n 's/.* U //p' | sort -u >wanted
    for name; do nm --dynamic --defined-only "/usr/lib/x86_64-linux-gnu/$name" | sed 's/.* //; s/@.*//'; done |
        sort -u >theirs
    : >stand-in.c
    : >versions
    while read -r symbol; do
        grep -qxF "${symbol%%@*}" theirs || continue
        echo "void ${symbol%%@*}(void) { __builtin_trap(); }" >>stand-in.c
        case $symbol in *@*) echo "${symbol##*@} ${symbol%%@*}" >>versions ;; esac
    done <wanted
    sort versions | awk '$1 != version { if (version) print "};"; version = $1; print version " {" }
        { print "  " $2 ";" } END { if (version) print "};" }' >stand-in.map
    "$gcc" -shared -nostdlib -Wl,--version-script=stand-in.map -w -o stand-in.so stand-in.c
    rm -rf "$out"
    mkdir -p "$out"
    for name; do cp stand-in.so "$out/$name"; done
"#;

/// The libraries that are stood in for.
const FIO_ENGINES: &[&str] = &[
    "libgfapi.so.0",
    "libibverbs.so.1",
    "libnbd.so.0",
    "libnfs.so.14",
    "libpmem.so.1",
    "librados.so.2",
    "librbd.so.1",
    "librdmacm.so.1",
];

/// What is the project's own in a machine: where it goes, and where it comes from.
pub type Overlay = Vec<(String, PathBuf)>;

/// The archives made from Debian.
pub struct Images {
    folder: PathBuf,
    suffix: &'static str,
}

impl Images {
    /// Makes them if they are not there.
    ///
    /// # Errors
    ///
    /// When a program or a module is not in the root.
    pub fn ensure(root: &Root, kernel: &Kernel) -> Result<Self> {
        let folder = super::folder().join("images");
        let suffix = kernel.suffix();
        let images = Self { folder: folder.clone(), suffix };
        let recipes = [DOMU, DOM0].map(|it| (it.name, it.programs, it.data, it.modules));
        let scripts = [CLOSURE, MODULES, STAND_IN].concat();
        let made_with = [&kernel.release, versions::XEN, versions::CC];
        let inputs = format!("{made_with:?} {recipes:?} {scripts}");
        let stamp = Stamp::new(&format!("images{suffix}"), inputs);
        if stamp.is_current() {
            return Ok(images);
        }
        eprintln!("making the first roots of Dom0 and DomU");
        fs::create_dir_all(&folder)?;
        let stand_in = folder.join("fio-engines");
        let stand_in_name = stand_in.display().to_string();
        let words = [&[stand_in_name.as_str(), versions::CC], FIO_ENGINES].concat();
        command::prepare(&mut root.script(STAND_IN, &words))?;
        for recipe in [DOMU, DOM0] {
            images.make(root, kernel, &recipe, &stand_in)?;
        }
        stamp.set()?;
        Ok(images)
    }

    fn make(&self, root: &Root, kernel: &Kernel, recipe: &Recipe, stand_in: &Path) -> Result<()> {
        let file = self.folder.join(format!("{}{}.cpio", recipe.name, self.suffix));
        let mut image = Image::new(Archive::new(BufWriter::new(File::create(file)?)));
        for (link, target) in
            [("bin", "usr/bin"), ("sbin", "usr/bin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
        {
            image.archive.link(link, target)?;
        }
        for folder in
            ["usr/bin", "proc", "sys", "dev", "run", "tmp", "var/log", "var/lib", "mnt", "root"]
        {
            image.folder(folder)?;
        }
        image.archive.link("usr/sbin", "bin")?;
        image.archive.link("var/run", "/run")?;
        image.archive.link("var/lock", "/run/lock")?;
        image.archive.device("dev/console", 5, 1)?;

        let first = stand_in.display().to_string();
        let xen = format!("/usr/lib/xen-{}/bin", versions::XEN);
        let programs: Vec<_> =
            recipe.programs.iter().map(|program| program.replace("{xen}", &xen)).collect();
        let mut words = vec![first.as_str()];
        words.extend(programs.iter().map(String::as_str));
        let closure = command::output(&mut root.script(CLOSURE, &words))?;
        for line in closure.lines() {
            let (path, target) =
                line.split_once('\t').context("the list of libraries is broken")?;
            match path.strip_prefix(&first) {
                Some(name) => {
                    image.file(&format!("/usr/lib/x86_64-linux-gnu{name}"), Path::new(path))?;
                }
                None => image.file(path, &root.outside(target))?,
            }
        }
        let busybox = root.outside("/usr/bin/busybox");
        image.file("/usr/bin/busybox", &busybox)?;
        for applet in command::output(root.command("busybox").arg("--list"))?.lines() {
            image.link(&format!("/usr/bin/{applet}"), "busybox")?;
        }
        for tool in ["chmod", "exists", "list", "ls", "read", "rm", "watch", "write"] {
            image.link(&format!("/usr/bin/xenstore-{tool}"), "xenstore")?;
        }
        for name in recipe.data {
            image.tree(name, &root.outside(name))?;
        }

        let modules = self.folder.join(format!("{}-modules{}", recipe.name, self.suffix));
        let place = modules.display().to_string();
        let mut words = vec![kernel.stock.as_str(), &kernel.release, &place];
        let has = |name: &&&str| kernel.debug.as_ref().is_none_or(|it| it.modules.contains(*name));
        words.extend(recipe.modules.iter().filter(has));
        command::prepare(&mut root.script(MODULES, &words))?;
        let name = format!("/lib/modules/{}", kernel.release);
        image.tree(&name, &modules.join(name.trim_start_matches('/')))?;
        Ok(image.archive.end()?)
    }

    /// Writes the first root of a machine (`dom0`, `domu`) with the project's own parts.
    ///
    /// # Errors
    ///
    /// When a part cannot be read or the file not be written.
    pub fn compose(&self, machine: &str, overlay: &Overlay, to: &Path) -> Result<()> {
        let mut file =
            File::create(to).with_context(|| format!("cannot write {}", to.display()))?;
        let made = self.folder.join(format!("{machine}{}.cpio", self.suffix));
        io::copy(&mut File::open(made)?, &mut file)?;
        let mut image = Image::new(Archive::new(BufWriter::new(file)));
        for (path, from) in overlay {
            if from.is_dir() {
                image.tree(path, from)?;
            } else {
                image.file(path, from)?;
            }
        }
        Ok(image.archive.end()?)
    }
}

/// An archive in which nothing stands twice, and every file's folder before it.
struct Image<W: Write> {
    archive: Archive<W>,
    seen: BTreeSet<String>,
}

impl<W: Write> Image<W> {
    fn new(archive: Archive<W>) -> Self {
        Self { archive, seen: BTreeSet::new() }
    }

    /// The place of a path: one folder of programs, the linker's links resolved.
    fn place(path: &str) -> String {
        let path = path.trim_start_matches('/');
        for (link, target) in [("lib/", "usr/lib/"), ("lib64/", "usr/lib64/"), ("bin/", "usr/bin/")]
        {
            if let Some(rest) = path.strip_prefix(link) {
                return format!("{target}{rest}");
            }
        }
        for link in ["sbin/", "usr/sbin/"] {
            if let Some(rest) = path.strip_prefix(link) {
                return format!("usr/bin/{rest}");
            }
        }
        path.to_owned()
    }

    fn is_new(&mut self, path: &str) -> Result<bool> {
        if self.seen.contains(path) {
            return Ok(false);
        }
        if let Some((parent, _)) = path.rsplit_once('/') {
            self.folder(parent)?;
        }
        Ok(self.seen.insert(path.to_owned()))
    }

    fn folder(&mut self, path: &str) -> Result<()> {
        let path = Self::place(path);
        if self.is_new(&path)? {
            self.archive.folder(&path)?;
        }
        Ok(())
    }

    fn file(&mut self, path: &str, from: &Path) -> Result<()> {
        let path = Self::place(path);
        if self.is_new(&path)? {
            let content =
                fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
            self.archive.file(&path, &content)?;
        }
        Ok(())
    }

    fn link(&mut self, path: &str, target: &str) -> Result<()> {
        let path = Self::place(path);
        if self.is_new(&path)? {
            self.archive.link(&path, target)?;
        }
        Ok(())
    }

    /// A folder with all that is in it; links in it stay links.
    fn tree(&mut self, path: &str, from: &Path) -> Result<()> {
        self.folder(path)?;
        let mut entries = fs::read_dir(from)
            .with_context(|| format!("cannot list {}", from.display()))?
            .collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(std::fs::DirEntry::file_name);
        for entry in entries {
            let name = format!("{path}/{}", entry.file_name().to_string_lossy());
            let kind = entry.file_type()?;
            if kind.is_dir() {
                self.tree(&name, &entry.path())?;
            } else if kind.is_symlink() {
                self.link(&name, &fs::read_link(entry.path())?.to_string_lossy())?;
            } else {
                self.file(&name, &entry.path())?;
            }
        }
        Ok(())
    }
}
