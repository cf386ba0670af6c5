//! Files that a bench writes at its end.

use std::fs::{self, OpenOptions};
use std::io;
use std::path::Path;

/// A file that can be written: found out before all the work. If nothing is written after all, a file
/// that was not there is not there again.
pub(super) struct Output<'a> {
    path: &'a Path,
    made: bool,
}

impl<'a> Output<'a> {
    pub(super) fn new(path: &'a Path) -> Result<Self, String> {
        let made = OpenOptions::new().write(true).create_new(true).open(path);
        let made = match made {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let there = OpenOptions::new().append(true).open(path);
                there.map(|_| false)
            }
            made => made.map(|_| true),
        };
        let made = made.map_err(|error| cannot(path, &error))?;
        Ok(Self { path, made })
    }

    pub(super) fn write(mut self, text: &str) -> Result<(), String> {
        fs::write(self.path, text).map_err(|error| cannot(self.path, &error))?;
        self.made = false;
        Ok(())
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        if self.made {
            let _ = fs::remove_file(self.path);
        }
    }
}

fn cannot(path: &Path, error: &io::Error) -> String {
    format!("cannot write {}: {error}", path.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_not_written_is_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let (new, old) = (directory.path().join("new"), directory.path().join("old"));
        fs::write(&old, "text").unwrap();
        drop((Output::new(&new).unwrap(), Output::new(&old).unwrap()));
        assert!(!new.exists());
        assert_eq!(fs::read_to_string(&old).unwrap(), "text");
        for path in [&new, &old] {
            Output::new(path).unwrap().write("more").unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), "more");
        }
        let error = Output::new(&directory.path().join("no/such")).err();
        assert!(error.unwrap().contains("cannot write"));
    }
}
