//! Writing files so that an interruption leaves the old file or the new one, never a part.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Replaces the file `path` by what `write` writes, in one step: it goes to a temporary file beside
/// `path`, which takes its name when complete.
///
/// # Errors
///
/// Whatever `write` fails with, and a folder that is missing or cannot be written. `path` is then as
/// it was, and nothing is left beside it.
pub fn replace_file(path: &Path, write: impl FnOnce(&mut BufWriter<&mut File>) -> io::Result<()>) -> io::Result<()> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut builder = tempfile::Builder::new();
    // As any other new file, where a temporary one would be its owner's alone.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    let mut part = builder.prefix(".eec-").tempfile_in(folder)?;
    let mut out = BufWriter::with_capacity(1 << 20, part.as_file_mut());
    write(&mut out)?;
    out.flush()?;
    drop(out);
    part.as_file().sync_all()?;
    part.persist(path).map_err(|e| e.error)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_and_nothing_else_is_left() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("model");
        std::fs::write(&path, "old")?;
        replace_file(&path, |out| out.write_all(b"new"))?;
        assert_eq!(std::fs::read(&path)?, b"new");
        let failed = replace_file(&path, |out| {
            out.write_all(b"half")?;
            Err(io::Error::other("interrupted"))
        });
        assert!(failed.is_err_and(|e| e.to_string() == "interrupted"));
        assert_eq!(std::fs::read(&path)?, b"new");
        assert_eq!(std::fs::read_dir(folder.path())?.count(), 1);
        assert!(replace_file(&folder.path().join("absent/model"), |_| Ok(())).is_err());
        assert!(replace_file(Path::new("/"), |_| Ok(())).is_err());
        Ok(())
    }
}
