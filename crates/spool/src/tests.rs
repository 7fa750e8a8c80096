mod basics;
mod damage;
mod limit;
mod model;

use crate::{Recovery, Spool, SpoolSettings};

impl Spool {
    /// The process is killed, and the next one opens the directory.
    fn kill(self, settings: &SpoolSettings) -> (Self, Recovery) {
        let killed = tempfile::tempdir().unwrap();
        let aside = killed.path().join("copy");
        std::fs::create_dir(&aside).unwrap();
        for entry in std::fs::read_dir(&settings.dir).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), aside.join(entry.file_name())).unwrap();
        }
        drop(self);
        std::fs::remove_dir_all(&settings.dir).unwrap();
        std::fs::create_dir(&settings.dir).unwrap();
        for entry in std::fs::read_dir(&aside).unwrap().map(Result::unwrap) {
            std::fs::copy(entry.path(), settings.dir.join(entry.file_name())).unwrap();
        }
        Self::open(settings.clone()).unwrap()
    }
}
