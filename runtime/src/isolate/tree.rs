//! The only way to touch a path in an untrusted tree: every path is resolved by openat2(RESOLVE_IN_ROOT) from a
//! descriptor of its root, so that neither `..` nor a symlink leads out, and what was found is used by descriptor.
//! (CVE-2021-30465, CVE-2024-45310)

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, ResolveFlags, fstat, mkdirat, openat2, readlinkat};
use rustix::io::Errno;

/// As many symlinks as the kernel follows.
const LINKS: u32 = 40;

#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
}

impl Tree {
    pub fn new(root: OwnedFd) -> Self {
        Self { root }
    }

    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// An O_PATH descriptor of what `path` leads to.
    pub fn find(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.open(path, OFlags::PATH)
    }

    pub fn open(&self, path: impl AsRef<Path>, flags: OFlags) -> io::Result<OwnedFd> {
        open_in(self.root.as_fd(), path.as_ref(), flags)
    }

    /// The directory `path`, made with its parents where missing.
    pub fn make_directory(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.make(path.as_ref(), LINKS, &directory)
    }

    /// The file `path`, made empty with its parents where missing.
    pub fn make_file(&self, path: impl AsRef<Path>) -> io::Result<OwnedFd> {
        self.make(path.as_ref(), LINKS, &|parent, name| {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::WRONLY;
            match rustix::fs::openat(parent, name, flags, Mode::from_raw_mode(0o755)) {
                Err(Errno::EXIST) | Ok(_) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
    }

    /// The parent directory of `path`, made where missing, and the last name of `path`.
    pub fn parent<'a>(&self, path: &'a Path) -> io::Result<(OwnedFd, &'a OsStr)> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((self.make_directory(path.parent().unwrap_or(Path::new("/")))?, name))
    }

    fn make(
        &self,
        path: &Path,
        links: u32,
        create: &dyn Fn(BorrowedFd<'_>, &OsStr) -> io::Result<()>,
    ) -> io::Result<OwnedFd> {
        match self.find(path) {
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            found => return found,
        }
        if links == 0 {
            return Err(io::Error::from_raw_os_error(libc::ELOOP));
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let parent_fd = self.make(parent, links - 1, &directory)?;
        let Some(Component::Normal(name)) = path.components().next_back() else {
            // It ends in `..`: what it leads out of is there now.
            return self.find(path);
        };
        create(parent_fd.as_fd(), name)?;
        match open_in(self.root.as_fd(), path, OFlags::PATH) {
            // It exists and leads nowhere: a dangling symlink, whose target is to be made.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {
                let target = readlinkat(&parent_fd, name, Vec::new())?;
                let target = PathBuf::from(String::from_utf8_lossy(target.as_bytes()).into_owned());
                self.make(&parent.join(target), links - 1, create)
            }
            found => found,
        }
    }
}

fn directory(parent: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match mkdirat(parent, name, Mode::from_raw_mode(0o755)) {
        Err(Errno::EXIST) | Ok(()) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

pub fn open_in(root: BorrowedFd<'_>, path: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    loop {
        match openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
            // A rename raced with the resolution of a `..`: the kernel asks to try again.
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return Ok(result?),
        }
    }
}

pub fn is_directory(fd: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode) == FileType::Directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("root")).unwrap();
        let root = std::fs::File::open(dir.path().join("root")).unwrap();
        (dir, Tree::new(root.into()))
    }

    #[test]
    fn links_and_dots_stay_inside() {
        let (dir, tree) = tree();
        symlink("/../../..", dir.path().join("root/up")).unwrap();
        symlink("/gone/deep", dir.path().join("root/dangling")).unwrap();
        tree.make_directory("/up/a/../b/c").unwrap();
        assert!(dir.path().join("root/b/c").is_dir());
        tree.make_directory("/dangling/x").unwrap();
        assert!(dir.path().join("root/gone/deep/x").is_dir());
        tree.make_file("/../../f").unwrap();
        assert!(dir.path().join("root/f").is_file());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_loop_of_links_ends() {
        let (dir, tree) = tree();
        symlink("b", dir.path().join("root/a")).unwrap();
        symlink("a", dir.path().join("root/b")).unwrap();
        assert!(tree.make_directory("/a/c").is_err());
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let (dir, tree) = tree();
        std::fs::write(dir.path().join("root/f"), "").unwrap();
        assert!(tree.make_directory("/f/d").is_err());
    }
}
